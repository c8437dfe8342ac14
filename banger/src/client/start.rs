//! Starts the daemon. The one who holds the start lock makes the socket and hands it over, so
//! everybody can connect before the daemon has come up: the kernel keeps them in the queue.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use banger_model::Dirs;
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{FlockOperation, flock};
use tokio::process::Child;
use zbus::Connection;

use super::connect::{Transport, check_directory, greet, open_socket};
use crate::error::{Error, Result};

/// The daemon's descriptor for its socket, as in sd_listen_fds(3).
const LISTEN_FD: i32 = 3;
/// How long a daemon that has closed its socket may take to end.
const END: Duration = Duration::from_secs(5);
/// Daemons that may leave while we greet them.
const MOST_LEFT: u32 = 2;
/// How much of the daemon's log an error repeats, in bytes.
const TAIL: u64 = 2000;

/// The daemon that the user names.
pub(super) fn named_daemon() -> Option<PathBuf> {
    let named = PathBuf::from(env::var_os("BANGERD").filter(|name| !name.is_empty())?);
    // The daemon starts in another directory; a bare word is looked for on PATH.
    if named.components().count() > 1 {
        std::path::absolute(named).ok()
    } else {
        Some(named)
    }
}

/// Where the daemon's program is: named, in the build directory or the prefix that we are in,
/// or on PATH.
pub(crate) fn daemon_program() -> Result<PathBuf> {
    if let Some(named) = named_daemon() {
        return Ok(named);
    }
    let exe = env::current_exe().unwrap_or_default();
    let directory = exe.parent().unwrap_or(Path::new("/usr/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    ["bangerd", "../lib/banger/bangerd"]
        .into_iter()
        .map(|below| directory.join(below))
        .chain(
            env::split_paths(&path)
                .filter(|dir| dir.is_absolute())
                .map(|dir| dir.join("bangerd")),
        )
        .find(|candidate| is_executable(candidate))
        .ok_or(Error::NoDaemonProgram)
}

/// Starts a daemon, unless somebody was quicker, and connects to it.
pub(super) async fn start(dirs: &Dirs) -> Result<(Connection, Transport)> {
    let socket = dirs.socket();
    make_directory(&dirs.runtime)?;
    make_directory(&dirs.state)?;
    let mut left = 0;
    loop {
        let lock = lock(&dirs.start_lock()).await?;
        let Some(stream) = open_socket(&socket)? else {
            return start_locked(dirs, lock).await;
        };
        // Never greet it with the lock: a daemon that comes up or leaves needs it too.
        drop(lock);
        match greet(stream, &socket).await {
            // It left while we greeted it. One that always does is no daemon.
            Err(Error::Bus(_)) if left < MOST_LEFT => left += 1,
            other => return other,
        }
    }
}

async fn start_locked(dirs: &Dirs, lock: File) -> Result<(Connection, Transport)> {
    let socket = dirs.socket();
    let log = dirs.daemon_log();
    let listener = listen(&socket)?;
    let mut child = spawn(listener, &log)?;
    // From here on the socket answers, if only by its queue: others need not wait for us.
    drop(lock);
    let Some(stream) = open_socket(&socket)? else {
        return Err(died(child, &log).await);
    };
    tokio::select! {
        // An answer counts more than an end: the daemon may have handed over to another.
        biased;
        connected = greet(stream, &socket) => match connected {
            Err(Error::Bus(_)) => Err(died(child, &log).await),
            other => other,
        },
        status = child.wait() => Err(died_with(status.ok(), &log)),
    }
}

/// What the daemon said last on its standard error.
pub(crate) fn log_tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines.len().saturating_sub(3);
    lines[last..].join("; ")
}

fn make_directory(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| Error::io(format!("Cannot make the directory {directory:?}"), e))?;
    check_directory(directory)
}

async fn lock(path: &Path) -> Result<File> {
    let refused = |e| Error::io(format!("Cannot lock {path:?}"), e);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(refused)?;
    // A thread waits, so that Ctrl-C and the runtime go on.
    let waiting = tokio::task::spawn_blocking(move || {
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    });
    waiting
        .await
        .map_err(|e| refused(io::Error::other(e)))?
        .map_err(refused)
}

fn listen(socket: &Path) -> Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io(format!("Cannot remove the dead socket {socket:?}"), e));
        }
        _ => {}
    }
    // Nobody else can reach it between the two steps: its directory is ours.
    UnixListener::bind(socket)
        .and_then(|listener| fs::set_permissions(socket, Permissions::from_mode(0o600)).map(|()| listener))
        .map_err(|e| Error::io(format!("Cannot listen on {socket:?}"), e))
}

fn spawn(listener: UnixListener, log: &Path) -> Result<Child> {
    let program = daemon_program()?;
    // A new daemon begins a new log. One that is just leaving may still have it open: what both
    // say is appended.
    let log_file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .and_then(|file| file.set_len(0).map(|()| file))
        .map_err(|e| Error::io(format!("Cannot write {log:?}"), e))?;
    let mut command = Command::new(&program);
    command
        .current_dir("/")
        .env("LISTEN_FDS", "1")
        // The daemon's pid is not known beforehand, so LISTEN_PID cannot be told.
        .env("BANGER_LISTEN", "1")
        .env_remove("LISTEN_PID")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // It leaves our session by itself, first thing: only a process that leads no group can.
        .stderr(log_file)
        .fd_mappings(vec![FdMapping {
            parent_fd: OwnedFd::from(listener),
            child_fd: LISTEN_FD,
        }])
        .expect("one mapping cannot collide");
    tokio::process::Command::from(command)
        .spawn()
        .map_err(|e| Error::io(format!("Cannot start {program:?}"), e))
}

/// The daemon has closed the socket without an answer, so its end is near.
async fn died(mut child: Child, log: &Path) -> Error {
    let status = tokio::time::timeout(END, child.wait()).await;
    died_with(status.ok().and_then(io::Result::ok), log)
}

fn died_with(status: Option<ExitStatus>, log: &Path) -> Error {
    let said = log_tail(log);
    let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
    let words = if said.is_empty() {
        status
    } else {
        format!("{status}: {said}")
    };
    Error::DaemonDied {
        words,
        log: log.to_owned(),
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_tail_is_the_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(log_tail(&log), "");
        fs::write(&log, "one\ntwo\n\nthree\nfour\n").unwrap();
        assert_eq!(log_tail(&log), "two; three; four");
        // Far more than could be read as a whole: a hole, and words at its end.
        let mut file = File::create(&log).unwrap();
        file.set_len(1 << 40).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"\nlast\n").unwrap();
        assert!(log_tail(&log).ends_with("; last"));
    }

    #[test]
    fn a_dead_socket_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        drop(listen(&socket).unwrap());
        let _listener = listen(&socket).unwrap();
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(open_socket(&socket).unwrap().is_some());
    }
}
