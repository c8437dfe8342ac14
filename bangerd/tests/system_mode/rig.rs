//! A bus, an owner with an image and a kernel, and his daemon.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_bus::helper::{HELPER_PATH, HELPER_SERVICE};
use banger_bus::{
    CreateOptions, HelperObject, JobOutcome, ManagerProxy, StartOptions, StopOptions, VmProxy, path,
};
use banger_image::ext4;
use banger_image::image::{ImageKernel, Register, register};
use banger_model::Dirs;
use futures_util::StreamExt;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath};

use crate::fake::{FakeHelper, FakePolkit, FakeScope, FakeSystemd, scope_path};

/// The time within which anything that is awaited has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const KERNEL: &str = "6.1";
const IMAGE: &str = "img";

/// Everything but the daemon.
pub(crate) struct Rig {
    pub(crate) helper: FakeHelper,
    pub(crate) dirs: Dirs,
    pub(crate) polkit_allows: Arc<AtomicBool>,
    home: tempfile::TempDir,
    address: String,
    services: Vec<Connection>,
    bus: Child,
}

/// A daemon, and a client of it.
pub(crate) struct Daemon {
    process: Child,
    pub(crate) client: Connection,
    ends: MessageStream,
}

/// Whether the rung `bus` can run here.
pub(crate) fn can_run() -> bool {
    if Command::new("dbus-daemon").arg("--version").output().is_ok() {
        return true;
    }
    let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|rung| rung == "bus"), "no dbus-daemon");
    println!("skipped: no dbus-daemon");
    false
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("bus");
        let config = home.path().join("bus.conf");
        fs::write(&config, configuration(&socket)).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.as_mut().unwrap())
            .read_line(&mut address)
            .unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        owner(&dirs, home.path());
        let mut rig = Self {
            helper: FakeHelper::new(),
            dirs,
            polkit_allows: Arc::new(AtomicBool::new(true)),
            home,
            address: address.trim().to_owned(),
            services: Vec::new(),
            bus,
        };
        rig.serve().await;
        rig
    }

    async fn serve(&mut self) {
        let systemd = Builder::address(self.address.as_str())
            .name("org.freedesktop.systemd1")
            .serve_at("/org/freedesktop/systemd1", FakeSystemd(self.helper.clone()))
            .serve_at(scope_path(), FakeScope)
            .build();
        let polkit = Builder::address(self.address.as_str())
            .name("org.freedesktop.PolicyKit1")
            .serve_at(
                "/org/freedesktop/PolicyKit1/Authority",
                FakePolkit(self.polkit_allows.clone()),
            )
            .build();
        self.services = vec![systemd.await.unwrap(), polkit.await.unwrap()];
        self.install_helper().await;
    }

    pub(crate) async fn install_helper(&mut self) {
        let object = HelperObject {
            api: Arc::new(self.helper.clone()),
        };
        let helper = Builder::address(self.address.as_str())
            .name(HELPER_SERVICE)
            .serve_at(HELPER_PATH, object)
            .build();
        self.services.push(helper.await.unwrap());
    }

    /// The helper is gone, as after its package was removed.
    pub(crate) async fn remove_helper(&mut self) {
        let helper = self.services.pop().unwrap();
        helper.close().await.unwrap();
    }

    pub(crate) fn forbid(&self) {
        self.polkit_allows.store(false, Ordering::SeqCst);
        let text = "Not allowed".to_owned();
        let error = banger_bus::helper::HelperError::AuthorizationRequired(text);
        self.helper.refuse("AcquireSlot", error);
    }

    /// Has systemd tell that somebody stops the scope.
    pub(crate) async fn stop_scope(&self) {
        let server = self.services[0].object_server();
        let scope = server.interface::<_, FakeScope>(scope_path()).await.unwrap();
        FakeScope::request_stop(scope.signal_emitter()).await.unwrap();
    }

    pub(crate) fn configure(&self, text: &str) {
        fs::create_dir_all(&self.dirs.config).unwrap();
        fs::write(self.dirs.config_file(), text).unwrap();
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.dirs.kernels().join(KERNEL).join("vmlinux")
    }

    /// A program with the owner's environment.
    pub(crate) fn bangerd(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bangerd"));
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", self.home.path().join("bin"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.address)
            .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
            .env("BANGER_GUEST", self.home.path().join("banger-guest"))
            .env("BANGER_LOG", "bangerd=debug")
            .stdin(Stdio::null());
        command
    }

    /// Starts a daemon, with fail points where there are any.
    pub(crate) async fn start(&self, fail_point: &str) -> Daemon {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("log"))
            .unwrap();
        let mut command = self.bangerd();
        if !fail_point.is_empty() {
            command.env("BANGER_FAIL_POINT", fail_point);
        }
        let mut process = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let client = self.connect(&mut process, log).await;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .path_namespace(path::JOBS)
            .member("Removed")
            .build()
            .unwrap();
        let ends = MessageStream::for_match_rule(rule, &client, None).await.unwrap();
        Daemon {
            process,
            client,
            ends,
        }
    }

    /// Connects once the daemon says that it serves.
    async fn connect(&self, process: &mut Child, mut log: fs::File) -> Connection {
        let said = process.stderr.take().unwrap();
        let (serving, serves) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut serving = Some(serving);
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let _ = std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes());
                if line.contains("Serving")
                    && let Some(serving) = serving.take()
                {
                    let _ = serving.send(());
                }
            }
        });
        let served = tokio::time::timeout(LIMIT, serves).await.unwrap();
        assert!(served.is_ok(), "the daemon has ended: {}", self.log());
        let stream = std::os::unix::net::UnixStream::connect(self.dirs.socket()).unwrap();
        Builder::unix_stream(stream).p2p().build().await.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}

