//! What the database holds, as data.

use banger_model::state::UnknownWord;
use banger_model::{GuestBridge, KernelName, Slot, SlotHandle, StopReason, VmId, VmSpec, VmState, Workspace};

/// A VM. Times are microseconds since 1970 (UTC), 0 when it has not happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRecord {
    pub id: VmId,
    pub spec: VmSpec,
    /// The kernel that the specification's choice was resolved to.
    pub kernel: KernelName,
    /// 32 lower-case hexadecimal digits.
    pub machine_id: String,
    /// Lower-case, colon-separated.
    pub mac: String,
    /// The guest's public host key as a line of authorized_keys(5); empty until it is made.
    pub host_key: String,
    /// The last known state.
    pub state: VmState,
    pub stop_reason: Option<StopReason>,
    /// A sentence for people; cut to [`VmRecord::MAX_DETAIL`] bytes when written.
    pub state_detail: String,
    pub engine: String,
    pub accelerator: String,
    /// 0 while nothing runs.
    pub ssh_port: u16,
    pub vmm: Option<VmmProcess>,
    /// The transient scope, empty without.
    pub unit: String,
    /// What PID 1 of the image is, as the guest said.
    pub init: String,
    pub created_us: u64,
    pub started_us: u64,
    pub ready_us: u64,
    /// The place of its run in system mode: noted before its first use, forgotten after it was
    /// given back.
    pub slot: Option<HeldSlot>,
    /// The repository in it, if there is one.
    pub workspace: Option<Workspace>,
}

/// A slot that the helper gave out. Its handle is the right to it: it is kept in the owner's
/// database alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldSlot {
    pub slot: Slot,
    pub handle: SlotHandle,
    pub bridge: GuestBridge,
}

/// A process that survives the daemon's memory: the number alone is reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmProcess {
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
    pub boot_id: String,
}

/// What an intent is about. Starting and stopping need none: the VM's state says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Delete,
}

/// An operation to be written down before its first effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewIntent {
    pub vm: VmId,
    pub operation: Operation,
    pub created_us: u64,
}

/// An operation that was begun and is not known to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    pub id: i64,
    pub vm: VmId,
    pub operation: Operation,
    pub created_us: u64,
}

impl VmRecord {
    /// Longest [`VmRecord::state_detail`] that is kept, in bytes.
    pub const MAX_DETAIL: usize = 4096;
}

impl Operation {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }
}

impl std::str::FromStr for Operation {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::Create, Self::Delete]
            .into_iter()
            .find(|operation| operation.as_str() == word)
            .ok_or_else(|| UnknownWord {
                what: "operation",
                word: word.to_owned(),
            })
    }
}
