//! What the helper implements.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use zbus::Connection;
use zbus::message::{Flags, Header};
use zbus::names::OwnedUniqueName;

use super::{HelperResult, LaunchOptions, LogReadOptions, SlotGrant, SlotInfo, WireHandle};

/// Who called: a name on the bus, and never a process id, which somebody else may have by the
/// time it is looked at.
#[derive(Debug, Clone)]
pub struct HelperCaller {
    pub connection: Connection,
    /// `None` only on a connection without a bus, where nobody can be authorised.
    pub sender: Option<OwnedUniqueName>,
    /// Whether polkit may ask somebody for a password on his behalf.
    pub interactive: bool,
    /// How much he sent, without descriptors and the message's header.
    pub body_bytes: u32,
}

/// `org.banger.Helper`; the methods are described at [`super::HelperObject`].
#[async_trait]
pub trait HelperApi: Send + Sync + 'static {
    fn version(&self) -> String;
    async fn acquire_slot(&self, caller: HelperCaller, network: u8) -> HelperResult<SlotGrant>;
    async fn release_slot(&self, caller: HelperCaller, handle: WireHandle) -> HelperResult<()>;
    async fn launch(
        &self,
        caller: HelperCaller,
        handle: WireHandle,
        options: LaunchOptions,
        files: HashMap<u8, OwnedFd>,
    ) -> HelperResult<OwnedFd>;
    async fn stop(&self, caller: HelperCaller, handle: WireHandle) -> HelperResult<()>;
    async fn kill(&self, caller: HelperCaller, handle: WireHandle) -> HelperResult<()>;
    async fn list(&self, caller: HelperCaller) -> HelperResult<Vec<SlotInfo>>;
    async fn open_log(
        &self,
        caller: HelperCaller,
        handle: WireHandle,
        options: LogReadOptions,
        output: OwnedFd,
    ) -> HelperResult<()>;
    async fn route_names(&self, caller: HelperCaller, port: u16) -> HelperResult<()>;
    async fn status(&self, caller: HelperCaller) -> HelperResult<Vec<(String, bool, String)>>;
    async fn repair(&self, caller: HelperCaller) -> HelperResult<Vec<String>>;
    async fn list_all(&self, caller: HelperCaller) -> HelperResult<Vec<(u16, u32, bool)>>;
    async fn evict(&self, caller: HelperCaller, slot: u16) -> HelperResult<()>;
}

impl HelperCaller {
    pub(crate) fn new(connection: &Connection, header: &Header<'_>) -> Self {
        Self {
            connection: connection.clone(),
            sender: header.sender().map(|name| name.to_owned().into()),
            interactive: header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH),
            body_bytes: header.primary().body_len(),
        }
    }
}
