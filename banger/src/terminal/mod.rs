//! A guest's command with our own standard streams.

mod raw;
mod session;
mod stdio;

pub(crate) use session::{GuestCommand, run};
pub(crate) use stdio::wants_terminal;
