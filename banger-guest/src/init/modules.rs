//! Loading the kernel's modules in the order that the host wrote down.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::console;

/// Loads the modules of `directory`. One that fails is a line on the console: whether it was
/// needed shows when the disk or the network is.
pub(super) fn load(directory: &Path) -> io::Result<()> {
    let order = match fs::read_to_string(directory.join("modules.order")) {
        Ok(order) => order,
        // Everything is built in.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in order.lines() {
        if let Err(error) = load_one(&directory.join(name)) {
            console::warn(format_args!("The module {name} is not loaded"), &error);
        }
    }
    Ok(())
}

fn load_one(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
