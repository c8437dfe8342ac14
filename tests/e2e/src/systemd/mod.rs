//! A real systemd with dbus, polkit, logind, journald and users: the host's own programs in
//! namespaces, over a throw-away overlay of its root. Needs root, and a cgroup v2 hierarchy somewhere.

mod people;
mod resolver;
mod state;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub use people::{ALICE, BOB, NOBODY, Person};
pub use state::State;

use crate::rig::{Out, bin_dir, finished};
use crate::store::{self, Content};

const LIMIT: Duration = Duration::from_secs(240);

/// The machine; it is gone when this is dropped.
#[derive(Debug)]
pub struct Machine {
    /// Holds the directory until everything that uses it is gone.
    _dir: TempDir,
    cgroup: PathBuf,
    init: i32,
    outer: Child,
    /// The processes that sit at seats.
    sessions: Vec<Child>,
}

impl Machine {
    /// Boots, installs banger as `make install PREFIX=/usr` does, and makes alice, whose manager
    /// runs and who has the bare image. `None` where that cannot be; why was said.
    ///
    /// # Panics
    /// When it should work and does not.
    pub async fn boot() -> Option<Self> {
        let content = store_content().await?;
        let machine = Self::bare(&content).await?;
        machine.install("/usr").await;
        machine.add(ALICE, &content).await;
        Some(machine)
    }

    /// Boots with polkit and resolved, and with nothing of banger's installed. alice sits at the
    /// machine, in an active session; bob is known to it and nowhere logged in. Both have the bare
    /// image. `None` where that cannot be; why was said.
    ///
    /// # Panics
    /// When it should work and does not.
    pub async fn boot_for_system_mode() -> Option<Self> {
        for program in ["nft", "ip", "pkcheck"] {
            if !crate::has_program(program) {
                crate::skipped("systemd", &format!("no {program} here"));
                return None;
            }
        }
        let content = store_content().await?;
        let mut machine = Self::bare(&content).await?;
        machine.resolver().await;
        machine.add(ALICE, &content).await;
        machine.add(BOB, &content).await;
        machine.sit_down(ALICE).await;
        Some(machine)
    }

    async fn bare(content: &Path) -> Option<Self> {
        match usable() {
            Ok(base) => Some(Self::start(&base, content).await),
            Err(why) => {
                crate::skipped("systemd", &why);
                None
            }
        }
    }

    async fn start(cgroup_base: &Path, content: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bngs-")
            .tempdir_in("/var/tmp")
            .expect("a temporary directory");
        for name in ["mnt", "notify"] {
            fs::create_dir(dir.path().join(name)).expect("a directory in a new one");
        }
        let cgroup = cgroup_base.join(dir.path().file_name().expect("it has a name"));
        fs::create_dir(&cgroup).expect("a cgroup can be made");
        let socket = UnixDatagram::bind(dir.path().join("notify/socket")).expect("a socket can be made");
        let boot = workspace().join("tests/rig/systemd/boot");
        // The shell enters the cgroup first, so that it becomes the root of the new namespace.
        let script = r#"echo $$ > "$1/cgroup.procs"; shift
            exec unshare --fork --kill-child --pid --mount --uts --ipc --net --cgroup "$@""#;
        let log = fs::File::create(dir.path().join("log")).expect("a file in a new directory");
        let mut command = Command::new("bash");
        command.args(["-euc", script, "boot"]).arg(&cgroup).arg(&boot);
        command.arg(dir.path().join("mnt")).arg(dir.path().join("notify"));
        command
            .args([&bin_dir(), content, &workspace()].map(|path| path.canonicalize().expect("it is there")));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let mut outer = command
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .expect("bash can be started");
        let told = tokio::select! {
            told = ready(&socket) => told,
            status = outer.wait() => panic!("the machine did not boot ({status:?}):\n{}", tail(dir.path())),
        };
        assert!(told, "systemd did not come up:\n{}", tail(dir.path()));
        let pid = outer.id().expect("it runs");
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it has a child");
        let init = children.trim().parse().expect("unshare has one child");
        Self {
            _dir: dir,
            cgroup,
            init,
            outer,
            sessions: Vec::new(),
        }
    }

