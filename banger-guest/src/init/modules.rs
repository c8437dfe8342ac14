//! Loading the kernel's modules in the order that the host wrote down.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use banger_model::guest::{MODULES_LATER, MODULES_ORDER};
use rustix::io::Errno;

use crate::console;

/// Loads the modules that the boot waits for. One that fails is a line on the console: whether
/// it was needed shows when the disk or the network is.
pub(super) fn load(directory: &Path) -> io::Result<()> {
    for name in names(directory, MODULES_ORDER)? {
        let result = File::open(directory.join(&name)).and_then(|file| load_one(&file));
        report(&name, result);
    }
    Ok(())
}

/// The modules that nothing of the boot waits for, open: they outlive their directory.
pub(super) fn open_later(directory: &Path) -> Later {
    let names = names(directory, MODULES_LATER).unwrap_or_default();
    let open = |name: String| Some((File::open(directory.join(&name)).ok()?, name));
    Later {
        modules: names.into_iter().filter_map(open).collect(),
    }
}

/// Modules to load when there is time.
pub(super) struct Later {
    modules: Vec<(File, String)>,
}

impl Later {
    pub(super) fn load(self) {
        for (file, name) in self.modules {
            report(&name, load_one(&file));
        }
    }
}

/// The lines of a list; none where everything is built in.
fn names(directory: &Path, list: &str) -> io::Result<Vec<String>> {
    match fs::read_to_string(directory.join(list)) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn load_one(file: &File) -> io::Result<()> {
    match rustix::system::finit_module(file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn report(name: &str, result: io::Result<()>) {
    if let Err(error) = result {
        console::warn(format_args!("The module {name} is not loaded"), &error);
    }
}
