//! Launching VMMs: what they are, what goes wrong, and that nothing stays. The program is the
//! real one, with its capabilities and Landlock; the VMM is a script, PID 1 a stand-in that
//! knows scopes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use banger_bus::HelperProxy;
use banger_bus::helper::{FileRole, HelperError, LaunchOptions, LogReadOptions, SlotGrant};
use banger_helper::fail_point::POINTS;
use banger_model::Slot;
use banger_sys::file::sealed_memfd;
use banger_sys::pidfd::{Exit, Pidfd};

use crate::program::Running;
use crate::support::{ALICE, BOB, LIMIT, Starting, can_run, proxy, within};

/// Stands in for QEMU: the VM's name says what it does.
const ENGINE: &str = r#"#!/bin/sh
case "$1" in --version) echo 'QEMU emulator version 8.2.1'; exit;; esac
for word in "$@"; do echo "$word"; done
case "$*" in
    *guest=ends*) echo 'no such machine' >&2; exit 3;;
    *guest=stubborn*) trap '' TERM;;
esac
echo started
exec sleep 1000
"#;

/// What stands in for journalctl.
const JOURNALCTL: &str = r#"#!/bin/sh
for word in "$@"; do echo "$word"; done
case "$*" in *--follow*) exec sleep 1000;; esac
"#;

struct Rig {
    running: Running,
    /// Beside the helper, where it may execute.
    programs: tempfile::TempDir,
    files: tempfile::TempDir,
}

/// A launch of Alice's, from outside.
struct Started {
    process: Pidfd,
    console: Option<BufReader<File>>,
    log: File,
}

impl Rig {
    /// `None` where it cannot run.
    async fn start() -> Option<Self> {
        if !can_run() {
            return None;
        }
        let own = std::env::current_exe().unwrap();
        let programs = tempfile::tempdir_in(own.parent().unwrap()).unwrap();
        let everybody = || PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(programs.path(), everybody()).unwrap();
        for (name, script) in [("engine", ENGINE), ("journalctl", JOURNALCTL)] {
            let path = programs.path().join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(path, everybody()).unwrap();
        }
        let files = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(files.path(), Some(ALICE), None).unwrap();
        let running = Running::start_failing("").await;
        let mut rig = Self {
            running,
            programs,
            files,
        };
        rig.restart("").await;
        Some(rig)
    }

    async fn restart(&mut self, failing_at: &str) {
        self.restart_with(&self.programs.path().join("engine"), failing_at)
            .await;
    }

    async fn restart_with(&mut self, engine: &Path, failing_at: &str) {
        let journalctl = self.programs.path().join("journalctl");
        let environment = [
            ("BANGER_TEST_ENGINE", engine.to_str().unwrap()),
            ("BANGER_TEST_JOURNALCTL", journalctl.to_str().unwrap()),
            ("BANGER_FAIL_POINT", failing_at),
        ];
        self.running.restart_with(&environment).await;
    }