    /// Installs as `make install` does.
    ///
    /// # Panics
    /// When it fails.
    pub async fn install(&self, prefix: &str) {
        self.make_script("install", prefix).await.ok();
    }

    /// Takes that back.
    pub async fn uninstall(&self, prefix: &str) -> Out {
        self.make_script("uninstall", prefix).await
    }

    async fn make_script(&self, name: &str, prefix: &str) -> Out {
        let mut script = self.root("env");
        script
            .args([&format!("PREFIX={prefix}"), "DESTDIR="])
            .arg(format!("BANGER_BIN_DIR={}", self.build().display()))
            .arg(real(&workspace()).join("scripts").join(name));
        finished(&mut script, LIMIT).await
    }

    /// The directory of the programs under test, as they lie after a build.
    pub fn build(&self) -> PathBuf {
        real(&bin_dir())
    }

    /// A process id of the machine as the host's.
    pub fn host_pid(&self, pid: u32) -> Option<u32> {
        // The last number of NSpid is the one in the innermost namespace.
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.init)).ok()?;
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let host: u32 = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
            let same = line.split_whitespace().last()?.parse() == Ok(pid)
                && fs::read_link(entry.path().join("ns/pid")).ok()? == own;
            same.then_some(host)
        })
    }

    /// Runs a script of bash as root.
    pub async fn sh(&self, script: &str) -> Out {
        finished(self.root("bash").args(["-euc", script]), LIMIT).await
    }

    /// A program in the machine, as root.
    pub fn root(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.init.to_string(),
            "-p",
            "-m",
            "-C",
            "-u",
            "-i",
            "-n",
            "-r",
            "-w",
        ]);
        command.args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
            "TERM=dumb",
        ]);
        command
            .arg(program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A program in the machine, as alice with her session bus.
    pub fn user(&self, program: impl AsRef<OsStr>) -> Command {
        self.person(ALICE, program)
    }

    /// Runs a program as alice.
    pub async fn run(&self, words: &[&str]) -> Out {
        finished(self.user(words[0]).args(&words[1..]), LIMIT).await
    }

    /// Runs `banger` as alice.
    pub async fn banger(&self, words: &[&str]) -> Out {
        finished(self.user("banger").args(words), LIMIT).await
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its first process the whole namespace ends, and with it every mount.
        crate::processes::kill(self.init);
        if let Some(pid) = self.outer.id().and_then(|pid| pid.try_into().ok()) {
            crate::processes::kill(pid);
        }
        let mut groups = vec![self.cgroup.clone()];
        let mut at = 0;
        while let Some(group) = groups.get(at).cloned() {
            let below = fs::read_dir(group).into_iter().flatten().flatten();
            groups.extend(
                below
                    .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|e| e.path()),
            );
            at += 1;
        }
        for group in groups.iter().rev() {
            _ = fs::remove_dir(group);
        }
    }
}

/// Where the bare image is; `None` where it cannot be had, and why was said.
async fn store_content() -> Option<PathBuf> {
    match store::ready(Content::Bare).await {
        Ok(dir) => Some(dir),
        Err(why) => {
            crate::skipped("systemd", &why);
            None
        }
    }
}

/// The directory in which a cgroup can be made, or why there is no machine here.
fn usable() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("a machine of its own needs root".to_owned());
    }
    for program in ["unshare", "nsenter", "setpriv", "systemctl", "dbus-daemon"] {
        if !crate::has_program(program) {
            return Err(format!("no {program} here"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    });
    let base = found.ok_or("no cgroup v2 hierarchy is mounted here")?;
    let probe = base.join(format!("banger-probe-{}", std::process::id()));
    fs::create_dir(&probe).map_err(|e| format!("no cgroup can be made below {}: {e}", base.display()))?;
    _ = fs::remove_dir(probe);
    Ok(base)
}

/// sd_notify(3): PID 1 says `READY=1` when its first transaction is done.
async fn ready(socket: &UnixDatagram) -> bool {
    let waiting = async {
        let mut buffer = [0; 4096];
        while let Ok(read) = socket.recv(&mut buffer).await {
            if String::from_utf8_lossy(&buffer[..read])
                .lines()
                .any(|line| line == "READY=1")
            {
                return true;
            }
        }
        false
    };
    timeout(Duration::from_secs(90), waiting).await.unwrap_or(false)
}

fn tail(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("log")).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
