//! `OpenLog`: writes what a slot's VMM said.

use std::os::fd::OwnedFd;

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, LogReadOptions, WireHandle};

use super::{Details, Op};
use crate::context::Call;

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

    async fn apply(self, _: &Call) -> HelperResult<()> {
        Err(HelperError::new(
            ErrorKind::Failed,
            "This build cannot read a log",
        ))
    }
}
