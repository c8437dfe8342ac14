//! The network of system mode, as a plan and as what makes it so. Everything is written for all
//! slots at once, when the network is made: a VM needs one tap put on one bridge and no rule.

mod check;
mod error;
mod facts;
mod forwarding;
mod namespace;
mod netlink;
mod network;
mod nft;
mod obstacles;
mod record;
mod rules;
mod sysctl;
pub mod tap;
mod undo;
mod watch;

pub use check::{Check, check, host_link_index};
pub use error::NetError;
pub use network::{Network, Step};
pub use obstacles::{Obstacle, obstacles};
pub use record::DIRECTORY as RECORD_DIRECTORY;
pub use undo::{Undone, undo};
pub use watch::{Changed, Watch, Woken};
