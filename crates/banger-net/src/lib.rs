//! The network of system mode, as a plan and as what makes it so. Everything is written for all
//! slots at once, when the network is made: a VM needs one tap put on one bridge and no rule.

mod check;
mod error;
mod netlink;
pub mod tap;

pub use check::{Check, check, host_link_index};
pub use error::NetError;
