//! A user's directories, and the program in them.

use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use tempfile::TempDir;

use crate::fake::Fake;

/// A home of its own, and a daemon that pretends.
pub(crate) struct Host {
    dir: TempDir,
    pub(crate) fake: Fake,
}

impl Host {
    /// With a daemon that listens.
    pub(crate) fn new() -> Self {
        let host = Self::without_daemon();
        let runtime = host.dir.path().join("run/banger");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&runtime)
            .unwrap();
        let listener = UnixListener::bind(runtime.join("bangerd.sock")).unwrap();
        host.fake.listen(listener);
        host
    }

    /// Nothing runs.
    pub(crate) fn without_daemon() -> Self {
        let dir = tempfile::tempdir().unwrap();
        DirBuilder::new()
            .mode(0o700)
            .create(dir.path().join("run"))
            .unwrap();
        Self {
            dir,
            fake: Fake::default(),
        }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// `banger` with arguments, and nothing of the test's own environment but PATH.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
            .env("BANGERD", "/nonexistent/bangerd")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }
}

/// What a run has said and given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The document on standard output.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Reads standard error until a line has `word`.
pub(crate) fn wait_for(err: &mut BufReader<ChildStderr>, word: &str) -> String {
    let mut text = String::new();
    loop {
        let before = text.len();
        assert!(err.read_line(&mut text).unwrap() > 0, "no {word:?} in {text:?}");
        if text[before..].contains(word) {
            return text;
        }
    }
}

/// Sends a signal to the program.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// Everything that is left in a pipe.
pub(crate) fn rest(mut reader: impl Read) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

/// A file for reading that holds `bytes`.
pub(crate) fn input(host: &Host, bytes: &[u8]) -> File {
    let path = host.path("input");
    std::fs::write(&path, bytes).unwrap();
    File::open(path).unwrap()
}
