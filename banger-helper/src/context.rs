//! What every method works with.

use std::sync::Arc;

use banger_sys::landlock::Enforcement;
use tokio::sync::watch;
use zbus::Connection;
use zbus::names::OwnedUniqueName;

use crate::departures::Departure;
use crate::idle::{Activity, Token};
use crate::launch::Launches;
use crate::launch_thread::LaunchThread;
use crate::name_routes::NameRoutes;
use crate::net::Net;
use crate::slots::Slots;
use crate::systemd::Systemd;

/// What is the same for all calls.
pub struct Context {
    /// The system bus.
    pub bus: Connection,
    pub slots: Slots,
    pub net: Arc<dyn Net>,
    pub systemd: Systemd,
    /// Whose names of VMs the host knows.
    pub(crate) names: NameRoutes,
    /// Where programs are started.
    pub launch_thread: LaunchThread,
    pub(crate) launches: Launches,
    /// How far this process is confined.
    pub confined: Enforcement,
    /// Everything for which the helper stays.
    pub(crate) activity: Activity,
    /// Of that, the calls that are not answered.
    pub(crate) calls: Activity,
    /// Whether the helper was told to end.
    pub(crate) ending: watch::Sender<bool>,
}

/// One call of an authorised caller.
pub struct Call {
    pub context: Arc<Context>,
    /// The caller's, as the bus says.
    pub uid: u32,
    /// The caller's on the bus.
    pub name: OwnedUniqueName,
    /// When he leaves the bus.
    pub(crate) departure: Departure,
}

impl Context {
    /// Keeps the helper from leaving until it is dropped, for what goes on after a call.
    pub fn busy(&self) -> Token {
        self.activity.begin()
    }
}
