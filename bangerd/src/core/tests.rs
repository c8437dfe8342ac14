//! The life cycle without a guest: real files, a real database, and processes that stand for
//! VMMs.

mod changes;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use banger_bus::{CreateOptions, Error, ErrorKind, SetOptions, VmInfo};
use banger_model::guest::HostMessage;
use banger_model::{
    Config, Dirs, EngineChoice, ImageConfig, ImageName, KernelName, NetworkMode, Process, StopReason, VmId,
    VmSpec, VmState,
};
use banger_store::{NewIntent, Operation, Store, VmRecord, VmmProcess};
use banger_sys::launch::Launcher;
use banger_sys::pidfd::ProcessIdentity;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::progress::JobContext;
use super::recovery::Repairs;
use super::sources::{ImageFiles, KernelFiles, Sources};
use super::{Core, CreateRequest, Publish, Settings, Vm};
use crate::helper::{Helper, SystemBus};

const IMAGE_BYTES: u64 = 1 << 20;

fn pair((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// One image and one kernel, below a directory.
struct OneOfEach(std::path::PathBuf);

impl Sources for OneOfEach {
    fn image(&self, name: &ImageName) -> Result<ImageFiles, Error> {
        let rootfs = self.0.join(name.as_str());
        match rootfs.metadata() {
            Ok(file) => Ok(ImageFiles {
                name: name.clone(),
                rootfs,
                rootfs_bytes: file.len(),
                kernel: None,
                config: ImageConfig {
                    env: [("A", "image"), ("B", "image")].map(pair).into(),
                    process: Process {
                        user: Some("app".to_owned()),
                        ..Process::default()
                    },
                    ..ImageConfig::default()
                },
            }),
            Err(_) => Err(Error::new(
                ErrorKind::NoSuchImage,
                format!("No such image: {name}"),
            )),
        }
    }

    fn kernel(&self, name: &KernelName) -> Result<KernelFiles, Error> {
        Ok(KernelFiles {
            name: name.clone(),
            vmlinux: self.0.join("vmlinux"),
            modules: None,
        })
    }

    fn default_kernel(&self) -> Result<KernelFiles, Error> {
        self.kernel(&"6.1".parse().unwrap())
    }
}

/// What was published, as words.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn add(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl Publish for Told {
    fn vm_added(&self, vm: &Arc<Vm>) {
        self.add(format!("{} added {}", vm.name(), vm.info().state));
    }

    fn vm_changed(&self, vm: &Arc<Vm>, before: &VmInfo, after: &VmInfo) {
        assert_eq!(vm.info().id, after.id);
        if before.state != after.state {
            self.add(format!("{} {} to {}", vm.name(), before.state, after.state));
        }
    }

    fn vm_removed(&self, _: VmId) {
        self.add("removed".to_owned());
    }
}

/// An owner with nothing.
struct Owner {
    home: tempfile::TempDir,
    dirs: Dirs,
    told: Arc<Told>,
}

impl Owner {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_owned();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| path.clone().into())).unwrap();
        std::fs::create_dir_all(&dirs.state).unwrap();
        let image = std::fs::File::create(home.path().join("img")).unwrap();
        image.set_len(IMAGE_BYTES).unwrap();
        Self {
            home,
            dirs,
            told: Arc::new(Told::default()),
        }
    }

    /// Starts a daemon's core.
    async fn open(&self) -> Arc<Core> {
        let settings = Settings {
            dirs: self.dirs.clone(),
            config: Config::default(),
            authorized_keys: Vec::new(),
            session_bus: None,
            helper: Helper::new(SystemBus::named("unix:path=/nonexistent")),
            sources: Arc::new(OneOfEach(self.home.path().to_owned())),
            launcher: Launcher::this_program(),
        };
        Core::open(settings, self.told.clone()).await.unwrap()
    }

    /// Writes a row as an earlier daemon would have left it, with its files.
    fn leave(&self, row: &VmRecord, intent: Option<Operation>, files: &[&str]) {
        let mut store = Store::open(&self.dirs.database()).unwrap();
        let intent_of = |operation| NewIntent {
            vm: row.id,
            operation,
            created_us: 1,
        };
        store.add(row, &intent_of(Operation::Create)).unwrap();
        if intent != Some(Operation::Create) {
            store.finish(row.id, Operation::Create).unwrap();
        }
        if let Some(Operation::Delete) = intent {
            store.begin(&intent_of(Operation::Delete)).unwrap();
        }
        let directory = self.directory(row.id);
        if !files.is_empty() {
            std::fs::create_dir_all(&directory).unwrap();
        }
        for file in files.iter().filter(|file| !file.is_empty()) {
            std::fs::write(directory.join(file), "x").unwrap();
        }
    }

    fn directory(&self, id: VmId) -> std::path::PathBuf {
        self.dirs.vms().join(id.to_string())
    }

    fn runtime(&self, id: VmId) -> std::path::PathBuf {
        self.dirs.runtime.join("vms").join(id.to_string())
    }

    /// What a VM that ran leaves in the runtime directory.
    fn leave_sockets(&self, id: VmId) {
        std::fs::create_dir_all(self.runtime(id)).unwrap();
        std::fs::write(self.runtime(id).join("control.sock"), "").unwrap();
        std::os::unix::fs::symlink(self.directory(id), self.runtime(id).join("state")).unwrap();
    }

    fn rows(&self) -> Vec<VmRecord> {
        Store::open(&self.dirs.database()).unwrap().vms().unwrap()
    }
}

