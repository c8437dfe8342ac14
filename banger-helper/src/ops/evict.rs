//! `Evict`: ends the VMM of anybody's slot.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult};

use super::{Details, Op};
use crate::context::Call;

/// Sends SIGKILL; the slot stays its owner's.
pub struct Evict {
    pub slot: u16,
}

impl Op for Evict {
    const ACTION: &'static str = "evict";
    type Output = ();

    fn details(&self, _: &Call) -> Details {
        Details::from([("slot", self.slot.to_string())])
    }

    async fn apply(self, _: &Call) -> HelperResult<()> {
        Err(HelperError::new(
            ErrorKind::Failed,
            "This build cannot evict a VMM",
        ))
    }
}
