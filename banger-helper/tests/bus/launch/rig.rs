//! A helper that runs, with programs that stand in for an engine and for journalctl.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use banger_bus::HelperProxy;
use banger_bus::helper::{FileRole, HelperError, LaunchOptions, SlotGrant};
use banger_model::Slot;
use banger_sys::file::sealed_memfd;
use banger_sys::pidfd::Pidfd;

use crate::program::Running;
use crate::support::{ALICE, LIMIT, can_run, proxy, within};
/// Stands in for QEMU: the VM's name says what it does.
pub(super) const ENGINE: &str = r#"#!/bin/sh
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
pub(super) const JOURNALCTL: &str = r#"#!/bin/sh
for word in "$@"; do echo "$word"; done
case "$*" in *--follow*) exec sleep 1000;; esac
"#;

pub(super) struct Rig {
    pub(super) running: Running,
    /// Where everybody may execute.
    pub(super) programs: tempfile::TempDir,
    pub(super) files: tempfile::TempDir,
}

/// A launch of Alice's, from outside.
pub(super) struct Started {
    pub(super) process: Pidfd,
    pub(super) console: Option<BufReader<File>>,
    /// Held open for the VMM, which may write to it at any time.
    _log: File,
}

impl Rig {
    /// `None` where it cannot run.
    pub(super) async fn start() -> Option<Self> {
        if !can_run() {
            return None;
        }
        // Not beside the helper: a slot's user may not come through the way to it.
        let programs = tempfile::tempdir_in("/var/tmp").unwrap();
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

    pub(super) async fn restart(&mut self, failing_at: &str) {
        self.restart_with(&self.programs.path().join("engine"), failing_at)
            .await;
    }

    pub(super) async fn restart_with(&mut self, engine: &Path, failing_at: &str) {
        let journalctl = self.programs.path().join("journalctl");
        let environment = [
            ("BANGER_TEST_ENGINE", engine.to_str().unwrap()),
            ("BANGER_TEST_JOURNALCTL", journalctl.to_str().unwrap()),
            ("BANGER_FAIL_POINT", failing_at),
        ];
        self.running.restart_with(&environment).await;
    }

    pub(super) async fn alice(&self) -> HelperProxy<'static> {
        proxy(&self.running.bus.connect(ALICE).await).await
    }

    pub(super) fn file(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.files.path().join(name);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        std::os::unix::fs::chown(&path, Some(ALICE), None).unwrap();
        path
    }

    /// All of Alice's that QEMU takes, and the ends from which console and log are read.
    pub(super) fn parts(&self) -> (HashMap<u8, OwnedFd>, File, File) {
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

    pub(super) async fn launch(
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
            _log: log,
        })
    }

    /// The processes in the helper's network namespace; one that has ended and waits for its
    /// parent is in none.
    pub(super) fn processes(&self) -> Vec<PathBuf> {
        let network = self.running.network();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let paths = entries.map(|entry| entry.path());
        let here = |path: &PathBuf| std::fs::read_link(path.join("ns/net")).is_ok_and(|net| net == network);
        paths.filter(here).collect()
    }

    /// Those with a slot's uid.
    pub(super) fn vmms(&self) -> Vec<Pidfd> {
        let mut vmms = self.processes();
        vmms.retain(|path| {
            path.metadata()
                .is_ok_and(|meta| Slot::of_uid(meta.uid()).is_some())
        });
        vmms.iter().filter_map(|path| open(path)).collect()
    }

    /// Those that read the journal, by their environment.
    pub(super) fn log_readers(&self) -> Vec<Pidfd> {
        let mut readers = self.processes();
        readers.retain(|path| {
            let environment = std::fs::read_to_string(path.join("environ")).unwrap_or_default();
            environment.contains("LC_ALL=C.UTF-8") && !environment.contains("DBUS_SYSTEM")
        });
        readers.iter().filter_map(|path| open(path)).collect()
    }

    /// Nothing of any VMM is left.
    pub(super) async fn nothing_is_left(&self, why: &str) {
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
    pub(super) async fn arguments(&mut self) -> Vec<String> {
        let console = self.console.take().unwrap();
        let (lines, console) = lines_until(console, "started").await;
        self.console = Some(console);
        lines
    }

    pub(super) fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.process.pid().to_string()).join(name)
    }

    pub(super) fn status(&self, field: &str) -> String {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{field}:")));
        let words: Vec<&str> = line.unwrap().split_ascii_whitespace().collect();
        words.join(" ")
    }
}

/// The lines up to this one, or to the end. The bus is served meanwhile.
pub(super) async fn lines_until<R: BufRead + Send + 'static>(
    mut reader: R,
    last: &'static str,
) -> (Vec<String>, R) {
    let reading = tokio::task::spawn_blocking(move || {
        let lines = reader.by_ref().lines().map(Result::unwrap);
        let lines = lines.take_while(|line| line != last).collect();
        (lines, reader)
    });
    within(reading).await.unwrap()
}

/// The process that `/proc/PID` is about.
pub(super) fn open(path: &Path) -> Option<Pidfd> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    Pidfd::open(pid).ok()
}

pub(super) fn of_alice(fd: &OwnedFd) {
    let alice = rustix::process::Uid::from_raw(ALICE);
    rustix::fs::fchown(fd, Some(alice), None).unwrap();
}

pub(super) fn wire(files: &HashMap<u8, OwnedFd>) -> HashMap<u8, zbus::wire::OwnedFd> {
    let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().unwrap().into();
    files.iter().map(|(role, fd)| (*role, copy(fd))).collect()
}

pub(super) fn options(name: &str) -> LaunchOptions {
    LaunchOptions {
        engine: Some(0),
        emulated: Some(true),
        vcpus: Some(2),
        memory_mib: Some(512),
        id: Some((1, 2)),
        name: Some(name.to_owned()),
    }
}

pub(super) fn kind(error: &HelperError) -> &'static str {
    let HelperError::Refused(error) = error else {
        panic!("{error}")
    };
    error.kind.name().rsplit('.').next().unwrap()
}