const WHOLE: &[&str] = &["root.ext4", "host_key"];

fn request(name: &str) -> CreateRequest {
    let options = CreateOptions {
        image: Some("img".to_owned()),
        memory_mib: Some(128),
        disk_bytes: Some(2 * IMAGE_BYTES),
        ..CreateOptions::default()
    };
    CreateRequest::new(name, &options, &Config::default()).unwrap()
}

fn row(name: &str, byte: u8, state: VmState) -> VmRecord {
    VmRecord {
        id: VmId::from_bytes([byte; 16]),
        spec: VmSpec {
            name: name.parse().unwrap(),
            image: "img".parse().unwrap(),
            kernel: None,
            vcpus: 1,
            memory_mib: 128,
            disk_bytes: 2 * IMAGE_BYTES,
            engine: EngineChoice::Auto,
            network: NetworkMode::Public,
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            process: Process::default(),
            ports: BTreeMap::new(),
        },
        kernel: "6.1".parse().unwrap(),
        machine_id: "0".repeat(32),
        mac: "52:54:00:00:00:01".to_owned(),
        host_key: "ssh-ed25519 AAAA".to_owned(),
        state,
        stop_reason: None,
        state_detail: String::new(),
        engine: String::new(),
        accelerator: String::new(),
        ssh_port: 0,
        vmm: None,
        unit: String::new(),
        init: String::new(),
        created_us: u64::from(byte),
        started_us: 0,
        ready_us: 0,
        slot: None,
        workspace: None,
    }
}