    async fn alice(&self) -> HelperProxy<'static> {
        proxy(&self.running.bus.connect(ALICE).await).await
    }

    fn file(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.files.path().join(name);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        std::os::unix::fs::chown(&path, Some(ALICE), None).unwrap();
        path
    }

    /// All of Alice's that QEMU takes, and the ends from which console and log are read.
    fn parts(&self) -> (HashMap<u8, OwnedFd>, File, File) {
        let (console, console_end) = std::io::pipe().unwrap();
        let (log, log_end) = std::io::pipe().unwrap();
        let listen = |name: &str| {
            let path = self.files.path().join(name);
            let _ = std::fs::remove_file(&path);
            let fd = OwnedFd::from(UnixListener::bind(path).unwrap());
            of_alice(&fd);
            fd
        };
        let initrd = sealed_memfd("initrd", &[b"x"]).unwrap();
        of_alice(&initrd);
        let disk = self.file("disk", 1 << 20);
        let disk = File::options().read(true).write(true).open(disk).unwrap();
        let files = [
            (
                FileRole::Kernel,
                File::open(self.file("kernel", 4096)).unwrap().into(),
            ),
            (FileRole::Initrd, initrd),
            (FileRole::RootDisk, disk.into()),
            (FileRole::Console, console_end.into()),
            (FileRole::Log, log_end.into()),
            (FileRole::Control, listen("control")),
            (FileRole::Monitor, listen("monitor")),
        ];
        let files = files.into_iter().map(|(role, fd)| (role.number(), fd)).collect();
        (files, OwnedFd::from(console).into(), OwnedFd::from(log).into())
    }

    async fn launch(
        &self,
        alice: &HelperProxy<'_>,
        grant: &SlotGrant,
        name: &str,
    ) -> Result<Started, HelperError> {
        let (files, console, log) = self.parts();
        let process = within(alice.launch(grant.handle, options(name), wire(&files))).await?;
        Ok(Started {
            process: Pidfd::from_fd(process.into()).unwrap(),
            console: Some(BufReader::new(console)),
            log,
        })
    }

    /// The processes in the helper's network namespace; one that has ended and waits for its
    /// parent is in none.
    fn processes(&self) -> Vec<PathBuf> {
        let network = self.running.network();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let paths = entries.map(|entry| entry.path());
        let here = |path: &PathBuf| std::fs::read_link(path.join("ns/net")).is_ok_and(|net| net == network);
        paths.filter(here).collect()
    }

    /// Those with a slot's uid.
    fn vmms(&self) -> Vec<Pidfd> {
        let mut vmms = self.processes();
        vmms.retain(|path| {
            path.metadata()
                .is_ok_and(|meta| Slot::of_uid(meta.uid()).is_some())
        });
        vmms.iter().filter_map(|path| open(path)).collect()
    }

    /// Those that read the journal, by their environment.
    fn log_readers(&self) -> Vec<Pidfd> {
        let mut readers = self.processes();
        readers.retain(|path| {
            let environment = std::fs::read_to_string(path.join("environ")).unwrap_or_default();
            environment.contains("LC_ALL=C.UTF-8") && !environment.contains("DBUS_SYSTEM")
        });
        readers.iter().filter_map(|path| open(path)).collect()
    }

    /// Nothing of any VMM is left.
    async fn nothing_is_left(&self, why: &str) {
        self.running.systemd.wait_for(<[String]>::is_empty).await;
        // One that was killed may still be ending.
        for process in self.vmms() {
            let _ = tokio::time::timeout(LIMIT, process.exited()).await;
        }
        assert_eq!(self.vmms().len(), 0, "{why}");
    }
}

impl Drop for Rig {
    /// What a failed test has left.
    fn drop(&mut self) {
        for process in self.vmms() {
            let _ = process.send_signal(rustix::process::Signal::KILL);
        }
    }
}

impl Started {
    /// Its arguments, once it has started.
    async fn arguments(&mut self) -> Vec<String> {
        let console = self.console.take().unwrap();
        let (lines, console) = lines_until(console, "started").await;
        self.console = Some(console);
        lines
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.process.pid().to_string()).join(name)
    }

    fn status(&self, field: &str) -> String {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{field}:")));
        let words: Vec<&str> = line.unwrap().split_ascii_whitespace().collect();
        words.join(" ")
    }
}

/// The lines up to this one, or to the end. The bus is served meanwhile.
async fn lines_until<R: BufRead + Send + 'static>(mut reader: R, last: &'static str) -> (Vec<String>, R) {
    let reading = tokio::task::spawn_blocking(move || {
        let lines = reader.by_ref().lines().map(Result::unwrap);
        let lines = lines.take_while(|line| line != last).collect();
        (lines, reader)
    });
    within(reading).await.unwrap()
}

/// The process that `/proc/PID` is about.
fn open(path: &Path) -> Option<Pidfd> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    Pidfd::open(pid).ok()
}

fn of_alice(fd: &OwnedFd) {
    let alice = rustix::process::Uid::from_raw(ALICE);
    rustix::fs::fchown(fd, Some(alice), None).unwrap();
}

fn wire(files: &HashMap<u8, OwnedFd>) -> HashMap<u8, zbus::wire::OwnedFd> {
    let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().unwrap().into();
    files.iter().map(|(role, fd)| (*role, copy(fd))).collect()
}

fn options(name: &str) -> LaunchOptions {
    LaunchOptions {
        engine: Some(0),
        emulated: Some(true),
        vcpus: Some(2),
        memory_mib: Some(512),
        id: Some((1, 2)),
        name: Some(name.to_owned()),
    }
}

fn kind(error: &HelperError) -> &'static str {
    let HelperError::Refused(error) = error else {
        panic!("{error}")
    };
    error.kind.name().rsplit('.').next().unwrap()
}

