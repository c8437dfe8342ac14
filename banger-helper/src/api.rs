//! `org.banger.Helper`: every method comes to [`Helper::run`], and nothing goes around it.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use banger_bus::helper::{
    ACTION_PREFIX, HelperApi, HelperCaller, HelperError, HelperResult, LaunchOptions, LogReadOptions,
    SlotGrant, SlotInfo, WireHandle,
};
use banger_model::Event;

use crate::authorize::Authority;
use crate::context::{Call, Context};
use crate::journal::{self, Priority};
use crate::limits::Limits;
use crate::ops::Op;
use crate::ops::acquire_slot::AcquireSlot;
use crate::ops::evict::Evict;
use crate::ops::kill::Kill;
use crate::ops::launch::Launch;
use crate::ops::list::List;
use crate::ops::list_all::ListAll;
use crate::ops::open_log::OpenLog;
use crate::ops::release_slot::ReleaseSlot;
use crate::ops::repair::Repair;
use crate::ops::route_names::RouteNames;
use crate::ops::status::Status;
use crate::ops::stop::Stop;

/// Refusals that are told until the helper leaves.
const MAX_DENIALS: usize = 4096;

/// The helper.
pub struct Helper {
    context: Arc<Context>,
    authority: Authority,
    limits: Limits,
    /// Those that the journal knows.
    denials: Mutex<HashSet<(u32, &'static str)>>,
}

impl Helper {
    /// # Errors
    /// When the bus is gone.
    pub async fn new(context: Arc<Context>) -> zbus::Result<Self> {
        let authority = Authority::new(&context.bus).await?;
        Ok(Self {
            context,
            authority,
            limits: Limits::default(),
            denials: Mutex::default(),
        })
    }

    /// In this order: is there room for this call, who calls, does he have room, may he; only
    /// then the arguments are looked at.
    async fn run<O: Op>(&self, caller: HelperCaller, op: O) -> HelperResult<O::Output> {
        let name = caller
            .sender
            .ok_or_else(|| HelperError::AccessDenied("The caller has no name on the bus".to_owned()))?;
        let _connection = self.limits.enter(&name, caller.body_bytes)?;
        let (_busy, _call) = (self.context.busy(), self.context.calls.begin());
        let mut who = self.authority.identify(&name).await?;
        let user = self.limits.enter_user(who.uid)?;
        let call = Call {
            context: self.context.clone(),
            uid: who.uid,
            name,
            departure: who.departure.clone(),
        };
        let mut details = op.details(&call);
        details.insert("user", call.uid.to_string());
        let mut ending = self.context.ending.subscribe();
        let ending = async move {
            let _ = ending.wait_for(|ending| *ending).await;
        };
        self.authority
            .check(&mut who, &user, O::ACTION, &details, caller.interactive, ending)
            .await
            .inspect_err(|error| self.tell_denial(call.uid, O::ACTION, error))?;
        drop(who);
        op.apply(&call).await
    }

    /// Once for each user and method: who calls without end fills no journal.
    fn tell_denial(&self, uid: u32, action: &'static str, error: &HelperError) {
        let mut told = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MAX_DENIALS && told.insert((uid, action)) {
            let (uid, action) = (uid.to_string(), format!("{ACTION_PREFIX}{action}"));
            let text = format!("User {uid} may not: {error}");
            let fields = [("BANGER_UID", &*uid), ("BANGER_ACTION", &*action)];
            journal::tell(Event::AuthorizationDenied, Priority::Notice, &text, &fields);
        }
    }
}

#[async_trait]
impl HelperApi for Helper {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    async fn acquire_slot(&self, caller: HelperCaller, network: u8) -> HelperResult<SlotGrant> {
        self.run(caller, AcquireSlot { network }).await
    }

    async fn release_slot(&self, caller: HelperCaller, handle: WireHandle) -> HelperResult<()> {
        self.run(caller, ReleaseSlot { handle }).await
    }

    async fn launch(
        &self,
        caller: HelperCaller,
        handle: WireHandle,
        options: LaunchOptions,
        files: HashMap<u8, OwnedFd>,
    ) -> HelperResult<OwnedFd> {
        let op = Launch {
            handle,
            options,
            files,
        };
        self.run(caller, op).await
    }

    async fn stop(&self, caller: HelperCaller, handle: WireHandle) -> HelperResult<()> {
        self.run(caller, Stop { handle }).await
    }

    async fn kill(&self, caller: HelperCaller, handle: WireHandle) -> HelperResult<()> {
        self.run(caller, Kill { handle }).await
    }

    async fn list(&self, caller: HelperCaller) -> HelperResult<Vec<SlotInfo>> {
        self.run(caller, List).await
    }

    async fn open_log(
        &self,
        caller: HelperCaller,
        handle: WireHandle,
        options: LogReadOptions,
        output: OwnedFd,
    ) -> HelperResult<()> {
        let op = OpenLog {
            handle,
            options,
            output,
        };
        self.run(caller, op).await
    }

    async fn route_names(&self, caller: HelperCaller, port: u16) -> HelperResult<()> {
        self.run(caller, RouteNames { port }).await
    }

    async fn status(&self, caller: HelperCaller) -> HelperResult<Vec<(String, bool, String)>> {
        self.run(caller, Status).await
    }

    async fn repair(&self, caller: HelperCaller) -> HelperResult<Vec<String>> {
        self.run(caller, Repair).await
    }

    async fn list_all(&self, caller: HelperCaller) -> HelperResult<Vec<(u16, u32, bool)>> {
        self.run(caller, ListAll).await
    }

    async fn evict(&self, caller: HelperCaller, slot: u16) -> HelperResult<()> {
        self.run(caller, Evict { slot }).await
    }
}
