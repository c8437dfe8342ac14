//! What can go wrong with kernels, images and disks.

use std::io;
use std::path::{Path, PathBuf};

use banger_model::Size;

use crate::digest::Digest;
use crate::oci::OciError;
use crate::unpack::UnpackError;
use crate::{bundle, ext4, kernel, store};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("Cancelled")]
    Cancelled,
    #[error("No space left in {} (at least {} needed{})", .path.display(), Size::from_bytes(round_up_mib(*.needed)), quota_hint(*.quota))]
    NoSpace {
        /// The directory of the file that could not grow.
        path: PathBuf,
        /// Free bytes with which the operation would have gone on; a lower bound where
        /// the end is not known.
        needed: u64,
        /// The user's quota was exceeded, not the file system's size.
        quota: bool,
    },
    #[error("Cannot {what} {}", .path.display())]
    Io {
        /// A verb, as "read".
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{tool} is missing: install it (Debian, Ubuntu: apt install {debian}; Fedora: dnf install {fedora})"
    )]
    MissingTool {
        tool: &'static str,
        debian: &'static str,
        fedora: &'static str,
    },
    #[error(
        "No subordinate ids for {user}: building an image without root needs a range in /etc/subuid and /etc/subgid (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user})"
    )]
    NoSubordinateIds { user: String },
    #[error("{tool} failed: {message}")]
    Tool {
        tool: &'static str,
        /// The tool's own last words.
        message: String,
    },
    #[error("No such image: {0} (banger image list shows what is here, banger image pull fetches)")]
    NoSuchImage(String),
    #[error(
        "No such kernel: {0} (banger kernel list shows what is here, banger kernel list --available what can be pulled)"
    )]
    NoSuchKernel(String),
    #[error("The release of {name} is not usable: {reason}")]
    Engine { name: String, reason: String },
    #[error("Not in the catalogue: {0}")]
    NotInCatalogue(String),
    #[error("{what} {name} exists: choose another name, or delete it first")]
    Exists { what: &'static str, name: String },
    #[error("{what} {name} exists: choose another name, or replace it with --force")]
    Replaceable { what: &'static str, name: String },
    #[error("Image {0} is managed already")]
    AlreadyManaged(String),
    #[error("Damaged: {} ({reason}); delete it and fetch it again", .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("Not a usable kernel: {}", .path.display())]
    Kernel {
        path: PathBuf,
        source: kernel::KernelError,
    },
    #[error("Not a usable ext4 file system: {}", .path.display())]
    Superblock {
        path: PathBuf,
        source: ext4::SuperblockError,
    },
    #[error("Cannot make the file system {}", .path.display())]
    Ext4 { path: PathBuf, source: ext4::WriteError },
    #[error("Not a regular file: {}", .0.display())]
    NotAFile(PathBuf),
    #[error("Cannot make a disk of {wanted} from an image of {have}: ask for at least that")]
    DiskTooSmall { wanted: Size, have: Size },
    #[error("Cannot pull {reference}")]
    Oci {
        /// In its full form.
        reference: String,
        source: Box<OciError>,
    },
    #[error("Bad package {package}: {reason}")]
    Package { package: String, reason: String },
    #[error("Bad catalogue {origin}: {reason}")]
    Catalogue { origin: String, reason: String },
    #[error("Cannot unpack layer {diff_id}")]
    Layer {
        /// Of the layer's content.
        diff_id: Digest,
        source: UnpackError,
    },
    #[error("Cannot unpack the image")]
    Unpack(#[from] UnpackError),
    #[error("Not a usable bundle: {origin}")]
    Bundle {
        /// Where it is, or whose it should become.
        origin: String,
        source: bundle::BundleError,
    },
    #[error(
        "Image {0} boots kernel files of its owner, which no bundle has: import them (banger kernel import), and register it with that kernel"
    )]
    OwnKernel(String),
    #[error("None of the sources of {name} can be used:{}", .reasons.iter().map(|reason| format!("\n  {reason}")).collect::<String>())]
    Sources {
        name: String,
        /// What each of them said, in the order in which they were tried.
        reasons: Vec<String>,
    },
}

impl From<banger_sys::cancel::Cancelled> for Error {
    fn from(_: banger_sys::cancel::Cancelled) -> Self {
        Self::Cancelled
    }
}

impl Error {
    /// Gives an I/O error its object; a full disk becomes [`Error::NoSpace`] with `needed`
    /// bytes.
    pub(crate) fn io_needing(what: &'static str, path: &Path, needed: u64, source: io::Error) -> Self {
        match full(&source) {
            Some(quota) => Self::NoSpace {
                path: home(path),
                needed,
                quota,
            },
            None => Self::Io {
                what,
                path: path.to_owned(),
                source,
            },
        }
    }

    /// Gives an I/O error its object, for `map_err`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::io_needing(what, path, 1 << 20, source)
    }

    /// The same for an error of a system call.
    pub(crate) fn os(what: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::io_needing(what, path, 1 << 20, source.into())
    }
}

/// Whether an error means a full disk, and whether a quota made it full.
pub(crate) fn full(error: &io::Error) -> Option<bool> {
    match error.kind() {
        io::ErrorKind::StorageFull => Some(false),
        io::ErrorKind::QuotaExceeded => Some(true),
        _ => None,
    }
}

/// The directory that a file of a build is to live in: the build's own is gone with it.
pub(crate) fn home(path: &Path) -> PathBuf {
    let temporary = |part: std::path::Component<'_>| {
        let name = part.as_os_str().as_encoded_bytes();
        name.starts_with(store::PREFIX.as_bytes())
    };
    let parent = path.parent().unwrap_or(path);
    parent.components().take_while(|&part| !temporary(part)).collect()
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn quota_hint(exceeded: bool) -> &'static str {
    if exceeded { ", your quota is used up" } else { "" }
}

fn round_up_mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20) << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_its_own_error() {
        let path = Path::new("/data/images/.tmp-banger-1/rootfs.ext4");
        let error = Error::io_needing("write", path, (3 << 20) - 5, io::ErrorKind::StorageFull.into());
        assert_eq!(
            error.to_string(),
            "No space left in /data/images (at least 3M needed)"
        );
        let error = Error::io("write", path)(io::ErrorKind::QuotaExceeded.into());
        assert!(error.to_string().contains("quota"), "{error}");
        let error = Error::io("write", path)(io::ErrorKind::NotFound.into());
        assert_eq!(
            error.to_string(),
            "Cannot write /data/images/.tmp-banger-1/rootfs.ext4"
        );
    }
}
