//! The daemon's life: one per owner, serving until nobody needs it.

mod error;
mod lock;
mod socket;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use banger_model::Dirs;
use banger_sys::launch::Launcher;
use banger_sys::listen::{close_inherited, take_listen_fds};
use tokio::signal::unix::{Signal, SignalKind, signal};
use zbus::Connection;
use zbus::connection::Builder;

use crate::api::{Manager, Publisher, Services};
use crate::bus::Bus;
use crate::core::sources::Stores;
use crate::core::{Core, Settings};
use crate::helper::{Helper, SystemBus};
use error::{Error, Result};
use lock::{DaemonLock, StartLock};
use socket::Socket;

/// How long nobody must have needed the daemon until it leaves.
const IDLE: Duration = Duration::from_secs(60);
/// How long the daemon stays for what it does by itself, before it looks again.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How long the session bus may take to answer.
const SESSION_BUS: Duration = Duration::from_secs(5);
/// Quiet on the session bus after the name was given back: late calls are answered by then.
const LATE_CALLS: Duration = Duration::from_millis(200);

/// Serves until nobody needs it or it is told to end. Returns the exit status.
pub(crate) fn run() -> std::process::ExitCode {
    // Before anything opens descriptors.
    close_inherited();
    crate::logging::start();
    let started_by_client = std::env::var_os("BANGER_LISTEN").is_some();
    if started_by_client {
        // The client's terminal is not ours: its Ctrl-C is not meant for us, and job control
        // would stop who reads it from the background, as a command's input makes us do. It
        // fails only where we have a session already.
        let _ = rustix::process::setsid();
    }
    let passed = take_listen_fds(started_by_client).map(|fds| fds.into_iter().next());
    let served = passed.map_err(|_| Error::NotListening).and_then(|passed| {
        // One thread: the daemon waits. What blocks has threads of its own.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_keep_alive(Duration::from_secs(1))
            .build()
            .map_err(Error::Runtime)?;
        let served = runtime.block_on(serve(passed));
        // Threads that wait for a caller's stream must not hold up the end.
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", crate::core::error::chain(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

async fn serve(passed: Option<std::os::fd::OwnedFd>) -> Result<()> {
    let dirs = Dirs::resolve(|key| std::env::var_os(key))?;
    let mut ends = Ends::new().map_err(Error::Runtime)?;
    lock::make_directories(&dirs)?;
    let start = StartLock::take(&dirs).await?;
    let daemon = DaemonLock::take(&dirs)?;
    let mut socket = Socket::open(&dirs, passed, &start)?;
    drop(start);

    let bus = Bus::new();
    let session = session_bus().await;
    let services = open_services(&dirs, &bus).await?;
    let core = match open_core(&dirs, &services, session.clone()).await {
        Ok(core) => core,
        Err(error) => {
            // Without its VMs it would show an owner who has none.
            let _start = StartLock::take(&dirs).await.ok();
            socket.remove();
            return Err(Error::Core(error));
        }
    };
    let manager = Manager::new(services.clone(), core.clone(), dirs.clone());
    bus.manage(Arc::new(manager));
    if let Some(connection) = &session {
        take_name(&bus, connection.clone()).await;
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %dirs.socket().display(), "Serving");

    let quiet = idle_time();
    let aftermath = Cell::new(Duration::ZERO);
    let wanted = || {
        if bus.is_busy() {
            return None;
        }
        // A client that is connected may be about to say something, but not for ever.
        Some(quiet.max(if bus.has_clients() { IDLE } else { aftermath.get() }))
    };
    loop {
        tokio::select! {
            () = socket.serve(&bus) => {}
            () = ends.told() => {
                tracing::info!("Told to end; VMs keep running");
                // Without the lock too: a new daemon replaces a dead socket.
                let _start = StartLock::take(&dirs).await.ok();
                socket.remove();
                drop(daemon);
                return Ok(());
            }
            () = bus.idle().reached(wanted) => {}
        }
        let Ok(start) = StartLock::take(&dirs).await else {
            continue;
        };
        // Somebody may have come while the lock was waited for.
        if !bus.idle().is_reached(wanted) {
            continue;
        }
        // What follows a VMM's own end is nobody's job, and its end is not told.
        if core.is_busy() {
            bus.idle().touch();
            aftermath.set(AFTERMATH);
            continue;
        }
        if let Some(connection) = &session {
            give_name_back(&bus, connection).await;
        }
        // A call that came last may have begun something.
        let closed = match wanted() {
            Some(_) => socket.close(&bus, &start),
            None => Err(socket),
        };
        match closed {
            Ok(()) => {
                tracing::info!("Nobody needs the daemon: leaving");
                // In this order: who gets the start lock finds the daemon's lock free.
                drop(daemon);
                drop(start);
                return Ok(());
            }
            Err(open) => {
                socket = open;
                if let Some(connection) = &session {
                    retake_name(connection).await;
                }
            }
        }
    }
}

/// What a daemon does when it starts, and no more: repairs what an earlier one left, and removes
/// its socket. Clients that come meanwhile wait for the start lock, and start one after it.
///
/// # Errors
/// In words: a daemon runs, or the owner's files cannot be used.
pub(crate) async fn put_in_order(dirs: &Dirs) -> std::result::Result<(), String> {
    let repaired = async {
        lock::make_directories(dirs)?;
        let start = StartLock::take(dirs).await?;
        let daemon = DaemonLock::take(dirs)?;
        let socket = Socket::open(dirs, None, &start)?;
        let bus = Bus::new();
        let services = open_services(dirs, &bus).await?;
        let opened = open_core(dirs, &services, session_bus().await).await;
        socket.remove();
        drop((daemon, start));
        opened.map(drop).map_err(Error::Core)
    };
    repaired.await.map_err(|error| crate::core::error::chain(&error))
}

async fn open_services(dirs: &Dirs, bus: &Bus) -> Result<Arc<Services>> {
    let (dirs, bus) = (dirs.clone(), bus.clone());
    tokio::task::spawn_blocking(move || Services::open(&dirs, bus))
        .await
        .map_err(|error| Error::Runtime(std::io::Error::other(error)))
}

async fn open_core(
    dirs: &Dirs,
    services: &Arc<Services>,
    session_bus: Option<Connection>,
) -> banger_bus::Result<Arc<Core>> {
    // Whoever needs the configuration is told that it is bad; what needs none goes on.
    let config = services.config.read().unwrap_or_default();
    let names_port = config.names_port;
    let authorized_keys = match services.key() {
        Ok(key) => vec![key.public_line()?],
        Err(_) => Vec::new(),
    };
    let settings = Settings {
        dirs: dirs.clone(),
        config,
        authorized_keys,
        session_bus,
        helper: Helper::new(SystemBus::usual()),
        sources: Arc::new(Stores::new(dirs)),
        launcher: Launcher::this_program(),
    };
    let core = Core::open(settings, Arc::new(Publisher(services.clone()))).await?;
    services
        .ssh_config
        .reset(core.vms().into_iter().map(|vm| (vm.id(), vm.info())));
    let keys = core.vms().into_iter().map(|vm| (vm.id(), vm.info().host_key));
    let keys: Vec<_> = keys.filter(|(_, key)| !key.is_empty()).collect();
    if let Err(error) = services.known_hosts.reset(keys) {
        tracing::warn!(%error, "ssh will not know the guests");
    }
    let names = services.names.clone();
    tokio::spawn(names.serve(names_port, core.helper().clone()));
    Ok(core)
}

/// The session bus, where there is one.
async fn session_bus() -> Option<Connection> {
    let address = session_bus_address()?;
    let building = Builder::address(address.as_str()).build();
    match tokio::time::timeout(SESSION_BUS, building).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::info!(%error, "No session bus: clients use the private socket");
            None
        }
        Err(_) => {
            tracing::warn!("The session bus does not answer: clients use the private socket");
            None
        }
    }
}

/// As sd_bus_open_user(3) finds it; zbus alone would start a bus of its own by X11.
pub(crate) fn session_bus_address() -> Option<String> {
    let named = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
    named.filter(|address| !address.is_empty()).or_else(|| {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(std::path::PathBuf::from)?;
        let socket = runtime.join("bus");
        // What an address escapes does not appear in the path of a runtime directory.
        let path = socket.to_str().filter(|_| socket.exists())?;
        Some(format!("unix:path={path}"))
    })
}

async fn take_name(bus: &Bus, connection: Connection) {
    match bus.serve_session_bus(connection).await {
        Ok(serving) => {
            tokio::spawn(serving);
        }
        Err(zbus::Error::NameTaken) => {
            tracing::warn!(
                "Somebody else has the name {} on the session bus",
                banger_bus::SERVICE
            );
        }
        Err(error) => tracing::warn!(%error, "Cannot serve on the session bus"),
    }
}

/// Later calls start a new daemon, and those that are on their way are answered.
async fn give_name_back(bus: &Bus, connection: &Connection) {
    // An error says that the bus is gone, and no call comes from it.
    let _ = connection.release_name(banger_bus::SERVICE).await;
    bus.idle().touch();
    bus.idle().reached(|| Some(LATE_CALLS)).await;
}

async fn retake_name(connection: &Connection) {
    let flags = zbus::fdo::RequestNameFlags::DO_NOT_QUEUE;
    if let Err(error) = connection
        .request_name_with_flags(banger_bus::SERVICE, flags)
        .await
    {
        tracing::warn!(%error, "Lost the name on the session bus");
    }
}

fn idle_time() -> Duration {
    seconds(std::env::var("BANGER_IDLE_SECONDS").ok().as_deref()).unwrap_or(IDLE)
}

/// At most what fits into 32 bits: a clock cannot have every number of seconds added.
fn seconds(text: Option<&str>) -> Option<Duration> {
    let seconds: u64 = text?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(u32::MAX.into())))
}

/// The signals that end the daemon.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
    /// A terminal that goes away is not for the daemon: it is taken, and nothing follows.
    _hangup: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_idle_time_can_be_waited_for() {
        for text in [None, Some(""), Some("-1"), Some("x")] {
            assert_eq!(seconds(text), None);
        }
        assert_eq!(seconds(Some("0")), Some(Duration::ZERO));
        let most = seconds(Some(&u64::MAX.to_string())).unwrap();
        assert!(tokio::time::Instant::now().checked_add(most).is_some());
    }
}