/// A process that stands for a VMM: it runs until it is killed.
fn stand_in() -> (Child, VmmProcess) {
    let child = Command::new("sleep")
        .arg("1000")
        .process_group(0)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let identity = ProcessIdentity::of(child.id()).unwrap();
    let vmm = VmmProcess {
        pid: identity.pid,
        start_time: identity.start_time,
        boot_id: identity.boot_id,
    };
    (child, vmm)
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_vm_is_made_and_deleted_without_a_trace() {
    let owner = Owner::new();
    let core = owner.open().await;
    let ctx = JobContext::silent();
    let vm = core.create(request("a"), false, None, &ctx).await.unwrap();
    let info = vm.info();
    assert_eq!((&*info.state, &*info.stop_reason), ("stopped", "never-started"));
    assert!(info.host_key.starts_with("ssh-ed25519 "));
    let directory = Path::new(&info.directory);
    assert_eq!(
        directory.join("root.ext4").metadata().unwrap().len(),
        2 * IMAGE_BYTES
    );
    assert_eq!(core.look_up("a").unwrap().id(), vm.id());

    let again = core.create(request("a"), false, None, &ctx).await;
    assert_eq!(again.err().unwrap().kind, ErrorKind::VmExists);
    assert_eq!(entries(&owner.dirs.vms()), 1);

    vm.delete(&ctx, false).await.unwrap();
    assert_eq!(
        vm.delete(&ctx, false).await.unwrap_err().kind,
        ErrorKind::NoSuchVm
    );
    assert_eq!(core.look_up("a").err().unwrap().kind, ErrorKind::NoSuchVm);
    assert_eq!((entries(&owner.dirs.vms()), owner.rows().len()), (0, 0));
    assert_eq!(
        owner.told.take(),
        [
            "a added creating",
            "a creating to stopped",
            "a stopped to deleting",
            "removed"
        ]
    );
}

#[tokio::test]
async fn a_vm_keeps_what_its_image_says_of_processes() {
    let owner = Owner::new();
    let core = owner.open().await;
    let mut wanted = request("a");
    wanted.env = [("B", "owner"), ("C", "owner")].map(pair).into();
    let vm = core
        .create(wanted, false, None, &JobContext::silent())
        .await
        .unwrap();
    let env = [("A", "image"), ("B", "owner"), ("C", "owner")].map(pair);
    assert_eq!(vm.spec().env, env.into());
    assert_eq!(owner.rows()[0].spec, vm.spec());
    assert_eq!(vm.spec().process.user.as_deref(), Some("app"));
}

#[tokio::test]
async fn what_cannot_be_made_leaves_nothing() {
    let owner = Owner::new();
    let core = owner.open().await;
    let cancelled = JobContext::silent();
    cancelled.cancel().cancel();
    let ctx = JobContext::silent();
    let mut unknown = request("a");
    unknown.image = "other".parse().unwrap();
    let mut small = request("a");
    small.disk_bytes = Some(IMAGE_BYTES - 1);
    let mut greedy = request("a");
    greedy.memory_mib = Some(1 << 20);
    for (request, ctx, kind) in [
        (unknown, &ctx, ErrorKind::NoSuchImage),
        (small, &ctx, ErrorKind::InvalidArgument),
        (greedy, &ctx, ErrorKind::LimitExceeded),
        (request("a"), &cancelled, ErrorKind::Cancelled),
    ] {
        let error = core.create(request, false, None, ctx).await.err().unwrap();
        assert_eq!(error.kind, kind, "{error}");
    }
    assert_eq!((entries(&owner.dirs.vms()), owner.rows().len()), (0, 0));
    assert_eq!(owner.told.take(), Vec::<String>::new());
}

#[tokio::test]
async fn a_start_that_fails_before_the_vmm_is_undone() {
    let owner = Owner::new();
    let core = owner.open().await;
    let ctx = JobContext::silent();
    // There is no file of the kernel.
    let error = core.create(request("a"), true, None, &ctx).await.err().unwrap();
    assert!(error.message.contains("vmlinux"), "{error}");
    assert_eq!((entries(&owner.dirs.vms()), core.vms().len()), (0, 0));

    let vm = core.create(request("b"), false, None, &ctx).await.unwrap();
    vm.start(&ctx, None).await.unwrap_err();
    let info = vm.info();
    assert_eq!((&*info.state, &*info.stop_reason), ("stopped", "vmm-failed"));
    assert!(info.state_detail.contains("vmlinux"), "{}", info.state_detail);
    assert_eq!(entries(&owner.dirs.runtime.join("vms")), 0);
    assert_eq!(vm.stop(&ctx, None).await.unwrap_err().kind, ErrorKind::WrongState);
    assert_eq!(vm.kill(&ctx).await.unwrap_err().kind, ErrorKind::WrongState);
    assert_eq!(vm.agent().unwrap_err().kind, ErrorKind::WrongState);
}

#[tokio::test]
async fn one_operation_at_a_time() {
    let owner = Owner::new();
    let core = owner.open().await;
    let ctx = JobContext::silent();
    let vm = core.create(request("a"), false, None, &ctx).await.unwrap();
    let other = JobContext::silent();
    let turn = vm.turn("test", other.cancel(), false).await.unwrap();
    let busy = vm.start(&ctx, None).await.unwrap_err();
    assert_eq!(busy.kind, ErrorKind::Busy);
    assert!(busy.message.contains("test is under way"), "{busy}");
    let deleting = tokio::spawn({
        let vm = vm.clone();
        async move { vm.delete(&JobContext::silent(), true).await }
    });
    // It cancels the one that holds the turn, and goes on when that lets go.
    other.cancelled().await;
    drop(turn);
    deleting.await.unwrap().unwrap();
    assert!(core.vms().is_empty());
}

#[tokio::test]
async fn everything_that_was_left_is_repaired_once() {
    let owner = Owner::new();
    let (mut ended, gone) = stand_in();
    ended.kill().unwrap();
    ended.wait().unwrap();
    let died = VmRecord {
        vmm: Some(gone),
        started_us: 1,
        ..row("died", 1, VmState::Running)
    };
    owner.leave(&died, None, WHOLE);
    owner.leave_sockets(died.id);
    owner.leave(&row("half", 2, VmState::Creating), Some(Operation::Create), &[""]);
    owner.leave(
        &row("doomed", 3, VmState::Stopped),
        Some(Operation::Delete),
        &["root.ext4"],
    );
    owner.leave(&row("starting", 4, VmState::Starting), None, WHOLE);
    owner.leave(&row("well", 5, VmState::Stopped), None, WHOLE);
    owner.leave(&row("lost", 6, VmState::Stopped), None, &["host_key"]);
    owner.leave(&row("nothing", 7, VmState::Running), None, &[]);
    // Of no VM, of another owner, and of nobody we know.
    let orphan = VmId::from_bytes([8; 16]);
    std::fs::create_dir_all(owner.directory(orphan)).unwrap();
    owner.leave_sockets(orphan);
    let foreign = owner.runtime(VmId::from_bytes([9; 16]));
    std::fs::create_dir_all(&foreign).unwrap();
    std::os::unix::fs::symlink("/elsewhere", foreign.join("state")).unwrap();
    std::fs::create_dir_all(owner.dirs.vms().join("notes")).unwrap();

    let core = owner.open().await;
    let found: Vec<_> = core
        .vms()
        .iter()
        .map(|vm| {
            let info = vm.info();
            (info.name, info.state, info.stop_reason, info.state_detail)
        })
        .collect();
    let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["died", "starting", "well", "lost", "nothing"]);
    assert!(found.iter().all(|(_, state, ..)| state == "stopped"), "{found:?}");
    assert_eq!(found[0].2, "vanished");
    assert_eq!(found[1].2, "vanished");
    assert_eq!((&*found[2].2, &*found[2].3), ("", ""));
    assert!(found[3].3.contains("root disk"), "{found:?}");
    assert!(found[4].3.contains("directory"), "{found:?}");
    assert!(!owner.directory(orphan).exists() && !owner.runtime(orphan).exists());
    assert!(!owner.runtime(died.id).exists());
    assert!(foreign.exists() && owner.dirs.vms().join("notes").exists());

    // A second pass does nothing, in this daemon and in the next.
    assert_eq!(core.recover().await.unwrap(), Repairs::default());
    owner.told.take();
    let before = owner.rows();
    let next = owner.open().await;
    assert_eq!(owner.rows(), before);
    assert_eq!(owner.told.take().len(), 5);

    // What is damaged says so, and can be deleted.
    let lost = next.look_up("lost").unwrap();
    let ctx = JobContext::silent();
    let error = lost.start(&ctx, None).await.unwrap_err();
    assert!(error.message.contains("root disk"), "{error}");
    lost.delete(&ctx, false).await.unwrap();
    next.look_up("nothing")
        .unwrap()
        .delete(&ctx, false)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_vmm_that_runs_is_watched_again() {
    let owner = Owner::new();
    let (first, vmm) = stand_in();
    let running = VmRecord {
        vmm: Some(vmm),
        ssh_port: 4242,
        started_us: 1,
        ..row("a", 1, VmState::Running)
    };
    owner.leave(&running, None, WHOLE);
    owner.leave_sockets(running.id);
    let (_second, vmm) = stand_in();
    let killed = VmRecord {
        vmm: Some(vmm),
        ..row("b", 2, VmState::Running)
    };
    owner.leave(&killed, None, WHOLE);
    let core = owner.open().await;
    let (a, b) = (core.look_up("a").unwrap(), core.look_up("b").unwrap());
    assert_eq!((a.state(), b.state()), (VmState::Running, VmState::Running));
    assert_eq!(a.agent().unwrap().socket.port(), 4242);
    assert!(core.is_busy());
    let ctx = JobContext::silent();
    assert_eq!(
        a.delete(&ctx, false).await.unwrap_err().kind,
        ErrorKind::WrongState
    );

    // Its end is seen, whoever ends it, and everything of the run is removed.
    let machine = b.machine().unwrap();
    b.kill(&ctx).await.unwrap();
    machine.ended().await;
    let info = b.info();
    assert_eq!(
        (&*info.state, &*info.stop_reason, info.pid),
        ("stopped", "killed", 0)
    );
    let machine = a.machine().unwrap();
    let pid = i32::try_from(first.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    machine.ended().await;
    let info = a.info();
    assert_eq!(
        (&*info.state, &*info.stop_reason),
        ("stopped", StopReason::VmmKilled.as_str())
    );
    assert!(info.state_detail.contains("signal 9"), "{}", info.state_detail);
    assert!(!owner.runtime(running.id).exists() && !core.is_busy());
    assert_eq!(owner.rows()[0].stop_reason, Some(StopReason::VmmKilled));
}
