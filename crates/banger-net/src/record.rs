//! What was changed on the host and has no name of banger's: written down before it is done, so
//! that whoever comes after a crash can take it back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::NetError;
use crate::nft::Loaded;

/// Where the record is: gone after a reboot, as what it records.
pub const DIRECTORY: &str = "/run/banger-network";
const FILE: &str = "/run/banger-network/record.json";
const NEW_FILE: &str = "/run/banger-network/record.json.new";

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The directory of namespaces was made, or made a mount of its own.
    pub(crate) namespaces: Option<Namespaces>,
    /// Interfaces on which forwarding was off and was turned on.
    pub(crate) forwarding: BTreeMap<String, Forwarding>,
    pub(crate) guest_tables: Option<Loaded>,
    pub(crate) host_table: Option<Loaded>,
}

/// What was done to `/run/netns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    pub(crate) directory: bool,
    pub(crate) mount: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forwarding {
    /// The interface's, so that a later one of the same name is left alone.
    pub(crate) index: u32,
    /// Whether the whole host forwarded then.
    pub(crate) everywhere: bool,
}

impl Record {
    /// The record of an earlier run; an empty one when there is none or it cannot be understood.
    pub(crate) fn read() -> Result<Self, NetError> {
        match fs::read(FILE) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(NetError::file(FILE)(e)),
        }
    }

    pub(crate) fn write(&self) -> Result<(), NetError> {
        let bytes = serde_json::to_vec(self).map_err(|e| NetError::file(FILE)(e.into()))?;
        let replace = || -> io::Result<()> {
            fs::create_dir_all(DIRECTORY)?;
            fs::write(NEW_FILE, bytes)?;
            fs::rename(NEW_FILE, FILE)
        };
        replace().map_err(NetError::file(FILE))
    }

    /// Everything is taken back.
    pub(crate) fn delete() -> Result<(), NetError> {
        match fs::remove_dir_all(Path::new(DIRECTORY)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(NetError::file(DIRECTORY)(e)),
            _ => Ok(()),
        }
    }
}
