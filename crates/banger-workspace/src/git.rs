//! Running git so that nothing of a repository decides what runs: no configuration but ours, no
//! environment but ours, confined by Landlock, bounded in time and output.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use banger_sys::landlock::{Confinement, FileAccess, FileRule, restrict_self};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::Cancel;
use crate::error::{Error, Result};

/// Where a system keeps its programs. `PATH` is not asked: it may name places anybody writes to.
const PROGRAMS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/bin", "/run/current-system/sw/bin"];
/// What git may execute and load.
const EXECUTABLE: [&str; 6] = ["/usr", "/bin", "/lib", "/lib64", "/nix/store", "/gnu/store"];
/// Every option that could make git run or fetch something, switched off. There is no
/// configuration that could switch it on, either: two locks on one door.
const SETTINGS: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.pager=cat",
    "core.sshCommand=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "submodule.recurse=false",
];
const TIME_LIMIT: Duration = Duration::from_secs(600);
const OUTPUT_LIMIT: usize = 256 << 20;
/// What is kept of standard error.
const ERROR_TEXT: usize = 4096;
const PIECE: usize = 64 << 10;

/// The git of this system.
#[derive(Debug, Clone)]
pub struct Git {
    program: PathBuf,
}

/// What a git may reach.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    pub(crate) readable: Vec<PathBuf>,
    pub(crate) writable: Vec<PathBuf>,
}

/// One run of git, not started yet.
#[derive(Debug)]
#[must_use]
pub struct Command<'a> {
    git: &'a Git,
    reach: &'a Reach,
    cancel: &'a Cancel,
    directory: PathBuf,
    settings: Vec<OsString>,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Vec<u8>,
    input_file: Option<std::fs::File>,
    limit: Duration,
    output_limit: usize,
}

/// What a git that ended has said.
#[derive(Debug)]
pub struct Done {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    /// The first kilobytes.
    pub stderr: String,
}

impl Git {
    /// # Errors
    /// [`Error::NoGit`].
    pub fn find() -> Result<Self> {
        let found = PROGRAMS.iter().map(|dir| Path::new(dir).join("git"));
        let program = found.into_iter().find(|path| path.is_file());
        program.map(|program| Self { program }).ok_or(Error::NoGit)
    }

    /// A command in `directory`, which is its home too.
    pub(crate) fn command<'a>(
        &'a self,
        directory: &Path,
        reach: &'a Reach,
        cancel: &'a Cancel,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Command<'a> {
        Command {
            git: self,
            reach,
            cancel,
            directory: directory.to_owned(),
            settings: Vec::new(),
            args: args.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            input: Vec::new(),
            input_file: None,
            limit: TIME_LIMIT,
            output_limit: OUTPUT_LIMIT,
        }
    }
}

