//! What is known of a slot.

use banger_model::{GuestBridge, Slot, SlotHandle, VmName};
use banger_sys::pidfd::{Pidfd, ProcessIdentity};
use serde::{Deserialize, Serialize};

/// A slot that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotEntry {
    pub slot: Slot,
    /// The owner's uid.
    pub owner: u32,
    pub handle: SlotHandle,
    pub bridge: GuestBridge,
    /// Its last VMM, which may have ended meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// A VMM that was launched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub process: ProcessIdentity,
    /// Of its scope (systemd.exec(5), INVOCATION_ID): 32 hexadecimal digits.
    pub invocation: String,
    /// The VM's.
    pub name: VmName,
}

impl SlotEntry {
    /// Its VMM, when that runs.
    pub fn process(&self) -> Option<Pidfd> {
        let run = self.run.as_ref()?;
        let process = Pidfd::open_checked(&run.process).ok()??;
        process.is_alive().then_some(process)
    }
}
