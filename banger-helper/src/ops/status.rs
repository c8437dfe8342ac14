//! `Status`: what works and what does not.

use banger_bus::helper::HelperResult;

use super::{Details, Op};
use crate::context::Call;
use crate::status::checks;

/// Changes nothing.
pub struct Status;

impl Op for Status {
    const ACTION: &'static str = "status";
    type Output = Vec<(String, bool, String)>;

    fn details(&self, _: &Call) -> Details {
        Details::new()
    }

    async fn apply(self, call: &Call) -> HelperResult<Vec<(String, bool, String)>> {
        Ok(checks(&call.context, call.uid).await)
    }
}
