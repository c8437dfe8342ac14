//! The helper's life: activated by a call, serving until nobody has needed it for a while.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use banger_bus::HelperObject;
use banger_bus::helper::{HELPER_PATH, HELPER_SERVICE};
use banger_sys::landlock::Enforcement;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::{RequestNameFlags, RequestNameReply};

use crate::api::Helper;
use crate::confine::{Places, confine};
use crate::context::Context;
use crate::idle::Activity;
use crate::journal::{self, Priority};
use crate::launch::Launches;
use crate::launch_thread::LaunchThread;
use crate::name_routes::{LinkIndex, NameRoutes};
use crate::net::{KernelNet, Net};
use crate::reconcile::reconcile;
use crate::slots::Slots;
use crate::systemd::Systemd;

/// How long nobody must have called until the helper leaves.
const IDLE: Duration = Duration::from_secs(60);
/// How often what is is compared with what should be.
const LOOK: Duration = Duration::from_secs(60);
/// Quiet after the name was given back: calls that were on their way are answered by then.
const LATE_CALLS: Duration = Duration::from_millis(200);
/// How long calls may take to end when the helper is told to.
const LAST_CALLS: Duration = Duration::from_secs(20);

/// Why the helper does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("Cannot confine this process")]
    Confine(#[source] std::io::Error),
    #[error("Cannot use {what}")]
    State {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("Cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("Cannot use the system bus")]
    Bus(#[from] zbus::Error),
    #[error("Somebody else has the name {HELPER_SERVICE} on the system bus")]
    NameTaken,
    #[error("The system bus is gone")]
    BusGone,
}

/// Serves until nobody needs it or it is told to end.
pub fn run() -> ExitCode {
    match confined() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal::say(Priority::Error, &journal::chain(&error), &[]);
            ExitCode::FAILURE
        }
    }
}

/// What serves, and how long that may be needed by nobody.
pub struct Service {
    pub context: Arc<Context>,
    pub idle: Duration,
}

impl Service {
    /// Everything but the name on the bus: nobody is answered yet. `slots` is the directory of
    /// the table of slots, `names` the file about names of VMs.
    ///
    /// # Errors
    /// When the table of slots cannot be read or the bus is gone.
    pub async fn open(
        bus: Connection,
        slots: PathBuf,
        names: PathBuf,
        net: Arc<dyn Net>,
        launch_thread: LaunchThread,
        confined: Enforcement,
    ) -> Result<Self, ServeError> {
        let slots = Slots::open(slots).map_err(|source| ServeError::State {
            what: "the table of slots",
            source,
        })?;
        let systemd = Systemd::new(&bus).await?;
        let activity = Activity::new();
        let link: LinkIndex = {
            let net = net.clone();
            Arc::new(move || net.host_link_index())
        };
        let names = NameRoutes::open(&bus, link, names, activity.clone()).await?;
        let context = Context {
            bus,
            slots,
            net,
            systemd,
            names,
            launch_thread,
            launches: Launches::default(),
            confined,
            activity,
            calls: Activity::new(),
            ending: watch::Sender::new(false),
        };
        Ok(Self {
            context: Arc::new(context),
            idle: IDLE,
        })
    }

    /// Repairs what an earlier helper has left, then answers until nobody has called for
    /// [`Self::idle`] or `ends` resolves.
    ///
    /// # Errors
    /// When the name is somebody else's, or the bus goes away.
    pub async fn serve(self, ends: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { context, idle } = self;
        reconcile(&context).await;
        let api = Arc::new(Helper::new(context.clone()).await?);
        let server = context.bus.object_server();
        server.at(HELPER_PATH, HelperObject { api }).await?;
        take_name(&context.bus).await?;
        tokio::pin!(ends);
        loop {
            tokio::select! {
                () = &mut ends => {
                    context.bus.release_name(HELPER_SERVICE).await?;
                    // Who waits for polkit is refused; logs that are read end with the helper.
                    context.ending.send_replace(true);
                    tokio::time::sleep(LATE_CALLS).await;
                    let done = context.calls.quiet(Duration::ZERO);
                    let _ = tokio::time::timeout(LAST_CALLS, done).await;
                    return Ok(());
                }
                () = context.bus.closed() => return Err(ServeError::BusGone),
                () = tokio::time::sleep(LOOK) => {
                    reconcile(&context).await;
                    context.names.look_again().await;
                }
                () = context.activity.quiet(idle) => {
                    context.bus.release_name(HELPER_SERVICE).await?;
                    // Later calls start a new helper; those before are answered.
                    tokio::time::sleep(LATE_CALLS).await;
                    if context.activity.quiet_for(LATE_CALLS) {
                        return Ok(());
                    }
                    take_name(&context.bus).await?;
                }
            }
        }
    }
}

fn confined() -> Result<(), ServeError> {
    // Before anything opens descriptors or makes files.
    banger_sys::listen::close_inherited();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let places = Places::of_unit();
    places.make().map_err(|source| ServeError::State {
        what: "the state directory",
        source,
    })?;
    let (launch_thread, confined) = confine(&places).map_err(ServeError::Confine)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(ServeError::Runtime)?;
    let served = runtime.block_on(async {
        let ends = Ends::new().map_err(ServeError::Runtime)?;
        let bus = Builder::system().build().await?;
        let net = Arc::new(KernelNet);
        let mut service =
            Service::open(bus, places.slots(), places.names(), net, launch_thread, confined).await?;
        service.idle = idle_time().unwrap_or(IDLE);
        service.serve(ends.told()).await
    });
    runtime.shutdown_background();
    served
}

async fn take_name(bus: &Connection) -> Result<(), ServeError> {
    let flags = RequestNameFlags::DO_NOT_QUEUE;
    match bus.request_name_with_flags(HELPER_SERVICE, flags).await {
        Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
        Ok(_) | Err(zbus::Error::NameTaken) => Err(ServeError::NameTaken),
        Err(error) => Err(error.into()),
    }
}

fn idle_time() -> Option<Duration> {
    let text = std::env::var("BANGER_IDLE_SECONDS").ok()?;
    let seconds: u32 = text.parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

/// The signals that end the helper.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn told(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
