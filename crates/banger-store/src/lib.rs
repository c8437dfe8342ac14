//! The owner's SQLite database: which VMs there are, what is known about each, and which
//! operations are under way. All calls block.
//!
//! Durability: what decides whether something of ours exists (a VM's row, an intent) is on
//! the disk before the call returns. Notes about a running VMM are not flushed: they must
//! survive the daemon, and mean nothing after the host went down.

mod check;
mod error;
mod intents;
mod migrations;
mod open;
mod record;
mod vms;

pub use error::{Error, Result};
pub use record::{HeldSlot, Intent, NewIntent, Operation, VmRecord, VmmProcess};

use rusqlite::Connection;

/// An open database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// The newest schema that this version knows.
pub const SCHEMA_VERSION: u32 = migrations::NEWEST;
