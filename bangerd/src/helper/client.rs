//! Calls of the helper, each with its time limit.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_bus::helper::{
    FileRole, HELPER_SERVICE, HelperError, HelperResult, LaunchOptions, LogReadOptions, SlotGrant,
};
use banger_bus::{ErrorKind, HelperProxy};
use banger_model::{GuestBridge, Slot, SlotHandle};
use banger_store::HeldSlot;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use zbus::proxy::CacheProperties;
use zbus::{Connection, fdo};

use super::{Failure, Standing, SystemBus};

/// How long a call may take for which nobody is asked for a password.
const LIMIT: Duration = Duration::from_secs(15);
/// And one for which somebody may be: polkit's own limit, and the call's.
const ASKING_LIMIT: Duration = Duration::from_secs(45);
/// How long a launch may take: systemd's limit for a scope, and somebody who may be asked.
const LAUNCH_LIMIT: Duration = Duration::from_secs(60);

/// Whether somebody may be asked for a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interaction {
    Allowed,
    None,
}

/// A slot of this owner's, as the helper knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownSlot {
    pub held: HeldSlot,
    /// Whether its VMM runs.
    pub running: bool,
}

/// The helper. Cheap to clone; nothing is connected before the first call.
#[derive(Debug, Clone)]
pub(crate) struct Helper {
    bus: Arc<SystemBus>,
    /// Why it was not used when it was last asked for.
    standing: Arc<Mutex<Option<Standing>>>,
}

impl Helper {
    pub(crate) fn new(bus: SystemBus) -> Self {
        Self {
            bus: Arc::new(bus),
            standing: Arc::default(),
        }
    }

    /// The connection on which it is called.
    ///
    /// # Errors
    /// When there is no system bus.
    pub(crate) async fn connection(&self) -> zbus::Result<Connection> {
        self.bus.connection().await
    }

    /// Whether it would launch a VM now; has no effect.
    ///
    /// # Errors
    /// Why it would not.
    pub(crate) async fn standing(&self) -> Standing {
        self.bus.standing().await
    }

    /// Whether it would launch a VM, as far as is known.
    pub(crate) fn is_willing(&self) -> bool {
        matches!(&*self.lock(), Some(Ok(())))
    }

    /// Remembers an answer, and logs one of another kind than the last.
    pub(crate) fn remember(&self, standing: Standing) {
        let mut last = self.lock();
        // Bus, polkit and helper have different words for the same.
        let same = match (&*last, &standing) {
            (Some(Ok(())), Ok(())) => true,
            (Some(Err(last)), Err(now)) => std::mem::discriminant(last) == std::mem::discriminant(now),
            _ => false,
        };
        if same {
            return;
        }
        match &standing {
            Ok(()) => tracing::info!("VMs are launched by banger-helper (system mode)"),
            Err(why) => {
                tracing::info!(%why, hint = why.way_out(), "VMs are launched by this daemon (user mode)");
            }
        }
        *last = Some(standing);
    }

    /// Whether the helper is installed at all.
    pub(crate) async fn is_installed(&self) -> bool {
        matches!(
            tokio::time::timeout(LIMIT, self.bus.has_helper()).await,
            Ok(Ok(true)) | Err(_)
        )
    }

    /// Takes a slot on a network.
    ///
    /// # Errors
    /// Every [`Failure`] but `NoSuchSlot`.
    pub(crate) async fn acquire(
        &self,
        bridge: GuestBridge,
        interaction: Interaction,
    ) -> Result<HeldSlot, Failure> {
        let number = bridge.number();
        let grant = match interaction {
            Interaction::Allowed => {
                self.ask(ASKING_LIMIT, move |helper| async move {
                    helper.acquire_slot(number).await
                })
                .await?
            }
            // The proxy's own method lets polkit ask.
            Interaction::None => {
                self.ask(LIMIT, move |helper| async move {
                    let grant: SlotGrant = helper.inner().call("AcquireSlot", &(number,)).await?;
                    Ok(grant)
                })
                .await?
            }
        };
        let slot = Slot::new(grant.slot).map_err(|e| nonsense(&e))?;
        let handle = grant.handle.into();
        Ok(HeldSlot { slot, handle, bridge })
    }

    /// Gives a slot back, and ends its VMM where there is one.
    ///
    /// # Errors
    /// `NoSuchSlot` when it was given back before.
    pub(crate) async fn release(&self, handle: SlotHandle) -> Result<(), Failure> {
        self.ask_again(move |helper| async move { helper.release_slot(handle.into()).await })
            .await
    }

