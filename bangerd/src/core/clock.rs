//! Guests' clocks after the host has slept or its clock was set.

use std::sync::{Arc, Weak};

use banger_model::VmState;
use banger_model::guest::HostMessage;
use banger_sys::clock::ClockJumps;

use super::registry::Core;
use super::vm::now_us;

impl Core {
    /// Sets the clocks of all guests after each jump of the host's, as long as there is a core.
    pub(super) async fn follow_clock(core: Weak<Self>) {
        let mut jumps = match ClockJumps::new() {
            Ok(jumps) => jumps,
            Err(error) => {
                tracing::warn!(%error, "Jumps of the clock are not seen: guests keep their time");
                return;
            }
        };
        while let Ok(()) = jumps.next().await {
            let Some(core) = core.upgrade() else {
                return;
            };
            tracing::info!("The host's clock jumped: setting the guests'");
            core.set_clocks();
        }
    }

    /// Tells the guests that run what time it is. Those that are paused are told when they go on.
    pub(super) fn set_clocks(self: &Arc<Self>) {
        for vm in self.vms() {
            let Some(machine) = vm.machine().filter(|_| vm.state() == VmState::Running) else {
                continue;
            };
            // A guest that does not listen holds up no other.
            tokio::spawn(async move { machine.tell(HostMessage::SetTime { unix_us: now_us() }).await });
        }
    }
}
