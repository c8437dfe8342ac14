//! Errors of images and kernels as errors of the contract.

use banger_bus::{Error, ErrorKind};
use banger_image::Error as E;

use crate::core::error::chain;

/// Which store an error is about: some mean one thing there and another here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Image,
    Kernel,
}

pub(super) fn convert(error: &E, about: About) -> Error {
    let image = about == About::Image;
    let kind = match error {
        E::Cancelled => ErrorKind::Cancelled,
        E::NoSpace { .. } => ErrorKind::NoSpace,
        E::MissingTool { .. } | E::NoSubordinateIds { .. } => ErrorKind::MissingTool,
        E::Tool { .. } => ErrorKind::FetchFailed,
        E::NoSuchImage(_) => ErrorKind::NoSuchImage,
        E::NoSuchKernel(_) => ErrorKind::NoSuchKernel,
        E::NotInCatalogue(_) if image => ErrorKind::NoSuchImage,
        E::NotInCatalogue(_) => ErrorKind::NoSuchKernel,
        E::Exists { .. } if image => ErrorKind::ImageExists,
        E::Exists { .. } => ErrorKind::KernelExists,
        E::AlreadyManaged(_) => ErrorKind::WrongState,
        E::Kernel { .. } | E::Package { .. } => ErrorKind::BadKernel,
        E::Superblock { .. } => ErrorKind::BadImage,
        E::NotAFile(_) | E::Damaged { .. } if image => ErrorKind::BadImage,
        E::NotAFile(_) | E::Damaged { .. } => ErrorKind::BadKernel,
        E::DiskTooSmall { .. } => ErrorKind::InvalidArgument,
        E::Catalogue { .. } => ErrorKind::BadConfig,
        _ => ErrorKind::Failed,
    };
    let out = Error::new(kind, chain(error));
    match (error, image) {
        (E::NotInCatalogue(_), true) => out.hint("`banger image list --available` shows what can be pulled."),
        (E::NotInCatalogue(_), false) => {
            out.hint("`banger kernel list --available` shows what can be pulled.")
        }
        _ => out,
    }
}