impl Command<'_> {
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets one key of the configuration, as `key=value`.
    pub fn config(mut self, setting: impl Into<OsString>) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// Standard input from where a file stands, to its end.
    pub fn input_file(mut self, file: std::fs::File) -> Self {
        self.input_file = Some(file);
        self
    }

    /// Standard input; nothing without it.
    pub fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = bytes;
        self
    }

    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Where it is run.
    pub(crate) fn within(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// How long it may run; ten minutes without it.
    pub fn limit(mut self, time: Duration) -> Self {
        self.limit = time;
        self
    }

    /// How many bytes it may write to its standard output; 256 MiB without it.
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Runs it and returns its output.
    ///
    /// # Errors
    /// Also when its status is not 0.
    pub fn run(self) -> Result<Vec<u8>> {
        let name = self.name();
        let done = self.status()?;
        succeeded(&name, &done)?;
        Ok(done.stdout)
    }

    /// Runs it and leaves it to the caller what its status means.
    ///
    /// # Errors
    /// When it cannot be run, runs too long or writes too much, and when it was cancelled.
    pub fn status(self) -> Result<Done> {
        let mut stdout = Vec::new();
        let mut done = self.pump(&mut |piece| {
            stdout.extend_from_slice(piece);
            Ok(())
        })?;
        done.stdout = stdout;
        Ok(done)
    }

    /// Runs it and gives its output to `sink`, piece by piece, without a limit of its own.
    ///
    /// # Errors
    /// Also the sink's, which ends it, and when its status is not 0.
    pub fn stream(mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.output_limit = usize::MAX;
        let name = self.name();
        let done = self.pump(sink)?;
        succeeded(&name, &done)
    }

    /// For messages: the first words.
    fn name(&self) -> String {
        let first = self.args.first().map(|arg| arg.to_string_lossy());
        first.unwrap_or_default().into_owned()
    }

    fn pump(mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Done> {
        self.cancel.check()?;
        let failed = |source| Error::io("run", &self.git.program)(source);
        let child = self.spawn().map_err(failed)?;
        let mut running = Running::new(child, self.cancel).map_err(failed)?;
        let input = std::mem::take(&mut self.input);
        let mut exchange = Exchange::new(&mut running, input).map_err(failed)?;
        let deadline = Instant::now() + self.limit;
        let mut written = 0_usize;
        while !exchange.is_over() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout {
                    command: self.name(),
                    seconds: self.limit.as_secs(),
                });
            }
            let mut told = Ok(());
            exchange
                .step(left, &mut |piece| {
                    written = written.saturating_add(piece.len());
                    if told.is_ok() {
                        told = sink(piece);
                    }
                })
                .map_err(failed)?;
            self.cancel.check()?;
            told?;
            if written > self.output_limit {
                return Err(Error::TooMuchOutput {
                    command: self.name(),
                    bytes: self.output_limit,
                });
            }
        }
        let stderr = String::from_utf8_lossy(&exchange.stderr).trim().to_owned();
        let status = running.finish().map_err(failed)?;
        self.cancel.check()?;
        Ok(Done {
            code: status.code(),
            stdout: Vec::new(),
            stderr,
        })
    }

    /// A thread of its own is confined and starts the child, which inherits that.
    fn spawn(&mut self) -> io::Result<Child> {
        let mut command = self.prepare();
        let confinement = confinement(self.reach);
        std::thread::scope(|scope| {
            let launcher = std::thread::Builder::new().spawn_scoped(scope, move || {
                restrict_self(&confinement)?;
                command.spawn()
            })?;
            launcher
                .join()
                .map_err(|_| io::Error::other("The launching thread failed"))?
        })
    }

    fn prepare(&mut self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.git.program);
        command.env_clear().envs(environment(&self.directory));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for setting in SETTINGS
            .iter()
            .map(OsStr::new)
            .chain(self.settings.iter().map(OsString::as_os_str))
        {
            command.arg("-c").arg(setting);
        }
        command
            .args(&self.args)
            .current_dir(&self.directory)
            .stdin(self.input_file.take().map_or_else(Stdio::piped, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
    }
}

fn environment(home: &Path) -> Vec<(&'static str, OsString)> {
    let fixed = [
        ("PATH", "/usr/bin:/bin:/usr/local/bin"),
        ("LC_ALL", "C"),
        ("TZ", "UTC"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_NO_REPLACE_OBJECTS", "1"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ALLOW_PROTOCOL", "none"),
        ("GIT_SSH_COMMAND", "false"),
        ("GIT_ASKPASS", "false"),
        ("GIT_EDITOR", "false"),
        ("GIT_PAGER", "cat"),
    ];
    let mut all: Vec<_> = fixed.map(|(name, value)| (name, OsString::from(value))).into();
    all.push(("HOME", home.into()));
    all.push(("TMPDIR", home.into()));
    all
}

fn confinement(reach: &Reach) -> Confinement {
    let rules = |paths: &[PathBuf], access| -> Vec<FileRule> {
        paths.iter().map(|path| FileRule::path(path, access)).collect()
    };
    let mut files: Vec<_> = EXECUTABLE
        .iter()
        .map(|path| FileRule::path(path, FileAccess::ReadExecute))
        .collect();
    // The loader's cache, and the names of users.
    files.push(FileRule::path("/etc", FileAccess::Read));
    files.push(FileRule::path("/dev/null", FileAccess::Write));
    files.push(FileRule::path("/dev/urandom", FileAccess::Read));
    files.extend(rules(&reach.readable, FileAccess::Read));
    files.extend(rules(&reach.writable, FileAccess::Own));
    Confinement {
        files,
        tcp_bind: Some(Vec::new()),
        tcp_connect: Some(Vec::new()),
        scoped: true,
    }
}

fn succeeded(command: &str, done: &Done) -> Result<()> {
    if done.code == Some(0) {
        return Ok(());
    }
    let status = done
        .code
        .map_or("killed".to_owned(), |code| format!("status {code}"));
    Err(Error::Git {
        command: command.to_owned(),
        status,
        text: done.stderr.clone(),
    })
}

