//! PID 1 of an image that has no init: it reaps what nobody else does, keeps the agent
//! running, and ends the machine in order.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use banger_sys::guest::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::system::RebootCommand;

use super::failure::{Failure, halt, power_off};
use crate::{console, paths};

/// An agent that ends more often than this without having lived for [`STEADY`] once is given
/// up, and the machine with it: nobody could reach it.
const MAX_RESTARTS: u32 = 5;
const STEADY: Duration = Duration::from_secs(60);
/// How long processes have to end after they were asked to.
const GRACE: Duration = Duration::from_secs(5);

/// What a signal to PID 1 asks for: the conventions of busybox's init and of sysvinit.
fn command_of(signal: i32) -> Option<RebootCommand> {
    let is = |candidate: Signal| candidate.as_raw() == signal;
    if is(Signal::TERM) || is(Signal::INT) {
        Some(RebootCommand::Restart)
    } else if is(Signal::USR1) || is(Signal::USR2) {
        Some(RebootCommand::PowerOff)
    } else {
        None
    }
}

/// Becomes the supervisor, as a program of its own: the initramfs' copy of it is then free.
pub(super) fn execute(agent: Option<u32>) -> io::Result<Infallible> {
    let mut command = Command::new(paths::PROGRAM);
    command.arg("supervise").env_clear();
    if let Some(agent) = agent {
        command.arg(agent.to_string());
    }
    Err(command.exec())
}

/// The life of PID 1. Ends with the machine.
pub(crate) fn supervise() -> ExitCode {
    let agent = std::env::args().nth(2).and_then(|pid| pid.parse().ok());
    let mut supervisor = Supervisor {
        agent,
        started: Instant::now(),
        restarts: 0,
    };
    match supervisor.run() {
        Ok(how) => {
            end_processes();
            halt(how)
        }
        Err(error) => power_off(&Failure {
            stage: "supervisor",
            message: error.to_string(),
        }),
    }
}

struct Supervisor {
    /// The agent's process id.
    agent: Option<i32>,
    started: Instant,
    /// Since an agent last lived for long.
    restarts: u32,
}

impl Supervisor {
    fn run(&mut self) -> io::Result<RebootCommand> {
        mount_cgroups();
        let mut signals = SignalFd::new(&[
            Signal::CHILD.as_raw(),
            Signal::TERM.as_raw(),
            Signal::INT.as_raw(),
            Signal::USR1.as_raw(),
            Signal::USR2.as_raw(),
        ])?;
        // From now on signals are kept; one that came before is written down.
        let wanted = std::fs::read_to_string(paths::END).ok();
        if let Some(how) = wanted.and_then(|signal| command_of(signal.parse().ok()?)) {
            return Ok(how);
        }
        // Ctrl-Alt-Del becomes a signal to this process.
        let _ = rustix::system::reboot(RebootCommand::CadOff);
        loop {
            self.reap();
            if self.agent.is_none() {
                self.restart_agent()?;
            }
            poll(&mut [PollFd::new(&signals, PollFlags::IN)], None)?;
            while let Some(signal) = signals.take()? {
                if let Some(how) = command_of(signal) {
                    return Ok(how);
                }
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            if Some(pid.as_raw_nonzero().get()) == self.agent {
                self.agent = None;
            }
        }
    }

    fn restart_agent(&mut self) -> io::Result<()> {
        if self.started.elapsed() >= STEADY {
            self.restarts = 0;
        }
        if self.restarts == MAX_RESTARTS {
            return Err(io::Error::other(format!(
                "The agent has ended {} times in a row",
                MAX_RESTARTS + 1
            )));
        }
        self.restarts += 1;
        self.started = Instant::now();
        console::say("The agent has ended and is started again");
        let child = super::start_agent()?;
        self.agent = i32::try_from(child.id()).ok();
        Ok(())
    }
}

/// Asks every process to end, waits for them, and ends those that do not.
fn end_processes() {
    let mut signals = SignalFd::new(&[Signal::CHILD.as_raw()]);
    signal_all(Signal::TERM);
    let end = Instant::now() + GRACE;
    if let Ok(signals) = &mut signals {
        while wait_for_child(signals, end) {}
    }
    signal_all(Signal::KILL);
}

/// Reaps; false when nobody is left or the time is over.
fn wait_for_child(signals: &mut SignalFd, end: Instant) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    let rest = end.saturating_duration_since(Instant::now());
    let Ok(limit) = Timespec::try_from(rest) else {
        return false;
    };
    let events = poll(&mut [PollFd::new(&*signals, PollFlags::IN)], Some(&limit));
    while let Ok(Some(_)) = signals.take() {}
    matches!(events, Ok(count) if count > 0)
}

/// Signals everything but this process and the kernel's own threads, which ignore it.
fn signal_all(signal: Signal) {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return;
    };
    for entry in processes.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|&pid| pid > 1).and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Control groups, for what a user may run in such an image. Not having them is no error.
fn mount_cgroups() {
    let place = "/sys/fs/cgroup";
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    let _ = rustix::mount::mount("cgroup2", place, "cgroup2", flags, c"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_mean_what_they_mean_to_busybox() {
        assert!(matches!(
            command_of(Signal::USR2.as_raw()),
            Some(RebootCommand::PowerOff)
        ));
        assert!(matches!(
            command_of(Signal::TERM.as_raw()),
            Some(RebootCommand::Restart)
        ));
        assert!(command_of(Signal::CHILD.as_raw()).is_none());
    }
}
