//! A real systemd with a user's manager: the host's own programs in namespaces, over a
//! throw-away overlay of its root. Needs root, and a cgroup v2 hierarchy somewhere.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rig::{Out, bin_dir, finished};
use crate::store::{self, Content};

const LIMIT: Duration = Duration::from_secs(240);
const USER: &str = "alice";
const UID: &str = "4242";

/// The machine; it is gone when this is dropped.
#[derive(Debug)]
pub struct Machine {
    /// Holds the directory until everything that uses it is gone.
    _dir: TempDir,
    cgroup: PathBuf,
    init: i32,
    outer: Child,
}

impl Machine {
    /// Boots, installs banger as `make install` does, and makes a user whose manager runs and
    /// who has the bare image. `None` where that cannot be; why was said.
    ///
    /// # Panics
    /// When it should work and does not.
    pub async fn boot() -> Option<Self> {
        let cgroup_base = match usable() {
            Ok(base) => base,
            Err(why) => {
                crate::skipped("systemd", &why);
                return None;
            }
        };
        let content = match store::ready(Content::Bare).await {
            Ok(dir) => dir,
            Err(why) => {
                crate::skipped("systemd", &why);
                return None;
            }
        };
        let machine = Self::start(&cgroup_base, &content).await;
        machine.install().await;
        machine.add_user(&content).await;
        Some(machine)
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
        }
    }

    async fn install(&self) {
        let mut install = self.root("env");
        install
            .args(["PREFIX=/usr", "DESTDIR="])
            .arg(format!("BANGER_BIN_DIR={}", real(&bin_dir()).display()));
        install.arg(real(&workspace()).join("scripts/install"));
        finished(&mut install, LIMIT).await.ok();
    }

    async fn add_user(&self, content: &Path) {
        let script = r#"
            useradd --create-home --uid "$2" "$1"
            home=$(getent passwd "$1" | cut -d: -f6)
            mkdir -p "$home/.local" "$home/.cache"
            cp -a --sparse=always "$3/d" "$home/.local/share"
            cp -a "$3/k/." "$home/.cache/"
            cp --sparse=always "$3/bare.ext4" "$home/"
            # The image is a file of whoever made the store: here it is the user's own.
            sed -i "s|$3/bare.ext4|$home/bare.ext4|" "$home"/.local/share/banger/images/*/*.json
            chown -R "$1:" "$home"
            loginctl enable-linger "$1"
            systemctl start "user@$2.service""#;
        let mut sh = self.root("bash");
        sh.args(["-euc", script, "add-user", USER, UID])
            .arg(real(content));
        finished(&mut sh, LIMIT).await.ok();
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

    /// A program in the machine, as the user with his session bus.
    pub fn user(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.root("setpriv");
        command.args([
            "--reuid",
            UID,
            "--regid",
            UID,
            "--init-groups",
            "env",
            "-C",
            &format!("/home/{USER}"),
        ]);
        command
            .arg(format!("HOME=/home/{USER}"))
            .arg(format!("XDG_RUNTIME_DIR=/run/user/{UID}"));
        command
            .arg(format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{UID}/bus"))
            .arg(program);
        command
    }

    /// Runs a program as the user.
    pub async fn run(&self, words: &[&str]) -> Out {
        finished(self.user(words[0]).args(&words[1..]), LIMIT).await
    }

    /// Runs `banger` as the user.
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
