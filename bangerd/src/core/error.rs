//! Errors of the crates below as errors of the contract: each kind in one place.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use banger_bus::{Error, ErrorKind};

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// An error of no other kind.
pub(crate) fn failed(what: &str, error: &dyn StdError) -> Error {
    Error::new(ErrorKind::Failed, format!("{what}: {}", chain(error)))
}

/// An error about one of our files. `what` is a verb.
pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> Error {
    let text = format!("Cannot {what} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::new(ErrorKind::NoSpace, text).hint("Make room and try again.")
        }
        _ => Error::new(ErrorKind::Failed, text),
    }
}

pub(crate) fn store(error: &banger_store::Error) -> Error {
    use banger_store::Error as E;
    let text = chain(error);
    match error {
        E::NameTaken(_) => {
            Error::new(ErrorKind::VmExists, text).hint("Choose another name, or delete that VM first.")
        }
        E::NoSuchVm(_) => Error::new(ErrorKind::NoSuchVm, text),
        E::Full => Error::new(ErrorKind::NoSpace, text),
        E::Newer { .. }
        | E::Foreign { .. }
        | E::Open { .. }
        | E::Make { .. }
        | E::Damaged { .. }
        | E::Migrate { .. } => Error::new(ErrorKind::StoreUnusable, text),
        _ => Error::new(ErrorKind::Failed, text),
    }
}

pub(crate) fn image(error: &banger_image::Error) -> Error {
    use banger_image::Error as E;
    let kind = match error {
        E::Cancelled => ErrorKind::Cancelled,
        E::NoSpace { .. } => ErrorKind::NoSpace,
        E::MissingTool { .. } => ErrorKind::MissingTool,
        E::NoSuchImage(_) => ErrorKind::NoSuchImage,
        E::NoSuchKernel(_) => ErrorKind::NoSuchKernel,
        E::Kernel { .. } => ErrorKind::BadKernel,
        E::Superblock { .. } | E::NotAFile(_) => ErrorKind::BadImage,
        E::DiskTooSmall { .. } => ErrorKind::InvalidArgument,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, chain(error))
}

pub(crate) fn launch(error: &banger_sys::launch::LaunchError) -> Error {
    Error::new(
        ErrorKind::EngineFailed,
        format!("Cannot start the VMM: {}", chain(error)),
    )
}
