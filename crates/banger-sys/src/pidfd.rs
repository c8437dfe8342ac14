//! Processes by descriptor: a pid can be reused, a pidfd cannot.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// How long the parent of a process that is not ours may take to reap it, before its exit
/// status counts as unknown.
const REAP_LIMIT: Duration = Duration::from_millis(300);

/// One process, whatever becomes of its number.
#[derive(Debug)]
pub struct Pidfd {
    fd: OwnedFd,
    pid: u32,
}

/// A process as it can be written down: the number alone is reused, and the start time alone
/// means nothing after a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// In clock ticks since boot: field 22 of proc_pid_stat(5).
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It was not our child, and the kernel is older than 6.15 or nobody reaped it.
    Unknown,
}

impl Pidfd {
    /// Opens the process that has this number now.
    ///
    /// # Errors
    /// ESRCH when there is none; EMFILE when this process has too many files.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = to_pid(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = pidfd_open(number, PidfdFlags::empty())?;
        Ok(Self { fd, pid })
    }

    /// Opens exactly the process that was written down; `None` when it is gone, though
    /// another may have its number.
    ///
    /// # Errors
    /// When /proc cannot be read or this process has too many files.
    pub fn open_checked(identity: &ProcessIdentity) -> io::Result<Option<Self>> {
        let pidfd = match Self::open(identity.pid) {
            Ok(pidfd) => pidfd,
            Err(e) if is_gone(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        // In this order: what /proc says after the open is about the opened process or a later one.
        match ProcessIdentity::of(identity.pid) {
            Ok(now) if now == *identity => Ok(Some(pidfd)),
            Ok(_) => Ok(None),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes a pidfd that somebody else opened.
    ///
    /// # Errors
    /// When it is none, or its process has ended or is of another pid namespace.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        match pid_of(&info) {
            Some(pid) => Ok(Self { fd, pid }),
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process runs; one that ended and was not reaped does not.
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let now = rustix::time::Timespec::default();
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// ESRCH when the process has ended and was reaped; EPERM when it belongs to another user.
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.fd, signal)?)
    }

    /// Waits for the end of the process, reaps it where it is our child, and says how it
    /// ended. May be called again, and by several tasks. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be watched.
    pub async fn exited(&self) -> io::Result<Exit> {
        // A copy, because one descriptor can be watched once only.
        let fd = register(self.fd.try_clone()?)?;
        let mut guard = fd.readable().await?;
        if let Some(exit) = self.reap()? {
            return Ok(exit);
        }
        // Not our child, or reaped before: the kernel tells after its parent has reaped it,
        // and says so by a hang-up.
        let reaped = async {
            while !guard.ready().is_read_closed() {
                guard.clear_ready();
                guard = fd.readable().await?;
            }
            io::Result::Ok(())
        };
        match tokio::time::timeout(REAP_LIMIT, reaped).await {
            Ok(Ok(())) => Ok(exit_info(self.fd.as_fd()).unwrap_or(Exit::Unknown)),
            Ok(Err(e)) => Err(e),
            Err(_) => Ok(exit_info(self.fd.as_fd()).unwrap_or(Exit::Unknown)),
        }
    }

    /// `None` when it is not a child of ours to be reaped.
    fn reap(&self) -> io::Result<Option<Exit>> {
        let id = WaitId::PidFd(self.fd.as_fd());
        match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => Ok(Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            })),
            Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ProcessIdentity {
    /// Who has this number now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = start_time(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            pid,
            start_time,
            boot_id: boot_id.trim_end().to_owned(),
        })
    }
}

/// Watches a descriptor for reading. Needs a tokio runtime.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register_for(fd, tokio::io::Interest::READABLE)
}

/// Watches a descriptor. Needs a tokio runtime.
pub(crate) fn register_for(fd: OwnedFd, interest: tokio::io::Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, always gives the same number, and stays in the AsyncFd until
    // both go: nothing in this crate swaps it through get_mut().
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(|e| e.into_parts().1)
}

fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The field of a pidfd in proc_pid_fdinfo(5): -1 after the end, 0 for another pid namespace.
fn pid_of(info: &str) -> Option<u32> {
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|pid| *pid != 0)
}

