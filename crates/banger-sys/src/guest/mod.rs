//! What the guest program needs from its kernel and the standard library has no safe way for.

mod child;
mod fork;
mod ready;
mod resize;
mod signals;
mod vsock;

pub use child::{ChildSetup, Credentials, set_up_child};
pub use fork::{Forked, fork};
pub use ready::watch_descriptor;
pub use resize::grow_ext4;
pub use signals::{SignalFd, kill_init_realtime};
pub use vsock::{accept_host as accept_vsock, connect_host as connect_vsock, listen as listen_vsock};
