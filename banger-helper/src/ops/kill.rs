//! `Kill`: ends a slot's VMM.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, WireHandle};

use super::{Details, Op};
use crate::context::Call;
use crate::journal::chain;

/// Sends SIGKILL to all in the slot's scope, and waits until it is gone.
pub struct Kill {
    pub handle: WireHandle,
}

impl Op for Kill {
    const ACTION: &'static str = "kill";
    type Output = ();

    fn details(&self, call: &Call) -> Details {
        super::slot_details(call, self.handle)
    }

    async fn apply(self, call: &Call) -> HelperResult<()> {
        let slot = call.context.slots.find(call.uid, self.handle.into()).await?;
        let ended = call.context.systemd.end(slot.slot).await;
        ended.map_err(|error| HelperError::new(ErrorKind::Failed, chain(&error)))
    }
}
