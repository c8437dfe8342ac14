//! A system bus of the test's own with the shipped policy, and the services on it that the helper
//! asks: a polkit and a PID 1 that record what they are asked and answer as they are told.

mod net;
mod polkit;
mod systemd;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use banger_bus::HelperProxy;
use banger_bus::helper::HelperError;
use banger_helper::launch_thread::LaunchThread;
use banger_helper::serve::{ServeError, Service};
use banger_sys::landlock::Enforcement;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zbus::Connection;
use zbus::connection::Builder;

pub(crate) use net::{FakeNet, NetCall};
pub(crate) use polkit::{Answer, Polkit};
pub(crate) use systemd::{FakeSystemd, Starting};

/// The time within which anything that is awaited has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Users that every system has (the bus takes no others): daemon, bin, nobody.
pub(crate) const ALICE: u32 = 1;
pub(crate) const BOB: u32 = 2;
pub(crate) const NOBODY: u32 = 65534;

/// Whether the rung `bus` can run here: with a bus, and as root, who can be anybody on it.
pub(crate) fn can_run() -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if Command::new("dbus-daemon").arg("--version").output().is_err() {
        "no dbus-daemon"
    } else {
        return true;
    };
    let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|rung| rung == "bus"),
        "cannot run: {why}"
    );
    println!("skipped: {why}");
    false
}

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A dbus-daemon that ends with the test.
pub(crate) struct Bus {
    daemon: Child,
    socket: PathBuf,
    pub(crate) directory: tempfile::TempDir,
}

impl Bus {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Everybody may connect, as to the system's.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), everybody).unwrap();
        let socket = directory.path().join("bus");
        let config = directory.path().join("bus.conf");
        let policy = root().join("dbus/org.banger.Helper.conf");
        std::fs::write(&config, configuration(&socket, &policy)).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let output = daemon.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "dbus-daemon has ended");
        Self {
            daemon,
            socket,
            directory,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    /// Connects as a user. The bus sees who connects, by SO_PEERCRED.
    pub(crate) async fn connect(&self, uid: u32) -> Connection {
        let socket = self.socket.clone();
        // A thread of its own: ids are a thread's.
        let stream = std::thread::spawn(move || {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(None, uid, None).unwrap();
            UnixStream::connect(socket).unwrap()
        })
        .join()
        .unwrap();
        let connecting = Builder::unix_stream(stream).user_id(uid).build();
        within(connecting).await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// As Debian's system.conf, with room for floods of calls.
fn configuration(socket: &Path, policy: &Path) -> String {
    format!(
        r#"<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
  <policy user="root">
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow own="org.freedesktop.systemd1"/>
    <allow send_destination="org.freedesktop.systemd1"/>
  </policy>
  <include>{policy}</include>
  <limit name="max_replies_per_connection">50000</limit>
  <limit name="max_connections_per_user">2048</limit>
</busconfig>
"#,
        socket = socket.display(),
        policy = policy.display(),
    )
}

/// The helper in this process, on a bus with its neighbours.
pub(crate) struct Rig {
    pub(crate) polkit: Polkit,
    pub(crate) systemd: FakeSystemd,
    pub(crate) net: Arc<FakeNet>,
    /// The slots' files.
    pub(crate) slots: PathBuf,
    helper: Option<Helper>,
    pub(crate) bus: Bus,
}

struct Helper {
    end: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let mut rig = Self::without_helper().await;
        rig.start_helper().await;
        rig
    }

    pub(crate) async fn without_helper() -> Self {
        let bus = Bus::start();
        Self {
            polkit: Polkit::start(&bus).await,
            systemd: FakeSystemd::start(&bus).await,
            net: Arc::default(),
            slots: bus.directory.path().join("slots"),
            helper: None,
            bus,
        }
    }

    pub(crate) async fn start_helper(&mut self) {
        let service = self.service().await;
        let (end, ends) = oneshot::channel();
        let serving = tokio::spawn(service.serve(async {
            let _ = ends.await;
        }));
        self.helper = Some(Helper { end, serving });
        self.wait_for_name().await;
    }

    pub(crate) async fn service(&self) -> Service {
        let connection = self.bus.connect(0).await;
        let thread = LaunchThread::start().unwrap();
        let net = self.net.clone();
        let slots = self.slots.clone();
        let names = self.bus.directory.path().join("names.json");
        Service::open(connection, slots, names, net, thread, Enforcement::None)
            .await
            .unwrap()
    }

    /// Ends the helper as SIGTERM does.
    pub(crate) async fn stop_helper(&mut self) {
        let helper = self.helper.take().unwrap();
        helper.end.send(()).unwrap();
        within(helper.serving).await.unwrap().unwrap();
    }

    pub(crate) async fn proxy(&self, uid: u32) -> HelperProxy<'static> {
        proxy(&self.bus.connect(uid).await).await
    }

    pub(crate) async fn wait_for_name(&self) {
        let connection = self.bus.connect(0).await;
        wait_for_owner(&connection, banger_bus::helper::HELPER_SERVICE, true).await;
    }

    /// Everything that the helper has done to the world.
    pub(crate) fn effects(&self) -> Vec<String> {
        let mut effects: Vec<String> = self
            .net
            .changes()
            .iter()
            .map(|call| format!("{call:?}"))
            .collect();
        effects.extend(self.systemd.changes());
        let mut files: Vec<String> = std::fs::read_dir(&self.slots)
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| format!("{}: {}", path.display(), std::fs::read_to_string(&path).unwrap()))
            .collect();
        files.sort();
        effects.extend(files);
        effects
    }
}

pub(crate) async fn proxy(connection: &Connection) -> HelperProxy<'static> {
    HelperProxy::builder(connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .unwrap()
}

/// Waits until a name has an owner, or has none.
pub(crate) async fn wait_for_owner(connection: &Connection, name: &'static str, owned: bool) {
    let dbus = zbus::fdo::DBusProxy::new(connection).await.unwrap();
    let about = [(0, name)];
    let mut changes = dbus.receive_name_owner_changed_with_args(&about).await.unwrap();
    within(async {
        while dbus.name_has_owner(name.try_into().unwrap()).await.unwrap() != owned {
            futures_util::StreamExt::next(&mut changes).await;
        }
    })
    .await;
}

pub(crate) async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future.into_future())
        .await
        .expect("it takes too long")
}

/// The name of a call's error on the bus; empty when it went well.
pub(crate) fn error_name<T, E: Into<HelperError>>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(error) => zbus::DBusError::name(&error.into()).to_string(),
    }
}
