//! Kernels, images and root disks on the host: pulled, imported, listed, verified, cloned.
//!
//! Everything here blocks; callers on an async runtime use its blocking threads. Nothing is
//! mounted, and nothing needs a privilege. A store directory holds finished objects only:
//! each is built aside, verified, and renamed to its name.

// Tests say why they are skipped.
#![cfg_attr(test, allow(clippy::print_stdout))]

mod apt;
pub mod bundle;
pub mod catalog;
mod digest;
pub mod disk;
pub mod engine;
mod error;
pub mod ext4;
mod group;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod layer;
pub mod oci;
mod process;
mod progress;
mod recipe;
mod store;
pub mod unpack;

pub use apt::Mirrors;
pub use banger_sys::cancel::Cancel;
pub use digest::{Digest, DigestError, Hasher};
pub use error::{Error, Result};
pub use progress::{NoProgress, Part, PartState, Progress};
