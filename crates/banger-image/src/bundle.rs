//! Bundles: an image, or a kernel, as one file that another machine takes as it is.
//!
//! A bundle is a tar archive, compressed by zstd, named by its content (`<64 hex>.tar.zst`).
//! `manifest.json` comes first. In an image's bundle `rootfs.ext4` follows; in a kernel's
//! `vmlinux`, then `config` and `modules.tar` where it has them. Nothing else is in it, and the
//! order is fixed. The root file system is a sparse member in GNU's format 1.0 (extended
//! headers of POSIX, a map of the data in front of it), so holes cost nothing here and
//! `tar --zstd -xf` of GNU tar restores them. The same image gives the same bytes.
//!
//! A bundle is hostile until its digest was compared, and what reads it is confined even then.

mod error;
mod extents;
mod fetch;
mod file;
mod manifest;
mod modules;
mod publish;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use error::BundleError;
pub use file::Exported;
pub use manifest::{ImageManifest, KernelManifest, Manifest};
pub use publish::Publish;
pub use read::{Limits, read};

pub(crate) use fetch::Verified;
pub(crate) use file::{Draft, export, file_name, sync_parent};
pub(crate) use modules::{Modules, Tree};
pub(crate) use publish::publish;
pub(crate) use write::{Content, write};

/// The members, by their names.
const MANIFEST: &str = "manifest.json";
const ROOTFS: &str = "rootfs.ext4";
const VMLINUX: &str = "vmlinux";
const CONFIG: &str = "config";
const MODULES: &str = "modules.tar";

/// A block of a tar archive.
const BLOCK: usize = 512;
/// Bytes that are read or written at once.
const PIECE: usize = 1 << 20;
