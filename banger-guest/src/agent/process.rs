//! Starting a session's process.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use banger_sys::guest::{ChildSetup, Credentials, set_up_child};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};
use tokio::process::Child;

use super::command::{self, Program, Workdir};
use super::terminal::{self, Terminal, Wanted};
use crate::users::User;

/// Everything that decides how the process starts.
pub(super) struct Launch<'a> {
    pub(super) program: &'a Program,
    pub(super) user: &'a User,
    pub(super) workdir: Workdir<'a>,
    /// Whether a shell is that of a login.
    pub(super) login: bool,
    /// In the order of their weight: later ones replace earlier ones.
    pub(super) env: Vec<(&'a str, &'a str)>,
    pub(super) terminal: Option<&'a Wanted>,
}

/// A process, and its terminal if it has one.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) terminal: Option<Arc<Terminal>>,
    pub(super) group: Group,
}

/// Why there is no process: what the client reads, and the exit status.
pub(super) struct NotStarted {
    pub(super) status: u32,
    pub(super) message: String,
}

/// The process group of a session, for as long as it can be signalled without hitting another.
#[derive(Clone)]
pub(super) struct Group {
    leader: Option<Pid>,
    reaped: Arc<AtomicBool>,
}

impl Group {
    pub(super) fn signal(&self, signal: Signal) {
        let Some(leader) = self.leader else { return };
        // The number of a group that has members is given to nobody: where a process has it
        // again, the group is another one.
        if self.reaped.load(Ordering::Relaxed) && test_kill_process(leader) != Err(Errno::SRCH) {
            return;
        }
        // It may have ended just now.
        let _ = kill_process_group(leader, signal);
    }

    /// The leader has been waited for: its number may belong to another soon. What it left
    /// running in its group can still be signalled.
    pub(super) fn set_reaped(&self) {
        self.reaped.store(true, Ordering::Relaxed);
    }
}

/// Starts the process in a session of its own.
pub(super) fn launch(launch: &Launch<'_>) -> Result<Started, NotStarted> {
    let prepared = command::prepare(launch.program, launch.user, launch.workdir, launch.login);
    let mut command = prepared.map_err(|refused| NotStarted {
        status: refused.status(),
        message: refused.to_string(),
    })?;
    let name = command.get_program().to_string_lossy().into_owned();
    for (name, value) in &launch.env {
        command.env(name, value);
    }
    let failed = |error: io::Error| NotStarted {
        status: command::status_of(&error),
        message: format!("{name}: {error}"),
    };

    let terminal = match launch.terminal {
        Some(wanted) => {
            let (terminal, slave) = terminal::open(wanted, launch.user).map_err(&failed)?;
            command.env("TERM", &wanted.term).env("SSH_TTY", &slave.name);
            command.stdin(slave.file.try_clone().map_err(&failed)?);
            command.stdout(slave.file.try_clone().map_err(&failed)?);
            command.stderr(slave.file);
            Some(Arc::new(terminal))
        }
        None => {
            command.stdin(Stdio::piped());
            command.stdout(Stdio::piped());
            command.stderr(Stdio::piped());
            None
        }
    };
    let setup = ChildSetup {
        terminal: terminal.is_some(),
        credentials: (!is_agents(&launch.user.credentials)).then(|| launch.user.credentials.clone()),
    };
    set_up_child(&mut command, setup);
    let child = tokio::process::Command::from(command).spawn().map_err(&failed)?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    Ok(Started {
        child,
        terminal,
        group: Group {
            leader,
            reaped: Arc::new(AtomicBool::new(false)),
        },
    })
}

/// Whether they are what the agent has already.
fn is_agents(credentials: &Credentials) -> bool {
    credentials.uid == 0 && credentials.gid == 0 && credentials.groups == [0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &Program) -> Result<Started, NotStarted> {
        let mut user = crate::users::find("root").unwrap();
        // So that nobody needs to be root to run this.
        user.credentials.groups = vec![0];
        launch(&Launch {
            program,
            user: &user,
            workdir: Workdir::Existing("/"),
            login: true,
            env: vec![("X", "1"), ("X", "2")],
            terminal: None,
        })
    }

    #[tokio::test]
    async fn the_environment_and_the_streams_are_the_sessions_own() {
        let program = Program::Command(b"echo $X; echo err >&2; exit 3".to_vec());
        let Ok(started) = start(&program) else {
            panic!("a shell starts");
        };
        let output = started.child.wait_with_output().await.unwrap();
        assert_eq!(output.stdout, b"2\n");
        assert_eq!(output.stderr, b"err\n");
        assert_eq!(output.status.code(), Some(3));
    }

    #[tokio::test]
    async fn a_group_is_signalled_after_its_leader_and_another_with_its_number_is_not() {
        let program = Program::Command(b"sleep 1000 & exit 0".to_vec());
        let Ok(mut started) = start(&program) else {
            panic!("a shell starts");
        };
        assert!(started.child.wait().await.unwrap().success());
        started.group.set_reaped();
        started.group.signal(Signal::KILL);
        // Held by what the shell left behind.
        let output = started.child.wait_with_output().await.unwrap();
        assert!(output.stdout.is_empty());

        let Ok(mut other) = start(&Program::Command(b"read line".to_vec())) else {
            panic!("a shell starts");
        };
        other.group.set_reaped();
        other.group.signal(Signal::KILL);
        // It is alive, and ends by itself.
        drop(other.child.stdin.take());
        assert!(other.child.wait().await.unwrap().code().is_some());
    }

    #[tokio::test]
    async fn a_signal_reaches_the_whole_group_and_none_after_it() {
        let program = Program::Command(b"cat | cat; true".to_vec());
        let Ok(mut started) = start(&program) else {
            panic!("a shell starts");
        };
        started.group.signal(Signal::KILL);
        let status = started.child.wait().await.unwrap();
        started.group.set_reaped();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        started.group.signal(Signal::KILL);
    }
}