/// A child that is a process group of its own and does not outlive this.
struct Running<'a> {
    child: Child,
    group: Pid,
    cancel: &'a Cancel,
    reaped: bool,
}

impl<'a> Running<'a> {
    fn new(child: Child, cancel: &'a Cancel) -> io::Result<Self> {
        let group = Pid::from_child(&child);
        cancel.watch(group);
        Ok(Self {
            child,
            group,
            cancel,
            reaped: false,
        })
    }

    fn finish(&mut self) -> io::Result<ExitStatus> {
        // What it left behind ends too, while its number is still its own.
        _ = kill_process_group(self.group, Signal::KILL);
        self.cancel.forget(self.group);
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.reaped {
            _ = self.finish();
        }
    }
}

/// The three streams of a child and its end.
struct Exchange {
    ended: Option<rustix::fd::OwnedFd>,
    stdin: Option<std::process::ChildStdin>,
    stdout: Option<std::process::ChildStdout>,
    stderr_stream: Option<std::process::ChildStderr>,
    input: Vec<u8>,
    sent: usize,
    stderr: Vec<u8>,
    buffer: Vec<u8>,
}

impl Exchange {
    fn new(running: &mut Running<'_>, input: Vec<u8>) -> io::Result<Self> {
        let child = &mut running.child;
        let this = Self {
            ended: Some(pidfd_open(running.group, PidfdFlags::empty())?),
            stdin: child.stdin.take().filter(|_| !input.is_empty()),
            stdout: child.stdout.take(),
            stderr_stream: child.stderr.take(),
            input,
            sent: 0,
            stderr: Vec::new(),
            buffer: vec![0; PIECE],
        };
        if let Some(stdin) = &this.stdin {
            rustix::io::ioctl_fionbio(stdin, true)?;
        }
        Ok(this)
    }

    fn is_over(&self) -> bool {
        self.ended.is_none() && self.stdout.is_none() && self.stderr_stream.is_none()
    }

    /// Waits until something can be done, and does it.
    fn step(&mut self, limit: Duration, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let [writable, output, error, ended] = self.wait(limit)?;
        if writable {
            self.send()?;
        }
        if output && !read_piece(&mut self.stdout, &mut self.buffer, sink)? {
            self.stdout = None;
        }
        if error {
            let stderr = &mut self.stderr;
            let keep = &mut |piece: &[u8]| {
                let room = ERROR_TEXT.saturating_sub(stderr.len()).min(piece.len());
                stderr.extend_from_slice(&piece[..room]);
            };
            if !read_piece(&mut self.stderr_stream, &mut self.buffer, keep)? {
                self.stderr_stream = None;
            }
        }
        if ended {
            self.ended = None;
            self.stdin = None;
        }
        Ok(())
    }

    fn wait(&self, limit: Duration) -> io::Result<[bool; 4]> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut fds = Vec::with_capacity(4);
        let mut places = [None; 4];
        if let Some(stdin) = &self.stdin {
            places[0] = Some(fds.len());
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        if let Some(stdout) = &self.stdout {
            places[1] = Some(fds.len());
            fds.push(PollFd::new(stdout, PollFlags::IN));
        }
        if let Some(stderr) = &self.stderr_stream {
            places[2] = Some(fds.len());
            fds.push(PollFd::new(stderr, PollFlags::IN));
        }
        if let Some(ended) = &self.ended {
            places[3] = Some(fds.len());
            fds.push(PollFd::new(ended, PollFlags::IN));
        }
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(places.map(|place| place.is_some_and(|place| !fds[place].revents().is_empty())))
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        match stdin.write(&self.input[self.sent..]) {
            Ok(length) => self.sent += length,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // It has its reasons, and says them by its status.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.sent = self.input.len(),
            Err(e) => return Err(e),
        }
        if self.sent == self.input.len() {
            self.stdin = None;
        }
        Ok(())
    }
}

/// Whether there may be more.
fn read_piece(
    stream: &mut Option<impl Read>,
    buffer: &mut [u8],
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<bool> {
    let Some(stream) = stream else {
        return Ok(false);
    };
    let length = stream.read(buffer)?;
    sink(&buffer[..length]);
    Ok(length > 0)
}
