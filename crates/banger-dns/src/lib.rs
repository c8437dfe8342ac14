//! The names of running VMs for the host: `<vm>.vm` and, the other way round, the VMs' addresses.
//!
//! [`answer()`] makes a reply of a request and does no I/O; [`Server`] carries both over UDP and
//! TCP, within limits. What there is to answer comes as a [`Zone`], which whoever knows the VMs
//! replaces as they come and go.

mod answer;
mod limit;
mod server;
mod zone;

pub use answer::{MAX_REPLY, MAX_REQUEST, answer};
pub use server::Server;
pub use zone::{DOMAIN, Zone, is_ours};
