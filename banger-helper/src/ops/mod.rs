//! The methods of `org.banger.Helper`, one file each.

pub mod acquire_slot;
pub mod evict;
pub mod kill;
pub mod launch;
pub mod list;
pub mod list_all;
pub mod open_log;
pub mod release_slot;
pub mod repair;
pub mod route_names;
pub mod status;
pub mod stop;

use std::collections::BTreeMap;
use std::future::Future;

use banger_bus::helper::{HelperResult, WireHandle};

use crate::context::Call;

/// What polkit's rules and prompts get to know of a call, by the names that the messages of
/// `org.banger.helper.policy` use. `user` (the caller's uid) is there without asking.
pub type Details = BTreeMap<&'static str, String>;

/// A method with its arguments, which nothing has looked at yet.
pub trait Op: Send + 'static {
    /// Of [`banger_bus::helper::ACTIONS`], without the prefix.
    const ACTION: &'static str;
    type Output: Send;

    /// For polkit. Called before the caller is authorised: it looks things up, decides nothing
    /// and changes nothing, and passes on no text that was not checked.
    fn details(&self, call: &Call) -> Details;

    /// Does it, for a caller who may: checks the arguments, then acts. Runs to its end even when
    /// the caller has gone.
    fn apply(self, call: &Call) -> impl Future<Output = HelperResult<Self::Output>> + Send;
}

/// `slot` and, where one was launched, `vm`, of a slot that is the caller's; of any other the
/// same words as of one that does not exist.
pub(crate) fn slot_details(call: &Call, handle: WireHandle) -> Details {
    let entry = call.context.slots.peek(call.uid, handle.into());
    let slot = entry
        .as_ref()
        .map_or_else(unknown, |entry| entry.slot.to_string());
    let vm = entry.and_then(|entry| entry.run);
    let vm = vm.map_or_else(unknown, |run| run.name.to_string());
    Details::from([("slot", slot), ("vm", vm)])
}

fn unknown() -> String {
    "unknown".to_owned()
}