    /// Starts a slot's VMM and returns its pidfd.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub(crate) async fn launch(
        &self,
        handle: SlotHandle,
        options: LaunchOptions,
        files: Vec<(FileRole, OwnedFd)>,
    ) -> Result<OwnedFd, Failure> {
        let files: HashMap<u8, zbus::wire::OwnedFd> = files
            .into_iter()
            .map(|(role, fd)| (role.number(), fd.into()))
            .collect();
        self.ask(LAUNCH_LIMIT, move |helper| async move {
            helper.launch(handle.into(), options, files).await
        })
        .await
        .map(OwnedFd::from)
    }

    /// Ends everything in a slot's scope.
    ///
    /// # Errors
    /// `NoSuchSlot` when it was given back, which ends it too.
    pub(crate) async fn kill(&self, handle: SlotHandle) -> Result<(), Failure> {
        self.ask_again(move |helper| async move { helper.kill(handle.into()).await })
            .await
    }

    /// This owner's slots.
    ///
    /// # Errors
    /// Every [`Failure`] but `NoSuchSlot`.
    pub(crate) async fn list(&self) -> Result<Vec<KnownSlot>, Failure> {
        let slots = self
            .ask_again(|helper| async move { helper.list().await })
            .await?;
        slots
            .into_iter()
            .map(|info| {
                let slot = Slot::new(info.slot).map_err(|e| nonsense(&e))?;
                let bridge =
                    GuestBridge::of_number(info.network).ok_or_else(|| nonsense(&"an unknown network"))?;
                let handle = info.handle.into();
                Ok(KnownSlot {
                    held: HeldSlot { slot, handle, bridge },
                    running: info.running,
                })
            })
            .collect()
    }

    /// Has the log of a slot's last run written to `output`.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub(crate) async fn open_log(
        &self,
        handle: SlotHandle,
        options: LogReadOptions,
        output: OwnedFd,
    ) -> Result<(), Failure> {
        self.ask(LIMIT, move |helper| async move {
            helper.open_log(handle.into(), options, output.into()).await
        })
        .await
    }

    /// Has the host's resolver ask our DNS server at this port of the network's host address;
    /// 0 takes that back.
    ///
    /// # Errors
    /// Every [`Failure`] but `NoSuchSlot`; `MissingTool` among them where no resolver can be told.
    pub(crate) async fn route_names(&self, port: u16) -> Result<(), Failure> {
        self.ask_again(move |helper| async move { helper.route_names(port).await })
            .await
    }

    /// Yields whenever a helper has come or gone, and ends with the bus.
    ///
    /// # Errors
    /// When there is no system bus.
    pub(crate) async fn changes(&self) -> zbus::Result<BoxStream<'static, ()>> {
        let bus = fdo::DBusProxy::new(&self.bus.connection().await?).await?;
        let changes = bus
            .receive_name_owner_changed_with_args(&[(0, HELPER_SERVICE)])
            .await?;
        Ok(changes.map(|_| ()).boxed())
    }

    /// What works and what does not: name, whether it is well, and a sentence.
    ///
    /// # Errors
    /// Every [`Failure`] but `NoSuchSlot`.
    pub(crate) async fn status(&self) -> Result<Vec<(String, bool, String)>, Failure> {
        self.ask_again(|helper| async move { helper.status().await })
            .await
    }

    /// For what can be done twice: a helper that leaves in the middle of a call starts anew by
    /// the next.
    async fn ask_again<T, F>(&self, call: impl Fn(HelperProxy<'static>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = HelperResult<T>>,
    {
        match self.ask(LIMIT, &call).await {
            Err(Failure::Unreachable(_)) => self.ask(LIMIT, &call).await,
            answer => answer,
        }
    }

    async fn ask<T, F>(
        &self,
        limit: Duration,
        call: impl FnOnce(HelperProxy<'static>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = HelperResult<T>>,
    {
        let Ok(bus) = self.bus.connection().await else {
            return Err(Failure::NotInstalled);
        };
        let asked = async {
            // Its properties would be read for the cache, which nobody needs.
            let helper = HelperProxy::builder(&bus)
                .cache_properties(CacheProperties::No)
                .build()
                .await?;
            call(helper).await
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failure(error).await),
            Err(_) => Err(Failure::Unreachable(format!(
                "nothing within {} seconds",
                limit.as_secs()
            ))),
        }
    }

    async fn failure(&self, error: HelperError) -> Failure {
        match error {
            HelperError::AccessDenied(text) | HelperError::AuthorizationRequired(text) => {
                Failure::NotAuthorized(text)
            }
            HelperError::Refused(error) => match error.kind {
                ErrorKind::NotAuthorized => Failure::NotAuthorized(error.message),
                ErrorKind::NoSuchSlot => Failure::NoSuchSlot,
                ErrorKind::HelperUnavailable if !self.is_installed().await => Failure::NotInstalled,
                ErrorKind::HelperUnavailable => Failure::Unreachable(error.message),
                _ => Failure::Refused(error),
            },
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer outside of the contract.
fn nonsense(what: &dyn std::fmt::Display) -> Failure {
    Failure::Unreachable(format!("it is of another version: {what}"))
}
