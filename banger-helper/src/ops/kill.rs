//! `Kill`: ends a slot's VMM.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, WireHandle};

use super::{Details, Op};
use crate::context::Call;

/// Sends SIGKILL.
pub struct Kill {
    pub handle: WireHandle,
}

impl Op for Kill {
    const ACTION: &'static str = "kill";
    type Output = ();

    fn details(&self, call: &Call) -> Details {
        super::slot_details(call, self.handle)
    }

    async fn apply(self, _: &Call) -> HelperResult<()> {
        Err(HelperError::new(
            ErrorKind::Failed,
            "This build cannot kill a VMM",
        ))
    }
}
