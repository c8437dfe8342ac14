//! Which processes belong to a rig: those that name its directory in their environment or
//! command line, work in it, or have a file of it open.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process as the audit reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub pid: i32,
    /// The program and its arguments, separated by spaces.
    pub command: String,
}

/// The processes of the rig at `dir`, without this one.
pub(crate) fn of_rig(dir: &Path) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found: Vec<_> = numbered(Path::new("/proc"))
        .filter(|(pid, _)| *pid != own)
        .filter(|(_, proc)| belongs(proc, dir))
        .map(|(pid, proc)| Process {
            pid,
            command: command(&proc),
        })
        .collect();
    found.sort();
    found
}

/// Ends the rig's processes at once and waits until they are gone.
pub(crate) fn kill_all(dir: &Path) {
    // What dies may have been starting another.
    for _ in 0..3 {
        let doomed: Vec<_> = of_rig(dir)
            .into_iter()
            .filter_map(|process| {
                let pidfd = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
                // Look again through the descriptor's process: a number may have been given away.
                let still = belongs(&PathBuf::from(format!("/proc/{}", process.pid)), dir);
                (still && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()).then_some(pidfd)
            })
            .collect();
        if doomed.is_empty() {
            return;
        }
        for pidfd in doomed {
            wait(&pidfd);
        }
    }
}

/// Waits for probes of KVM to end: each has a limit of its own, and outlives a daemon that is
/// killed by as much.
pub(crate) fn wait_for_probes(dir: &Path) {
    for process in of_rig(dir)
        .iter()
        .filter(|process| process.command.ends_with(" kvm-probe"))
    {
        if let Some(Ok(pidfd)) = Pid::from_raw(process.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            wait(&pidfd);
        }
    }
}

/// Waits until a process has ended; false when it is still there after the limit.
pub(crate) fn wait_for(pid: i32) -> bool {
    match Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(pidfd)) => wait(&pidfd),
        _ => true,
    }
}

/// Ends one process; false when it is still there after the limit.
pub(crate) fn kill(pid: i32) -> bool {
    let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return true;
    };
    _ = pidfd_send_signal(&pidfd, Signal::KILL);
    wait(&pidfd)
}

fn wait(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&limit)) == Ok(1)
}

/// The inodes of the sockets that a process has open.
pub(crate) fn sockets(pid: i32) -> Vec<u64> {
    links(&PathBuf::from(format!("/proc/{pid}/fd")))
        .filter_map(|link| {
            link.to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        })
        .collect()
}

fn numbered(dir: &Path) -> impl Iterator<Item = (i32, PathBuf)> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

fn belongs(proc: &Path, dir: &Path) -> bool {
    let name = dir.as_os_str().as_encoded_bytes();
    let mentions = |file: &str| {
        fs::read(proc.join(file)).is_ok_and(|text| text.windows(name.len()).any(|part| part == name))
    };
    // A dead process that waits for its parent has neither; it is not ours to judge.
    mentions("environ")
        || mentions("cmdline")
        || fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
        || links(&proc.join("fd")).any(|target| target.starts_with(dir))
}

fn links(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
}

fn command(proc: &Path) -> String {
    let text = fs::read(proc.join("cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.trim_end_matches('\0').replace('\0', " ")
}
