//! The launcher's side of [`crate::launch`]: a fresh process of one thread that becomes the
//! program.

use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::fs::Mode;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::identity;
use crate::landlock::{Enforcement, restrict};
use crate::launch::{
    GO, LAUNCH_FAILED, LaunchSpec, Limits, MAX_DESCRIPTORS, MAX_SPEC_BYTES, MAX_TARGET, Order, Report,
};
use crate::seccomp::restrict_vmm;

/// Where descriptors wait while the numbers of the program are set up: above every target.
const PARKED: RawFd = MAX_TARGET + 1;

/// The whole of the launcher: call it first thing in `main`, before any thread and runtime
/// exists. Returns only when the program was not started; the reason went to the parent and
/// to standard error.
pub fn run_launcher() -> ExitCode {
    let text = match Launch::receive().map_err(|e| e.to_string()) {
        Ok(launch) => launch.run(),
        Err(text) => format!("This command is started by banger's daemons with a socket: {text}"),
    };
    eprintln!("vmm-launch: {text}");
    ExitCode::from(LAUNCH_FAILED)
}

struct Launch {
    socket: OwnedFd,
    order: Order,
    parked: Vec<OwnedFd>,
}

impl Launch {
    fn receive() -> io::Result<Self> {
        let socket = fcntl_dupfd_cloexec(io::stdin(), PARKED)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        let mut data = vec![0; MAX_SPEC_BYTES + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut data)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut parked = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    parked.push(fcntl_dupfd_cloexec(&fd, PARKED)?);
                }
            }
        }
        let order: Order = serde_json::from_slice(&data[..received.bytes])?;
        if order.targets.len() != parked.len() {
            return Err(io::Error::other("Descriptors were lost on the way"));
        }
        Ok(Self {
            socket,
            order,
            parked,
        })
    }

    /// The text says why the program was not started.
    fn run(self) -> String {
        let text = match self.prepare() {
            Ok(enforcement) => match self.pass_barrier(enforcement) {
                Ok(()) => self.execute(),
                Err(e) => format!("The parent ended before it released the program: {e}"),
            },
            Err((what, e)) => format!("Cannot {what}: {e}"),
        };
        self.report(&Report::Failed(text.clone()));
        text
    }

    fn prepare(&self) -> Result<Enforcement, (&'static str, io::Error)> {
        let spec = &self.order.spec;
        self.place_descriptors()
            .map_err(|e| ("place the descriptors", e))?;
        // A session of its own: neither a terminal's signals nor its hang-up reach the program.
        rustix::process::setsid().map_err(|e| ("make a session", e.into()))?;
        rustix::process::umask(Mode::from_raw_mode(umask(spec)));
        rustix::process::set_parent_process_death_signal(None)
            .map_err(|e| ("clear the death signal", e.into()))?;
        std::env::set_current_dir("/").map_err(|e| ("change to /", e))?;
        // Opened before Landlock; only where lowering is asked for can it fail.
        std::fs::write("/proc/self/oom_score_adj", spec.limits.oom_score_adj.to_string())
            .map_err(|e| ("set oom_score_adj", e))?;
        limit(&spec.limits).map_err(|e| ("set the resource limits", e))?;
        rustix::thread::set_no_new_privs(true).map_err(|e| ("set no-new-privileges", e.into()))?;
        self.drop_privilege()?;
        let enforcement =
            restrict(&spec.confinement, |number| self.parked(number)).map_err(|e| ("set up Landlock", e))?;
        if let Some(calls) = &spec.system_calls {
            restrict_vmm(calls).map_err(|e| ("filter the system calls", io::Error::other(e)))?;
        }
        Ok(enforcement)
    }

    fn drop_privilege(&self) -> Result<(), (&'static str, io::Error)> {
        let Some(identity) = &self.order.spec.identity else {
            return drop_capabilities().map_err(|e| ("drop the capabilities", e));
        };
        // While this is root yet: the right to do it goes with the user.
        drop_bounding_set().map_err(|e| ("drop the bounding set", e))?;
        identity::take(identity).map_err(|e| ("become the program's user", e))?;
        drop_capabilities().map_err(|e| ("drop the capabilities", e))?;
        identity::verify(identity).map_err(|e| ("be sure of the program's user", e))
    }

    fn parked(&self, number: RawFd) -> Option<BorrowedFd<'_>> {
        let index = self.order.targets.iter().position(|t| *t == number)?;
        Some(self.parked[index].as_fd())
    }

    fn place_descriptors(&self) -> io::Result<()> {
        let null = parked_null()?;
        for standard in 0..3 {
            if !self.order.targets.contains(&standard) {
                place(null.as_fd(), standard)?;
            }
        }
        for (fd, target) in self.parked.iter().zip(&self.order.targets) {
            place(fd.as_fd(), *target)?;
        }
        // What is not listed goes: below the parked ones now, those with execve(2).
        let mut kept: Vec<RawFd> = self.order.targets.clone();
        kept.extend([0, 1, 2]);
        kept.sort_unstable();
        kept.dedup();
        let mut next = 0;
        for number in kept {
            close_numbers(next, number - 1)?;
            next = number + 1;
        }
        close_numbers(next, PARKED - 1)?;
        close_on_exec_from(PARKED)
    }

    fn pass_barrier(&self, enforcement: Enforcement) -> io::Result<()> {
        self.report(&Report::Ready(enforcement));
        let mut byte = [0; 1];
        let (_, length) = recv(&self.socket, &mut byte[..], RecvFlags::empty())?;
        if byte[..length] == *GO {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn execute(&self) -> String {
        let LaunchSpec {
            program,
            arguments,
            environment,
            ..
        } = &self.order.spec;
        // Also gives the program default signal dispositions and an empty mask.
        let e = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().map(|(k, v)| (k, v)))
            .exec();
        format!("Cannot execute {}: {e}", program.display())
    }

    /// A parent that is gone needs no report.
    fn report(&self, report: &Report) {
        if let Ok(text) = serde_json::to_vec(report) {
            let _ = send(&self.socket, &text, SendFlags::NOSIGNAL);
        }
    }
}

