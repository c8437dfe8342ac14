//! Groups of processes that end with what they are for: with the operation, and with this
//! program, however it ends.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::Cancel;

/// Reads to the end of its input, which comes when whoever holds the other end is gone, and
/// then takes the whole group with it.
const GUARD: &str = "read -r line; kill -KILL 0";

/// A child, its descendants, and a guard that leads their group.
#[derive(Debug)]
pub(crate) struct Group {
    cancel: Cancel,
    pub(crate) child: Child,
    guard: Child,
    group: Pid,
    ended: bool,
}

impl Group {
    /// Starts a command in a new group.
    pub(crate) fn start(command: &mut Command, cancel: &Cancel) -> io::Result<Self> {
        let mut guard = Command::new("/bin/sh")
            .args(["-c", GUARD])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&guard);
        match command.process_group(group.as_raw_nonzero().get()).spawn() {
            Ok(child) => {
                cancel.watch(group);
                Ok(Self {
                    cancel: cancel.clone(),
                    child,
                    guard,
                    group,
                    ended: false,
                })
            }
            Err(error) => {
                _ = guard.kill();
                _ = guard.wait();
                Err(error)
            }
        }
    }

    /// Waits for the child, then ends what it left behind.
    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait();
        self.end();
        status
    }

    /// Waits for the child so long at most, then ends what is left, itself included. Nothing
    /// when it did not end by itself.
    pub(crate) fn wait_for(mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let child = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let status = if ready_in(&child, limit)? {
            Some(self.child.wait()?)
        } else {
            None
        };
        self.end();
        Ok(status)
    }

    /// Kills all, and returns when none runs any more: what they wrote to can be removed.
    fn end(&mut self) {
        // The guard is not reaped yet, so the number is still that of this group.
        _ = kill_process_group(self.group, Signal::KILL);
        for member in members(self.group) {
            let mut ready = [PollFd::new(&member, PollFlags::IN)];
            while poll(&mut ready, None) == Err(rustix::io::Errno::INTR) {}
        }
        self.cancel.forget(self.group);
        _ = self.child.wait();
        _ = self.guard.wait();
        self.ended = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}

/// Whether a process is no more, or a socket has something to say, before the time is over.
pub(crate) fn ready_in(file: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// The processes of a group that were just killed: no new ones can appear.
fn members(group: Pid) -> Vec<OwnedFd> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            if running_in(pid)? != group {
                return None;
            }
            pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
        })
        .collect()
}

/// The group of a process that is no zombie (proc(5), stat). The name before the fields may
/// itself have spaces and parentheses.
fn running_in(pid: i32) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    // A process on its way out has group -1, and the kernel's own have 0.
    let group = fields.nth(1)?.parse().ok().filter(|group| *group > 0)?;
    Pid::from_raw(group).filter(|_| !matches!(state, "Z" | "X"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn start(cancel: &Cancel) -> Group {
        // The grandchild keeps the pipe open: its end shows that all of them are gone.
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 1000 & echo up; wait"])
            .stdout(Stdio::piped());
        Group::start(&mut command, cancel).unwrap()
    }

    fn up(group: &mut Group) -> std::process::ChildStdout {
        let mut out = group.child.stdout.take().unwrap();
        out.read_exact(&mut [0; 3]).unwrap();
        out
    }

    #[test]
    fn cancel_kills_all() {
        let cancel = Cancel::new();
        let mut group = start(&cancel);
        let mut out = up(&mut group);
        cancel.cancel();
        assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(!group.wait().unwrap().success());
    }

    #[test]
    fn what_starts_too_late_dies_at_once() {
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(!start(&cancel).wait().unwrap().success());
    }

    #[test]
    fn dropping_ends_all() {
        let mut group = start(&Cancel::new());
        let mut out = up(&mut group);
        let number = group.group;
        drop(group);
        assert!(members(number).is_empty());
        assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn the_guard_ends_all_when_this_program_is_gone() {
        let mut group = start(&Cancel::new());
        let mut out = up(&mut group);
        // What the kernel does when this program ends.
        drop(group.guard.stdin.take());
        assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn a_child_that_ends_by_itself_takes_the_rest_with_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & exit 3"]).stdout(Stdio::piped());
        let mut group = Group::start(&mut command, &Cancel::new()).unwrap();
        let mut out = group.child.stdout.take().unwrap();
        assert_eq!(group.wait().unwrap().code(), Some(3));
        assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn a_child_that_does_not_end_in_time_is_ended() {
        let mut group = start(&Cancel::new());
        let mut out = up(&mut group);
        assert_eq!(group.wait_for(Duration::ZERO).unwrap(), None);
        assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
        let mut command = Command::new("sh");
        let group = Group::start(command.args(["-c", "exit 3"]), &Cancel::new()).unwrap();
        let status = group.wait_for(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
    }
}
