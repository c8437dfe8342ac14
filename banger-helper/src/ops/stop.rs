//! `Stop`: asks a slot's VMM to end.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, WireHandle};

use super::{Details, Op};
use crate::context::Call;

/// Sends SIGTERM.
pub struct Stop {
    pub handle: WireHandle,
}

impl Op for Stop {
    const ACTION: &'static str = "stop";
    type Output = ();

    fn details(&self, call: &Call) -> Details {
        super::slot_details(call, self.handle)
    }

    async fn apply(self, _: &Call) -> HelperResult<()> {
        Err(HelperError::new(
            ErrorKind::Failed,
            "This build cannot stop a VMM",
        ))
    }
}
