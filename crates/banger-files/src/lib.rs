//! A tree of files as one stream: packed on one side of a machine's border, unpacked on the other
//! strictly below one directory. Host and guest use the same code.
//!
//! The stream is a POSIX archive (pax interchange format: directories, regular files and symbolic
//! links alone) in an LZ4 frame. It blocks: callers run it in a thread of its own.

mod error;
mod header;
mod link;
mod look;
mod pack;
mod place;
mod read;
mod remove;
mod root;
mod unpack;

pub use error::{Error, Kind};
pub use look::{Found, FoundKind, Look};
pub use pack::{Meta, Packed, Packer};
pub use remove::remove;
pub use root::Root;
pub use unpack::{Owner, Rules, Unpacked, unpack};

/// What is read and written at once, in bytes.
const CHUNK: usize = 256 << 10;
/// A block of an archive in bytes.
const BLOCK: usize = 512;
/// A path of an entry, or a link's target, in bytes (`PATH_MAX` of Linux, without its NUL).
const MAX_PATH: usize = 4095;
/// Directories one in the other.
const MAX_DEPTH: usize = 256;

/// Called with the bytes of files that have passed; an error stops the work.
pub type Watch<'a> = dyn FnMut(u64) -> std::io::Result<()> + Send + 'a;
