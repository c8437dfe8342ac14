//! `List`: the caller's slots.

use banger_bus::helper::{HelperResult, SlotInfo};

use super::{Details, Op};
use crate::context::Call;

/// The caller's alone.
pub struct List;

impl Op for List {
    const ACTION: &'static str = "list";
    type Output = Vec<SlotInfo>;

    fn details(&self, _: &Call) -> Details {
        Details::new()
    }

    async fn apply(self, call: &Call) -> HelperResult<Vec<SlotInfo>> {
        let entries = call.context.slots.list(call.uid).into_iter();
        Ok(entries
            .map(|entry| SlotInfo {
                handle: entry.handle.into(),
                slot: entry.slot.number(),
                network: entry.bridge.number(),
                running: entry.process().is_some(),
            })
            .collect())
    }
}
