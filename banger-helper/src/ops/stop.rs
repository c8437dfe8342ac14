//! `Stop`: asks a slot's VMM to end.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, WireHandle};
use rustix::process::Signal;

use super::{Details, Op};
use crate::context::Call;
use crate::journal::chain;

/// Sends SIGTERM, and does not wait: a VMM may take no notice of it. Nothing where none runs.
pub struct Stop {
    pub handle: WireHandle,
}

impl Op for Stop {
    const ACTION: &'static str = "stop";
    type Output = ();

    fn details(&self, call: &Call) -> Details {
        super::slot_details(call, self.handle)
    }

    async fn apply(self, call: &Call) -> HelperResult<()> {
        let slot = call.context.slots.find(call.uid, self.handle.into()).await?;
        let asked = call.context.systemd.signal(slot.slot, Signal::TERM).await;
        asked.map_err(|error| HelperError::new(ErrorKind::Failed, chain(&error)))
    }
}
