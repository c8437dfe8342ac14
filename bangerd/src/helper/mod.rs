//! System mode's helper, as its client sees it: what is asked of it, what it refuses, and
//! whether it would launch a VM of this owner's at all.

mod bus;
mod client;
mod failure;
mod standing;

pub(crate) use bus::SystemBus;
pub(crate) use client::{Helper, Interaction};
pub(crate) use failure::Failure;
pub(crate) use standing::Standing;