/// Whoever has the program's own uid to itself also has its group; what it makes can then be
/// given to its owner by an access list, whose mask is what the umask leaves of the group's rights.
fn umask(spec: &LaunchSpec) -> u32 {
    if spec.identity.is_some() { 0o007 } else { 0o077 }
}

/// Nothing may own a number below [`PARKED`] when those are closed.
fn parked_null() -> io::Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    Ok(fcntl_dupfd_cloexec(&null, PARKED)?)
}

fn limit(limits: &Limits) -> io::Result<()> {
    for (resource, value) in [
        (Resource::Core, 0),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Nofile, limits.open_files),
    ] {
        let hard = rustix::process::getrlimit(resource).maximum;
        // A lower limit that is already there stays.
        let value = Some(hard.map_or(value, |hard| hard.min(value)));
        setrlimit(
            resource,
            Rlimit {
                current: value,
                maximum: value,
            },
        )?;
    }
    Ok(())
}

/// All of them from all sets; the bounding set only where CAP_SETPCAP allows it, which is
/// where anything is in the others.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    drop_bounding_set()?;
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

fn drop_bounding_set() -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    if !held.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            // The kernel has no more of them. /proc/sys, which has the last one's number, may
            // be hidden.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Gives an open file a number that survives execve(2), whatever had the number before.
fn place(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: dup2(2) touches no memory. Nothing of this process owns a number below PARKED:
    // the standard streams are not used any more, and the received ones were moved.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn close_numbers(first: RawFd, last: RawFd) -> io::Result<()> {
    close_range(first, last, 0)
}

fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    close_range(first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

pub(crate) fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    if last < first {
        return Ok(());
    }
    // SAFETY: touches no memory. What is closed is below PARKED, where nothing of this process
    // owns a number; above, the descriptors stay open until execve(2).
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
