//! `OpenLog`: writes what a slot's VMM said.

use std::os::fd::OwnedFd;

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, LogReadOptions, WireHandle};

use super::{Details, Op};
use crate::context::Call;
use crate::launch::{LogRequest, check_reader, open_log};

/// Reads the journal for the owner.
pub struct OpenLog {
    pub handle: WireHandle,
    pub options: LogReadOptions,
    pub output: OwnedFd,
}

impl Op for OpenLog {
    const ACTION: &'static str = "open-log";
    type Output = ();

    fn details(&self, call: &Call) -> Details {
        super::slot_details(call, self.handle)
    }

    async fn apply(self, call: &Call) -> HelperResult<()> {
        let entry = call.context.slots.peek(call.uid, self.handle.into());
        let entry = entry.ok_or_else(HelperError::no_such_slot)?;
        check_reader(&self.output)
            .map_err(|what| HelperError::new(ErrorKind::InvalidArgument, format!("The output {what}")))?;
        let run = entry.run.ok_or_else(|| {
            let text = format!("No VMM has run in slot {}", entry.slot);
            HelperError::new(ErrorKind::WrongState, text)
        })?;
        let request = LogRequest {
            slot: entry.slot,
            invocation: run.invocation,
            options: self.options,
        };
        open_log(call, request, self.output).await
    }
}