fn is_gone(e: &io::Error) -> bool {
    // /proc/PID/stat gives ENOENT without the process, ESRCH when it goes between open and read.
    matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

/// Field 22; the name in field 2 may hold spaces and parentheses.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

/// `struct pidfd_info` of linux/pidfd.h in its first form of 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    /// pid, tgid, ppid, and the real, effective, saved and file-system ids.
    ids: [u32; 11],
    exit_code: i32,
}

/// `_IOWR(0xFF, 11, struct pidfd_info)`: Linux 6.13.
const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B;
/// Linux 6.15.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// What the kernel kept of a reaped process for its pidfds.
fn exit_info(fd: BorrowedFd<'_>) -> Option<Exit> {
    const { assert!(size_of::<PidfdInfo>() == 64) };
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request carries the structure's size, 64, and the kernel writes no more than
    // that into it; every bit pattern is a valid value of its integers.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result != 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    // The form of wait(2)'s status.
    Some(match info.exit_code & 0x7f {
        0 => Exit::Code((info.exit_code >> 8) & 0xff),
        signal => Exit::Signal(signal),
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sleeper() -> std::process::Child {
        // Ends with its standard input, or by a signal.
        Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_child_is_reaped_and_its_end_told() {
        let mut child = sleeper();
        let pidfd = Pidfd::open(child.id()).unwrap();
        assert!(pidfd.is_alive());
        drop(child.stdin.take());
        assert_eq!(pidfd.exited().await.unwrap(), Exit::Code(0));
        assert!(!pidfd.is_alive());
        assert!(child.wait().is_err(), "reaped by exited()");

        let mut child = sleeper();
        let pidfd = Pidfd::open(child.id()).unwrap();
        pidfd.send_signal(Signal::KILL).unwrap();
        assert_eq!(pidfd.exited().await.unwrap(), Exit::Signal(9));
        assert!(child.wait().is_err());
        // Afterwards only the kernel may still know.
        assert!([Exit::Signal(9), Exit::Unknown].contains(&pidfd.exited().await.unwrap()));
        assert!(pidfd.send_signal(Signal::KILL).is_err());
    }

    #[tokio::test]
    async fn the_end_of_anothers_child_is_seen() {
        // The shell is the parent: it prints the number, waits, and so reaps. The input goes by
        // another number, because a shell gives /dev/null to what runs in its background.
        let mut shell = Command::new("/bin/sh")
            .args([
                "-c",
                "exec 3<&0; cat <&3 & echo $!; exec <&- 3<&-; wait $!; echo done; exit 0",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(shell.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let pidfd = Pidfd::open(line.trim().parse().unwrap()).unwrap();
        pidfd.send_signal(Signal::TERM).unwrap();
        let exit = pidfd.exited().await.unwrap();
        assert!([Exit::Signal(15), Exit::Unknown].contains(&exit), "{exit:?}");
        shell.wait().unwrap();
    }

    #[test]
    fn only_the_same_process_is_opened_again() {
        let mut child = sleeper();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        assert!(Pidfd::open_checked(&identity).unwrap().is_some());
        let mut other = identity.clone();
        other.start_time += 1;
        assert!(Pidfd::open_checked(&other).unwrap().is_none());
        let mut other = identity.clone();
        other.boot_id = "00000000-0000-0000-0000-000000000000".into();
        assert!(Pidfd::open_checked(&other).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Pidfd::open_checked(&identity).unwrap().is_none());
        assert!(Pidfd::open(0).is_err());
        assert!(Pidfd::open(u32::MAX).is_err());
    }

    #[test]
    fn a_pidfd_says_whose_it_is() {
        let mut child = sleeper();
        let pidfd = Pidfd::open(child.id()).unwrap();
        let copy = Pidfd::from_fd(pidfd.fd.try_clone().unwrap()).unwrap();
        assert_eq!(copy.pid(), child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Pidfd::from_fd(copy.fd).is_err());
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(Pidfd::from_fd(file.into()).is_err());
        for info in ["", "Pid:\t-1\n", "Pid:\t0\n", "pos:\t7\n", "NSpid:\t7\n"] {
            assert_eq!(pid_of(info), None, "{info:?}");
        }
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 8192 0";
        assert_eq!(start_time(stat), Some(4711));
        assert_eq!(start_time("7 (x) S 1"), None);
        assert_eq!(start_time(""), None);
    }
}
