//! The daemon's objects on the bus, on as many connections as there are: the session bus where
//! there is one, and one per client of the private socket.
//!
//! A change is put into the queue of each connection and sent by that connection's own task, so
//! that a client that does not read holds up nobody but himself.

mod event;
#[cfg(test)]
pub(crate) mod fake;
mod hub;
mod idle;
mod peer;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod tests;

pub(crate) use hub::Bus;
