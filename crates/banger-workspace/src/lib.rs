//! A git repository into a guest, and its commits out again. The repository, its configuration and
//! everything that a guest sends are hostile: git itself is run with a directory of our own only.
//!
//! The code blocks; a [`Cancel`] stops it from another thread.

mod config;
mod error;
mod full;
mod git;
mod guest_dir;
pub mod import;
mod index;
mod manifest;
mod options;
mod overlay;
mod payload;
mod plan;
mod read;
mod refs;
mod repository;
mod scratch;
mod stat;
mod state;
mod tree;

pub use banger_sys::cancel::Cancel;
pub use error::{Error, ErrorKind, Result};
pub use git::{Command, Done, Git};
pub use manifest::Manifest;
pub use options::{BadMode, Mode, Options, Owner};
pub use payload::{Expected, Part, Payload};
pub use plan::Plan;
pub use refs::check_branch;
pub use repository::{Head, Repository};
pub use scratch::Scratch;
pub use stat::{Kind, Stat};
