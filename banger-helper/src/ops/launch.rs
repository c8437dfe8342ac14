//! `Launch`: starts a slot's VMM in its scope.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use banger_bus::helper::{HelperResult, LaunchOptions, WireHandle};
use banger_model::VmName;

use super::{Details, Op, slot_details, unknown};
use crate::context::Call;
use crate::launch::{Files, Options, launch};

/// Starts a VMM; a slot has at most one.
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
        let mut details = slot_details(call, self.handle);
        let name = self.options.name.as_deref().map(str::parse::<VmName>);
        let name = name
            .and_then(Result::ok)
            .map_or_else(unknown, |name| name.to_string());
        details.insert("vm", name);
        details
    }

    async fn apply(self, call: &Call) -> HelperResult<OwnedFd> {
        let mut slot = call.context.slots.find(call.uid, self.handle.into()).await?;
        let options = Options::check(self.options, slot.slot)?;
        let files = Files::check(self.files, options.engine, call.uid)?;
        launch(call, &mut slot, options, files).await
    }
}