#[tokio::test]
async fn a_vmm_is_its_slots_user_in_its_scope() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let slot = Slot::new(grant.slot).unwrap();
    let mut started = rig.launch(&alice, &grant, "web").await.unwrap();
    let arguments = started.arguments().await;
    for expected in ["guest=web", "tap,id=net,fd=15", "512M", "tcg,thread=multi"] {
        assert!(
            arguments.iter().any(|word| word == expected),
            "{expected}: {arguments:?}"
        );
    }

    let uid = slot.uid();
    let none = "0000000000000000";
    for (field, expected) in [
        ("Uid", format!("{uid} {uid} {uid} {uid}")),
        ("Gid", format!("{uid} {uid} {uid} {uid}")),
        ("Groups", String::new()),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("Umask", "0007".to_owned()),
    ] {
        assert_eq!(started.status(field), expected, "{field}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(started.status(set), none, "{set}");
    }
    let mut open: Vec<u32> = std::fs::read_dir(started.proc("fd"))
        .unwrap()
        .map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    open.sort_unstable();
    assert_eq!(
        open,
        [0, 1, 2, 10, 11, 12, 13, 14, 15],
        "and the script, as its shell has it"
    );
    let environment = std::fs::read_to_string(started.proc("environ")).unwrap();
    // The shell's own besides.
    let mut environment: Vec<&str> = environment.split_terminator('\0').collect();
    environment.retain(|variable| !variable.starts_with("PWD="));
    environment.sort_unstable();
    assert_eq!(environment, ["LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin"]);

    let systemd = &rig.running.systemd;
    assert_eq!(systemd.scopes(), ["banger-vm-0.scope"]);
    assert_eq!(systemd.process("banger-vm-0.scope").pid(), started.process.pid());
    let name = alice.inner().connection().unique_name().unwrap().to_string();
    for (property, expected) in [
        ("Description", "banger VM web".to_owned()),
        ("Slice", format!("banger-{ALICE}.slice")),
        ("CollectMode", "inactive-or-failed".to_owned()),
        ("MemoryMax", banger_vmm::memory_max(512, true).to_string()),
        ("TasksMax", "512".to_owned()),
        ("CPUWeight", "100".to_owned()),
        ("Controller", name),
        ("DevicePolicy", "closed".to_owned()),
    ] {
        assert_eq!(systemd.asked(property), expected, "{property}");
    }
    // Emulated, and with its tap open: no device.
    assert_eq!(systemd.asked("DeviceAllow"), "@a(ss) []");

    // One slot, one VMM.
    assert!(alice.list().await.unwrap()[0].running);
    let second = rig.launch(&alice, &grant, "web").await.err().unwrap();
    assert_eq!(kind(&second), "WrongState", "{second}");
    assert!(started.process.is_alive());
    // Nobody else has anything to do with it.
    let bob = proxy(&rig.running.bus.connect(BOB).await).await;
    for result in [bob.stop(grant.handle).await, bob.kill(grant.handle).await] {
        assert_eq!(kind(&result.unwrap_err()), "NoSuchSlot");
    }

    alice.stop(grant.handle).await.unwrap();
    within(started.process.exited()).await.unwrap();
    rig.nothing_is_left("stopped").await;
    assert!(!alice.list().await.unwrap()[0].running);
    // And again in the same slot.
    let mut again = rig.launch(&alice, &grant, "web").await.unwrap();
    again.arguments().await;
    alice.kill(grant.handle).await.unwrap();
    rig.nothing_is_left("killed").await;
}

#[tokio::test]
async fn a_vmm_that_takes_no_notice_is_killed() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let mut stubborn = rig.launch(&alice, &grant, "stubborn").await.unwrap();
    stubborn.arguments().await;
    alice.stop(grant.handle).await.unwrap();
    assert!(stubborn.process.is_alive());
    alice.kill(grant.handle).await.unwrap();
    assert!(!stubborn.process.is_alive());
    let changes = rig.running.systemd.changes();
    assert_eq!(
        changes,
        [
            "StartTransientUnit banger-vm-0.scope fail",
            "KillUnit banger-vm-0.scope all 15",
            "KillUnit banger-vm-0.scope all 9"
        ]
    );
    // By an administrator, and by giving the slot back.
    let root = proxy(&rig.running.bus.connect(0).await).await;
    for by_release in [false, true] {
        let mut stubborn = rig.launch(&alice, &grant, "stubborn").await.unwrap();
        stubborn.arguments().await;
        if by_release {
            alice.release_slot(grant.handle).await.unwrap();
        } else {
            root.evict(grant.slot).await.unwrap();
        }
        assert!(!stubborn.process.is_alive());
        rig.nothing_is_left("evicted or released").await;
    }
    assert_eq!(kind(&root.evict(600).await.unwrap_err()), "InvalidArgument");
    assert_eq!(kind(&root.evict(7).await.unwrap_err()), "NoSuchSlot");
}

