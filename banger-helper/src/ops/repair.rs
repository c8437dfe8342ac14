//! `Repair`: makes what `Status` found missing.

use banger_bus::helper::HelperResult;

use super::{Details, Op};
use crate::context::Call;
use crate::reconcile::reconcile;

/// Says what was done.
pub struct Repair;

impl Op for Repair {
    const ACTION: &'static str = "repair";
    type Output = Vec<String>;

    fn details(&self, _: &Call) -> Details {
        Details::new()
    }

    async fn apply(self, call: &Call) -> HelperResult<Vec<String>> {
        Ok(reconcile(&call.context).await)
    }
}
