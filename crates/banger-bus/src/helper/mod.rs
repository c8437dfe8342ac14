//! `org.banger.Helper` on the system bus: the few privileged parts of a VM's life. It takes
//! integers, 128-bit handles and descriptors; the one text that it takes is a VM's name, which
//! ends in descriptions for people (the scope's, the journal's, the engine's own option for a
//! machine's name, for which it has 1 to 63 of a-z, 0-9 and '-') and in no rule, path or unit name.
//!
//! Every method is authorised by polkit, by the action that its documentation names, before its
//! arguments are looked at. A handle of another uid is answered as one that does not exist.

mod api;
mod data;
mod error;

use std::collections::HashMap;
use std::sync::Arc;

use zbus::Connection;
use zbus::message::Header;
use zbus::wire::OwnedFd;

pub use api::{HelperApi, HelperCaller};
pub use data::{FileRole, LaunchEngine, LaunchOptions, LogReadOptions, SlotGrant, SlotInfo, WireHandle};
pub use error::{HelperError, HelperResult};

/// The well-known name of the helper on the system bus.
pub const HELPER_SERVICE: &str = "org.banger.Helper";
/// Its only object.
pub const HELPER_PATH: &str = "/org/banger/Helper";
/// What the polkit action of a method begins with; [`ACTIONS`] has the rest.
pub const ACTION_PREFIX: &str = "org.banger.helper.";

/// Each method with its polkit action (without [`ACTION_PREFIX`]). One action a method, so that
/// an administrator's rule means one thing.
pub const ACTIONS: &[(&str, &str)] = &[
    ("AcquireSlot", "acquire-slot"),
    ("ReleaseSlot", "release-slot"),
    ("Launch", "launch"),
    ("Stop", "stop"),
    ("Kill", "kill"),
    ("List", "list"),
    ("OpenLog", "open-log"),
    ("RouteNames", "route-names"),
    ("Status", "status"),
    ("Repair", "repair"),
    ("ListAll", "list-all"),
    ("Evict", "evict"),
];

/// The interface macro knows results by this name.
type Result<T> = HelperResult<T>;

/// The helper on the bus.
pub struct HelperObject {
    pub api: Arc<dyn HelperApi>,
}

#[zbus::interface(
    name = "org.banger.Helper",
    proxy(
        default_service = "org.banger.Helper",
        default_path = "/org/banger/Helper",
        visibility = "pub"
    )
)]
impl HelperObject {
    /// Gives the caller a slot on a network (0 public, 1 closed): a uid, a tap and addresses,
    /// bound to him until he releases it. `org.banger.helper.acquire-slot`.
    #[zbus(out_args("grant"), proxy(allow_interactive_auth))]
    async fn acquire_slot(
        &self,
        network: u8,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<SlotGrant> {
        let caller = HelperCaller::new(connection, &header);
        self.api.acquire_slot(caller, network).await
    }

    /// Takes a slot back, ending its VMM if there is one. The caller promises that no access
    /// list names the slot's uid any more. `org.banger.helper.release-slot`.
    async fn release_slot(
        &self,
        handle: WireHandle,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        let caller = HelperCaller::new(connection, &header);
        self.api.release_slot(caller, handle).await
    }

    /// Starts the slot's VMM in a scope of its own and returns a pidfd of it. `files` by the
    /// numbers of [`FileRole`]. `org.banger.helper.launch`.
    #[zbus(out_args("process"), proxy(allow_interactive_auth))]
    async fn launch(
        &self,
        handle: WireHandle,
        options: LaunchOptions,
        files: HashMap<u8, OwnedFd>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedFd> {
        let caller = HelperCaller::new(connection, &header);
        let files = files.into_iter().map(|(role, fd)| (role, fd.into())).collect();
        self.api
            .launch(caller, handle, options, files)
            .await
            .map(OwnedFd::from)
    }

    /// Sends SIGTERM to the slot's VMM. `org.banger.helper.stop`.
    async fn stop(
        &self,
        handle: WireHandle,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.api
            .stop(HelperCaller::new(connection, &header), handle)
            .await
    }

    /// Sends SIGKILL to everything in the slot's scope. `org.banger.helper.kill`.
    async fn kill(
        &self,
        handle: WireHandle,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.api
            .kill(HelperCaller::new(connection, &header), handle)
            .await
    }

    /// The caller's slots. `org.banger.helper.list`.
    #[zbus(out_args("slots"))]
    async fn list(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<SlotInfo>> {
        self.api.list(HelperCaller::new(connection, &header)).await
    }

    /// Writes what the slot's VMM said in its last run, console included, to a pipe of the
    /// caller's, as `journalctl --output=cat` shows it. Returns at once; the writing ends with
    /// the log, or when nobody reads any more. `org.banger.helper.open-log`.
    async fn open_log(
        &self,
        handle: WireHandle,
        options: LogReadOptions,
        output: OwnedFd,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        let caller = HelperCaller::new(connection, &header);
        self.api.open_log(caller, handle, options, output.into()).await
    }

    /// Has the host's resolver ask the caller's DNS server, at this port of the network's host
    /// address, for names below `vm`; 0 takes that back. `org.banger.helper.route-names`.
    async fn route_names(
        &self,
        port: u16,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.api
            .route_names(HelperCaller::new(connection, &header), port)
            .await
    }

    /// What works and what does not: name, whether it is well, and a sentence.
    /// `org.banger.helper.status`.
    #[zbus(out_args("checks"))]
    async fn status(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, bool, String)>> {
        self.api.status(HelperCaller::new(connection, &header)).await
    }

    /// Makes what [`Self::status`] found missing, and returns what was done.
    /// `org.banger.helper.repair`.
    #[zbus(out_args("done"), proxy(allow_interactive_auth))]
    async fn repair(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>> {
        self.api.repair(HelperCaller::new(connection, &header)).await
    }

    /// Everybody's slots: slot, owner's uid, whether a VMM runs. `org.banger.helper.list-all`.
    #[zbus(out_args("slots"), proxy(allow_interactive_auth))]
    async fn list_all(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(u16, u32, bool)>> {
        self.api.list_all(HelperCaller::new(connection, &header)).await
    }

    /// Ends the VMM of anybody's slot; the slot stays its owner's. `org.banger.helper.evict`.
    #[zbus(proxy(allow_interactive_auth))]
    async fn evict(
        &self,
        slot: u16,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.api.evict(HelperCaller::new(connection, &header), slot).await
    }

    /// The helper's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        self.api.version()
    }
}
