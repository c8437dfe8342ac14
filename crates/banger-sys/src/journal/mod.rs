//! journald: streams for the consoles of VMs, entries with fields for what the daemons say.

mod entry;
mod stream;

pub use entry::{Entry, Priority, is_stderr, printable};
pub use stream::journal_stream;
