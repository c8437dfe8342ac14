//! What the journal is told about the life of a VM, by ids that a catalogue explains.

use banger_model::{Event, StopReason};

use super::vm::Vm;

impl Vm {
    /// Tells an event that is as it should be.
    pub(super) fn tell(&self, event: Event) {
        let text = match event {
            Event::VmCreated => "The VM was made",
            Event::VmDeleted => "The VM was deleted",
            Event::VmStarted => "The VM runs",
            Event::VmAdopted => "Found a running VM again",
            other => other.name(),
        };
        tracing::info!(event = event.name(), vm = %self.name(), vm_id = %self.id(), "{text}");
    }

    /// Tells why it runs no more.
    pub(super) fn tell_end(&self, reason: StopReason, detail: &str) {
        let event = end(reason);
        let (event_name, vm) = (event.name(), self.name());
        if event == Event::VmStopped {
            tracing::info!(event = event_name, %vm, vm_id = %self.id(), %reason, detail, "The VM has stopped");
        } else {
            tracing::warn!(event = event_name, %vm, vm_id = %self.id(), %reason, detail, "The VM has ended");
        }
    }
}

fn end(reason: StopReason) -> Event {
    match reason {
        StopReason::Never | StopReason::Requested | StopReason::Killed | StopReason::GuestPoweroff => {
            Event::VmStopped
        }
        StopReason::BootTimeout | StopReason::BootFailed => Event::BootFailed,
        StopReason::GuestPanic | StopReason::VmmFailed | StopReason::VmmKilled | StopReason::Vanished => {
            Event::VmDied
        }
    }
}
