//! A user of its own for one test.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use banger_model::Dirs;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::processes;
use crate::store::{self, Content};

/// The longest that one call of `banger` may take. Guests are often emulated, two at a time.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// A home with XDG directories below a temporary directory, and whatever daemon and guests
/// are started in it. All of it is gone when it is dropped, also after a failure.
#[derive(Debug)]
pub struct Rig {
    dir: TempDir,
    env: Vec<(OsString, OsString)>,
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Out {
    /// The exit status; 128+N after signal N.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// What was run, for messages.
    pub what: String,
}

impl Rig {
    /// A user with `content` in his store. `None` when the content cannot be had here; why
    /// was said.
    pub async fn new(content: Content) -> Option<Self> {
        Self::for_rung("guest", content).await
    }

    /// The same for a test of another rung.
    pub async fn for_rung(rung: &str, content: Content) -> Option<Self> {
        let rig = Self::empty();
        if let Err(why) = store::fill(&rig, content).await {
            crate::skipped(rung, &why);
            return None;
        }
        Some(rig)
    }

    /// A user who has never seen banger.
    ///
    /// # Panics
    /// Without a writable temporary directory.
    pub fn empty() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bng-")
            .tempdir_in(temporary())
            .expect("a temporary directory can be made");
        let at = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("a directory can be made in a new one");
            path.into_os_string()
        };
        let mut path = vec![bin_dir()];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        path.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        let env = vec![
            ("HOME".into(), at("h")),
            ("XDG_CONFIG_HOME".into(), at("c")),
            ("XDG_STATE_HOME".into(), at("s")),
            ("XDG_DATA_HOME".into(), at("d")),
            ("XDG_CACHE_HOME".into(), at("k")),
            ("XDG_RUNTIME_DIR".into(), at("r")),
            (
                "PATH".into(),
                std::env::join_paths(path).expect("directories of PATH can be joined"),
            ),
            ("LANG".into(), "C.UTF-8".into()),
            ("RUST_BACKTRACE".into(), "1".into()),
        ];
        fs::set_permissions(
            dir.path().join("r"),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .expect("the runtime directory can be closed to others");
        Self { dir, env }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where banger keeps this user's files.
    ///
    /// # Panics
    /// Never: the rig sets what it needs.
    pub fn dirs(&self) -> Dirs {
        Dirs::resolve(|key| self.env(key)).expect("the rig sets HOME")
    }

    fn env(&self, key: &str) -> Option<OsString> {
        self.env.iter().rfind(|(k, _)| k == key).map(|(_, v)| v.clone())
    }

    /// Sets a variable for what is run from now on.
    pub fn set(&mut self, key: &str, value: impl Into<OsString>) {
        self.env.push((key.into(), value.into()));
    }

    pub fn unset(&mut self, key: &str) {
        self.env.retain(|(k, _)| k != key);
    }

    /// A program of the host with this user's environment, without standard input.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(self.dir().join("h"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// `banger` with arguments.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.program(bin_dir().join("banger"));
        command.args(args);
        command
    }

    /// Runs `banger` to its end.
    pub async fn banger<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Out {
        finished(&mut self.command(args), LIMIT).await
    }

    /// Runs `banger` with a standard input.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn banger_fed<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Out {
        let mut command = self.command(args);
        let what = format!("{:?}", command.as_std());
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .expect("banger can be started");
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        let feed = async {
            // Who does not read his input to the end closes it: no failure of ours.
            _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let both = async { futures_util::future::join(feed, child.wait_with_output()).await.1 };
        Out::from(what, timeout(2 * LIMIT, both).await)
    }

    /// `banger vm VERB` for a new small VM of an image, with more arguments.
    pub fn new_vm(&self, verb: &str, image: &str, more: &[&str]) -> Command {
        let mut command = self.command(["vm", verb, "--quiet", "--image", image, "--vcpu", "1"]);
        let memory = if [crate::BARE, crate::TOOLS].contains(&image) {
            "256M"
        } else {
            "512M"
        };
        command.args(["--memory", memory]).args(more);
        command
    }

    /// Runs `banger vm run` with a small VM of the bare image.
    pub async fn run_bare(&self, more: &[&str]) -> Out {
        finished(&mut self.new_vm("run", crate::BARE, more), LIMIT).await
    }

    /// Makes and starts a small VM of the bare image, and waits until it is ready.
    pub async fn create_bare(&self, name: &str) -> Out {
        finished(&mut self.new_vm("create", crate::BARE, &[name]), LIMIT)
            .await
            .ok()
    }

    /// Makes and deletes a VM, and ends the daemon: what the first VM of a user makes once and
    /// for all is there from now on, and an audit sees the rest.
    pub async fn warm_up(&self) {
        self.run_bare(&["--rm", "--name", "first", "--", "true"])
            .await
            .ok();
    }

    /// Pulls an image of a registry on the loopback, and what the result line says of it.
    pub async fn pull(&self, reference: &str, more: &[&str]) -> serde_json::Value {
        let out = self.try_pull(reference, more).await.ok();
        let text = out.text();
        let result = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        result.unwrap_or_else(|| panic!("no result in {out}"))
    }

    /// The same where it may fail.
    pub async fn try_pull(&self, reference: &str, more: &[&str]) -> Out {
        let mut command = self.command(["image", "pull", "--insecure", "--json"]);
        finished(command.args(more).arg(reference), 2 * LIMIT).await
    }

