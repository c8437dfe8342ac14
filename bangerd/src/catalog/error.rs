//! Errors of images and kernels as errors of the contract.

use banger_bus::{Error, ErrorKind};
use banger_image::Error as E;
use banger_image::oci::OciError;
use banger_image::unpack::UnpackError;

use crate::core::error::chain;

/// Which store an error is about: some mean one thing there and another here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Image,
    Kernel,
}

pub(super) fn convert(error: &E, about: About) -> Error {
    let image = about == About::Image;
    let bad = if image {
        ErrorKind::BadImage
    } else {
        ErrorKind::BadKernel
    };
    let kind = match error {
        E::Cancelled => ErrorKind::Cancelled,
        E::NoSpace { .. } => ErrorKind::NoSpace,
        E::MissingTool { .. } | E::NoSubordinateIds { .. } => ErrorKind::MissingTool,
        E::Tool { .. } | E::Sources { .. } => ErrorKind::FetchFailed,
        E::NoSuchImage(_) => ErrorKind::NoSuchImage,
        E::NoSuchKernel(_) => ErrorKind::NoSuchKernel,
        E::NotInCatalogue(_) if image => ErrorKind::NoSuchImage,
        E::NotInCatalogue(_) => ErrorKind::NoSuchKernel,
        E::Exists { .. } | E::Replaceable { .. } if image => ErrorKind::ImageExists,
        E::Exists { .. } | E::Replaceable { .. } => ErrorKind::KernelExists,
        E::AlreadyManaged(_) | E::OwnKernel(_) => ErrorKind::WrongState,
        E::Kernel { .. } | E::Package { .. } => ErrorKind::BadKernel,
        E::Superblock { .. } | E::Layer { .. } => ErrorKind::BadImage,
        E::NotAFile(_) | E::Damaged { .. } | E::Bundle { .. } => bad,
        E::DiskTooSmall { .. } => ErrorKind::InvalidArgument,
        E::Catalogue { .. } => ErrorKind::BadConfig,
        E::Oci { source, .. } => of_registry(source),
        E::Unpack(source) => match source {
            UnpackError::Refused(_) => bad,
            // What it was given took more than it may have.
            UnpackError::Killed { .. } => ErrorKind::LimitExceeded,
            _ => ErrorKind::Failed,
        },
        _ => ErrorKind::Failed,
    };
    // The second line is that of a hint.
    let text = chain(error).replace(":\n  ", ": ").replace("\n  ", "; ");
    let out = Error::new(kind, text);
    match (error, about) {
        (E::NotInCatalogue(_), About::Image) => in_catalogue(out),
        (E::NotInCatalogue(_), About::Kernel) => {
            out.hint("`banger kernel list --available` shows what can be pulled.")
        }
        (E::Oci { source, .. }, _) if matches!(**source, OciError::Offline) => {
            out.hint("Without --offline it is fetched.")
        }
        _ => out,
    }
}

/// An error about something that is not in the catalogue of images.
pub(super) fn in_catalogue(error: Error) -> Error {
    error.hint("`banger image list --available` shows what can be pulled.")
}

fn of_registry(error: &OciError) -> ErrorKind {
    match error {
        OciError::NotFound { .. } => ErrorKind::NoSuchImage,
        OciError::LoginRequired { .. } | OciError::Credentials { .. } => ErrorKind::LoginRequired,
        OciError::WrongPlatform { .. }
        | OciError::Unsupported { .. }
        | OciError::DigestMismatch { .. }
        | OciError::SizeMismatch { .. }
        | OciError::Malformed { .. } => ErrorKind::BadImage,
        OciError::TooLarge { .. } => ErrorKind::LimitExceeded,
        OciError::InsecureHost { .. } => ErrorKind::InvalidArgument,
        _ => ErrorKind::FetchFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_and_strangers_do_has_its_kind() {
        let oci = |source| E::Oci {
            reference: "a.example/x:1".to_owned(),
            source: Box::new(source),
        };
        let host = || "a.example".to_owned();
        for (error, kind) in [
            (
                oci(OciError::NotFound {
                    host: host(),
                    what: "x".to_owned(),
                }),
                ErrorKind::NoSuchImage,
            ),
            (
                oci(OciError::LoginRequired {
                    host: host(),
                    refused: true,
                }),
                ErrorKind::LoginRequired,
            ),
            (oci(OciError::BrokenOff { host: host() }), ErrorKind::FetchFailed),
            (oci(OciError::Offline), ErrorKind::FetchFailed),
            (
                oci(OciError::WrongPlatform { have: vec![host()] }),
                ErrorKind::BadImage,
            ),
            (
                oci(OciError::InsecureHost { host: host() }),
                ErrorKind::InvalidArgument,
            ),
            (
                E::Layer {
                    diff_id: banger_image::Digest::of(b""),
                    source: UnpackError::Refused("bad".to_owned()),
                },
                ErrorKind::BadImage,
            ),
            (
                E::Unpack(UnpackError::Killed { signal: 9 }),
                ErrorKind::LimitExceeded,
            ),
            (E::Unpack(UnpackError::Protocol), ErrorKind::Failed),
        ] {
            assert_eq!(convert(&error, About::Image).kind, kind, "{error:?}");
        }
        let sources = E::Sources {
            name: "x".to_owned(),
            reasons: vec!["one".to_owned(), "two".to_owned()],
        };
        assert!(!convert(&sources, About::Image).message.contains('\n'));
        let offline = convert(&oci(OciError::Offline), About::Image);
        assert!(offline.message.lines().nth(1).unwrap().contains("--offline"));
    }
}
