//! A descriptor that the runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor that does not block with the current runtime.
///
/// # Errors
/// When the descriptor is none that can be waited for, such as a regular file.
///
/// # Panics
/// Outside a runtime.
pub fn watch_descriptor(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open for as long as the registration holds it.
    unsafe { AsyncFd::register(descriptor) }.map_err(|error| error.into_parts().1)
}