#[tokio::test]
async fn twenty_at_once_are_twenty_users() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let mut grants = Vec::new();
    for _ in 0..20 {
        grants.push(alice.acquire_slot(0).await.unwrap());
    }
    let launches = grants.iter().map(|grant| rig.launch(&alice, grant, "web"));
    let started = futures_util::future::join_all(launches).await;
    let mut uids = Vec::new();
    for (grant, started) in grants.iter().zip(started) {
        let mut started = started.unwrap();
        started.arguments().await;
        let uid = Slot::new(grant.slot).unwrap().uid();
        assert!(started.status("Uid").starts_with(&uid.to_string()));
        uids.push(uid);
    }
    uids.dedup();
    assert_eq!((uids.len(), rig.running.systemd.scopes().len()), (20, 20));
    for result in futures_util::future::join_all(grants.iter().map(|grant| alice.kill(grant.handle))).await {
        result.unwrap();
    }
    rig.nothing_is_left("twenty").await;
}

#[tokio::test]
async fn an_older_systemd_gets_the_process_by_its_number() {
    let Some(rig) = Rig::start().await else { return };
    rig.running.systemd.set_starting(Starting::Old);
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let mut started = rig.launch(&alice, &grant, "web").await.unwrap();
    started.arguments().await;
    let process = rig.running.systemd.process("banger-vm-0.scope");
    assert_eq!(process.pid(), started.process.pid());
    alice.kill(grant.handle).await.unwrap();
}

