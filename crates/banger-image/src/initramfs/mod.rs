//! The initramfs of a VM: three uncompressed cpio archives one after the other, of which the
//! kernel unpacks each (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! 1. the modules of one kernel, cached with it ([`build_modules_archive`]),
//! 2. the guest program as `/init`, cached per version ([`build_guest_archive`]),
//! 3. who this VM is, made for each start ([`identity_archive`]).
//!
//! [`assemble`] joins them in memory. Nothing is compressed: the archives never leave the
//! host, and unpacking would cost the guest more than copying costs the host.

mod assemble;
mod cpio;
mod elf;
mod guest;
mod identity;
mod modules;
mod unpack;

use std::io;
use std::path::PathBuf;

pub use assemble::assemble;
pub use guest::build_guest_archive;
pub use identity::identity_archive;
pub use modules::{ModulesArchive, build_empty_modules_archive, build_modules_archive};

/// Why an archive of the initramfs cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path:?} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("The archive cannot be written")]
    Write(#[source] io::Error),
    #[error(
        "The kernel has no {name}: it is neither built in nor a module in {directory:?}, and a \
         guest cannot boot without it"
    )]
    Missing { name: String, directory: PathBuf },
    #[error("The module {path:?} is not one: {reason}")]
    BadModule { path: PathBuf, reason: &'static str },
    #[error("The module {path:?} unpacks to more than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("The guest program {path:?} is not a static x86-64 executable: {reason}")]
    BadProgram { path: PathBuf, reason: &'static str },
}
