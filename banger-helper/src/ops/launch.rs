//! `Launch`: starts a slot's VMM in its scope.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, LaunchOptions, WireHandle};

use super::{Details, Op};
use crate::context::Call;

/// Starts a VMM.
pub struct Launch {
    pub handle: WireHandle,
    pub options: LaunchOptions,
    /// By [`banger_bus::helper::FileRole`].
    pub files: HashMap<u8, OwnedFd>,
}

impl Op for Launch {
    const ACTION: &'static str = "launch";
    type Output = OwnedFd;

    fn details(&self, call: &Call) -> Details {
        super::slot_details(call, self.handle)
    }

    async fn apply(self, _: &Call) -> HelperResult<OwnedFd> {
        Err(HelperError::new(
            ErrorKind::Failed,
            "This build cannot launch a VMM",
        ))
    }
}