#[tokio::test]
async fn without_its_scope_nothing_runs() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    for (starting, expected) in [
        (Starting::Exists, "WrongState"),
        (Starting::Fails, "EngineFailed"),
    ] {
        rig.running.systemd.set_starting(starting);
        let error = rig.launch(&alice, &grant, "web").await.err().unwrap();
        assert_eq!(kind(&error), expected, "{error}");
        assert!(error.to_string().contains("banger-vm-0.scope"), "{error}");
        rig.nothing_is_left(expected).await;
    }
    rig.running.systemd.set_starting(Starting::Works);
    // A scope of ours in which nothing of ours runs makes room.
    rig.running.systemd.add_scope("banger-vm-0.scope");
    rig.launch(&alice, &grant, "web").await.unwrap().arguments().await;
    alice.kill(grant.handle).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_cannot_be_used_is_told() {
    let Some(mut rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    // It starts, and ends at once: its own words are in the log.
    let started = rig.launch(&alice, &grant, "ends").await.unwrap();
    assert_eq!(within(started.process.exited()).await.unwrap(), Exit::Code(3));
    let (words, _) = lines_until(BufReader::new(started.log), "").await;
    assert_eq!(words, ["no such machine"]);
    rig.nothing_is_left("ended").await;

    let script = |name: &str, text: &str| {
        let path = rig.programs.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    };
    let old = script("old", "#!/bin/sh\necho 'QEMU emulator version 6.2.0'\n");
    let silent = script("silent", "#!/bin/sh\n");
    let unusable = script("unusable", "#!/no/such/interpreter\n");
    let missing = rig.programs.path().join("missing");
    for (engine, expected) in [
        (old, "is QEMU 6.2.0, and at least 7.0.0 is needed"),
        (silent, "did not say which version"),
        (unusable, "Cannot execute"),
        (missing, "No such file"),
    ] {
        rig.restart_with(&engine, "").await;
        let error = rig.launch(&alice, &grant, "web").await.err().unwrap();
        assert_eq!(kind(&error), "EngineUnavailable", "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        rig.nothing_is_left(expected).await;
    }
    let firecracker = LaunchOptions {
        engine: Some(1),
        ..options("web")
    };
    let (files, ..) = rig.parts();
    let refusal = alice
        .launch(grant.handle, firecracker, wire(&files))
        .await
        .unwrap_err();
    assert_eq!(kind(&refusal), "InvalidArgument", "{refusal}");
}

#[tokio::test]
async fn a_caller_who_leaves_takes_his_launch_with_him() {
    let Some(rig) = Rig::start().await else { return };
    rig.running.systemd.set_starting(Starting::Hangs);
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let (files, console, _log) = rig.parts();
    let connection = alice.inner().connection().clone();
    let launching = tokio::spawn(async move {
        let files = wire(&files);
        alice.launch(grant.handle, options("web"), files).await.map(drop)
    });
    rig.running.systemd.wait_for(|scopes| scopes.len() == 1).await;
    assert_eq!(rig.vmms().len(), 1);
    connection.close().await.unwrap();
    rig.nothing_is_left("his caller has left").await;
    assert!(within(launching).await.unwrap().is_err());
    let (said, _) = lines_until(BufReader::new(console), "").await;
    assert_eq!(said, Vec::<String>::new(), "it never ran");
    // The slot is his, and of use.
    rig.running.systemd.set_starting(Starting::Works);
    let alice = rig.alice().await;
    rig.launch(&alice, &grant, "web").await.unwrap().arguments().await;
    alice.kill(grant.handle).await.unwrap();
}

#[tokio::test]
async fn whatever_happens_a_vmm_runs_noted_or_not_at_all() {
    let Some(mut rig) = Rig::start().await else { return };
    let grant = rig.alice().await.acquire_slot(0).await.unwrap();
    let points: Vec<_> = POINTS
        .iter()
        .filter(|point| point.starts_with("launch."))
        .collect();
    assert!(points.len() >= 6);
    for action in ["kill", "error"] {
        for point in &points {
            let armed = format!("{point}={action}");
            rig.restart(&armed).await;
            let alice = rig.alice().await;
            // A VMM that runs can go on writing.
            let (files, _console, _log) = rig.parts();
            let launching = alice.launch(grant.handle, options("web"), wire(&files));
            assert!(within(launching).await.is_err(), "{armed}");
            // Only a VMM that was released outlives its helper.
            let runs = action == "kill" && **point == "launch.released";
            if !runs {
                rig.nothing_is_left(&armed).await;
            }
            rig.restart("").await;
            let slots = alice.list().await.unwrap();
            assert_eq!(slots[0].running, runs, "{armed}");
            assert_eq!(rig.vmms().len(), usize::from(runs), "{armed}");
            assert_eq!(alice.repair().await.unwrap(), Vec::<String>::new(), "{armed}");
            alice.kill(grant.handle).await.unwrap();
            rig.nothing_is_left(&armed).await;
        }
    }
}

#[tokio::test]
async fn a_log_is_written_until_nobody_wants_it() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let open = async |alice: &HelperProxy<'static>, follow| {
        let (reader, writer) = std::io::pipe().unwrap();
        let options = LogReadOptions {
            lines: Some(5),
            follow: Some(follow),
        };
        let writer = OwnedFd::from(writer).into();
        let opened = alice.open_log(grant.handle, options, writer).await;
        opened.map(|()| BufReader::new(reader))
    };
    let nothing = open(&alice, false).await.err().unwrap();
    assert_eq!(kind(&nothing), "WrongState", "{nothing}");
    rig.launch(&alice, &grant, "web").await.unwrap().arguments().await;
    alice.kill(grant.handle).await.unwrap();

    // Also after its end.
    let (text, _) = lines_until(open(&alice, false).await.unwrap(), "").await;
    let expected = [
        "--quiet",
        "--no-pager",
        "--output=cat",
        "--lines=5",
        "_SYSTEMD_UNIT=banger-vm-0.scope",
        "_UID=1879015424",
        "_SYSTEMD_INVOCATION_ID=abababababababababababababababab",
    ];
    assert_eq!(text, expected);

    // Followed, it ends with its reader, or when the caller leaves the bus.
    for leaves in [false, true] {
        let caller = rig.alice().await;
        let (text, log) = lines_until(open(&caller, true).await.unwrap(), expected[6]).await;
        assert!(text.contains(&"--follow".to_owned()), "{text:?}");
        let readers = rig.log_readers();
        assert_eq!(readers.len(), 1);
        if leaves {
            caller.inner().connection().clone().close().await.unwrap();
        } else {
            drop(log);
        }
        for reader in readers {
            within(reader.exited()).await.unwrap();
        }
    }
    // No more of one user at once than there may be.
    let mut logs = Vec::new();
    let refusal = loop {
        match open(&alice, true).await {
            Ok(log) => logs.push(log),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((kind(&refusal), logs.len()), ("LimitExceeded", 16));
}