    /// What `image show --json` says of an image.
    pub async fn show_image(&self, image: &str) -> serde_json::Value {
        let json = self.banger(["image", "show", "--json", image]).await.ok().json();
        json.get(0).unwrap_or(&json).clone()
    }

    /// The file of an image.
    ///
    /// # Panics
    /// When it has none.
    pub async fn rootfs(&self, image: &str) -> PathBuf {
        let shown = self.show_image(image).await;
        shown["rootfs"].as_str().expect("it has a file").into()
    }

    /// One property of a VM, as text.
    pub async fn property(&self, vm: &str, key: &str) -> String {
        match &self.show(vm).await[key] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// The names that `vm list -a` shows, sorted.
    pub async fn names(&self) -> Vec<String> {
        let text = self.banger(["vm", "list", "-a", "-q"]).await.ok().text();
        let mut names: Vec<_> = text.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The properties of one VM, as `vm show --json` prints them.
    pub async fn show(&self, vm: &str) -> serde_json::Value {
        self.banger(["vm", "show", "--json", vm]).await.ok().json()[0].clone()
    }

    /// The program `bangerd` of this build.
    pub fn daemon_program() -> PathBuf {
        bin_dir().join("bangerd")
    }

    /// The rig's daemon, when one runs.
    pub fn daemon_pid(&self) -> Option<i32> {
        self.pids("bangerd").into_iter().next()
    }

    /// The rig's processes whose program has this name.
    pub fn pids(&self, program: &str) -> Vec<i32> {
        processes::of_rig(self.dir())
            .into_iter()
            .filter(|p| {
                let first = p.command.split(' ').next().unwrap_or_default();
                Path::new(first).file_name().is_some_and(|name| name == program)
            })
            .map(|p| p.pid)
            .collect()
    }

    /// Ends a process at once and waits until it is gone.
    ///
    /// # Panics
    /// When it is not there, or does not end.
    pub async fn kill(&self, pid: i32) {
        let gone = tokio::task::spawn_blocking(move || processes::kill(pid));
        assert!(gone.await.expect("the thread runs"), "process {pid} does not end");
    }

    /// Waits until a running program has ended.
    pub async fn wait(&self, what: &str, child: Child) -> Out {
        Out::from(what.to_owned(), timeout(LIMIT, child.wait_with_output()).await)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            explain(self);
        }
        processes::kill_all(self.dir.path());
        // A tree made in a user namespace, or a mount, is left to whoever looks into it.
    }
}

impl Out {
    fn from(
        what: String,
        ended: Result<std::io::Result<std::process::Output>, tokio::time::error::Elapsed>,
    ) -> Self {
        let output = ended
            .unwrap_or_else(|_| panic!("{what} did not end in time"))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let status = output.status;
        Self {
            status: status.code().or(status.signal().map(|n| 128 + n)).unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            what,
        }
    }

    /// Fails unless the exit status was 0.
    ///
    /// # Panics
    /// With everything the program said.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Fails unless the exit status was this.
    ///
    /// # Panics
    /// With everything the program said.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Fails unless standard error has each of the words.
    ///
    /// # Panics
    /// With everything the program said.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in the output of {self}");
        }
        self
    }

    /// Standard output as text, without the last newline.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error} in the output of {self}"))
    }
}

impl std::fmt::Display for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tail = |text: &str| {
            text.chars()
                .rev()
                .take(6000)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<String>()
        };
        write!(
            f,
            "{}\nstatus {}\n--- stdout\n{}\n--- stderr\n{}",
            self.what,
            self.status,
            tail(&String::from_utf8_lossy(&self.stdout)),
            tail(&self.stderr)
        )
    }
}

/// Runs a program to its end, which must come within the limit.
///
/// # Panics
/// When it cannot be started or does not end in time.
pub async fn finished(command: &mut Command, limit: Duration) -> Out {
    let what = format!("{:?}", command.as_std());
    Out::from(what, timeout(limit, command.output()).await)
}

/// Below what everything temporary is made: short, for the 107 bytes of a socket's path, and on
/// a disk, for images are large.
pub(crate) fn temporary() -> PathBuf {
    std::env::var_os("BANGER_TEST_TMP").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// Where the programs under test are: `BANGER_BIN_DIR`, else the directory above this test.
pub(crate) fn bin_dir() -> PathBuf {
    std::env::var_os("BANGER_BIN_DIR").map_or_else(
        || {
            let own = std::env::current_exe().expect("a test knows its own program");
            own.ancestors()
                .nth(2)
                .expect("a test lies in target/PROFILE/deps")
                .to_owned()
        },
        PathBuf::from,
    )
}

/// After a failure: what the daemon and the guests said.
#[allow(
    clippy::print_stderr,
    reason = "only after a failure, for the person who looks into it"
)]
fn explain(rig: &Rig) {
    for process in processes::of_rig(rig.dir()) {
        eprintln!("running: {} {:.200}", process.pid, process.command);
    }
    let mut todo = vec![rig.dirs().state, rig.dirs().runtime];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "log") || path.ends_with("console") {
                let text = fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text[text.len().saturating_sub(3000)..]).into_owned();
                eprintln!("---- the end of {}\n{text}", path.display());
            }
        }
    }
}
