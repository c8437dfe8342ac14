//! `ListAll`: everybody's slots.

use banger_bus::helper::HelperResult;

use super::{Details, Op};
use crate::context::Call;

/// Without their handles.
pub struct ListAll;

impl Op for ListAll {
    const ACTION: &'static str = "list-all";
    type Output = Vec<(u16, u32, bool)>;

    fn details(&self, _: &Call) -> Details {
        Details::new()
    }

    async fn apply(self, call: &Call) -> HelperResult<Vec<(u16, u32, bool)>> {
        let entries = call.context.slots.list_all().into_iter();
        Ok(entries
            .map(|entry| (entry.slot.number(), entry.owner, entry.process().is_some()))
            .collect())
    }
}