impl Daemon {
    pub(crate) async fn manager(&self) -> ManagerProxy<'static> {
        ManagerProxy::new(&self.client).await.unwrap()
    }

    pub(crate) async fn vm(&self) -> VmProxy<'static> {
        let path = self.manager().await.look_up_vm("a".to_owned()).await.unwrap();
        VmProxy::builder(&self.client).path(path).build().await.unwrap()
    }

    pub(crate) async fn state(&self) -> String {
        self.vm().await.state().await.unwrap()
    }

    /// Creates the VM `a` and does not start it.
    pub(crate) async fn create(&mut self, network: &str) {
        let options = CreateOptions {
            image: Some(IMAGE.to_owned()),
            memory_mib: Some(128),
            disk_bytes: Some(256 << 20),
            network: Some(network.to_owned()),
            start: Some(false),
            ..CreateOptions::default()
        };
        let manager = self.manager().await;
        let outcome = self.end(manager.create_vm("a".to_owned(), options).await).await;
        assert_eq!(outcome.expect("the daemon lives").error, None);
    }

    /// `None` when the daemon has died of it.
    pub(crate) async fn start_vm(&mut self) -> Option<JobOutcome> {
        let vm = self.vm().await;
        let started = vm.start(StartOptions::default()).await;
        self.end(started).await
    }

    /// As [`Self::start_vm`].
    pub(crate) async fn stop_vm(&mut self) -> Option<JobOutcome> {
        let vm = self.vm().await;
        let stopped = vm.stop(StopOptions::default()).await;
        self.end(stopped).await
    }

    /// Waits for the end of the one job that there is.
    pub(crate) async fn end(&mut self, started: banger_bus::Result<OwnedObjectPath>) -> Option<JobOutcome> {
        // A daemon that dies answers nothing.
        started.ok()?;
        let next = tokio::time::timeout(LIMIT, self.ends.next())
            .await
            .expect("the job ends");
        let message = next?.ok()?;
        let body = message.body();
        let (result, error, text, details): (&str, &str, &str, HashMap<String, zbus::OwnedVariant>) =
            body.deserialize().unwrap();
        Some(JobOutcome::from_signal(result, error, text, &details))
    }

    /// Waits until the VM is in a state.
    pub(crate) async fn becomes(&self, state: &str) {
        let vm = self.vm().await;
        let mut states = vm.receive_state_changed().await;
        let waiting = async {
            // What it is already may be told once more, or not.
            while self.state().await != state {
                states.next().await.expect("the daemon lives");
            }
        };
        let waited = tokio::time::timeout(LIMIT, waiting).await;
        assert!(waited.is_ok(), "it is {} and not {state}", self.state().await);
    }

    pub(crate) fn kill(mut self) {
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Everybody may do everything.
fn configuration(socket: &Path) -> String {
    format!(
        r#"<busconfig>
  <type>session</type>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"#,
        socket.display()
    )
}

/// An image, a kernel that only its owner reads, a guest program, and a QEMU that has a version.
fn owner(dirs: &Dirs, home: &Path) {
    let kernel = dirs.kernels().join(KERNEL);
    fs::create_dir_all(&kernel).unwrap();
    fs::write(kernel.join("vmlinux"), "12345").unwrap();
    fs::set_permissions(kernel.join("vmlinux"), Permissions::from_mode(0o600)).unwrap();
    let about = format!(
        r#"{{"name":"{KERNEL}","version":"6.1","origin":{{"type":"files","kernel":"/k"}},
            "kernel_bytes":5,"modules_bytes":0,"created":1}}"#
    );
    fs::write(kernel.join("kernel.json"), about).unwrap();
    let rootfs = home.join("img.ext4");
    ext4::Writer::create(&rootfs).unwrap().finish().unwrap();
    register(&Register {
        images: &dirs.images(),
        name: IMAGE.parse().unwrap(),
        rootfs: &rootfs,
        kernel: ImageKernel::Reference(KERNEL.parse().unwrap()),
    })
    .unwrap();
    // As much of an ELF program as is looked at: x86-64, without an interpreter.
    let mut program = [0; 64];
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (program[16], program[18]) = (2, 62);
    fs::write(home.join("banger-guest"), program).unwrap();
    fs::create_dir(home.join("bin")).unwrap();
    let qemu = home.join("bin/qemu-system-x86_64");
    fs::write(&qemu, "#!/bin/sh\necho 'QEMU emulator version 8.2.0'\n").unwrap();
    fs::set_permissions(&qemu, Permissions::from_mode(0o755)).unwrap();
}
