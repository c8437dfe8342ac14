//! How a session's process starts: in a session of its own, on a terminal or not, as its user.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// What happens in the child between fork and exec.
#[derive(Debug, Clone, Default)]
pub struct ChildSetup {
    /// Make the standard input the controlling terminal.
    pub terminal: bool,
    /// Change to this user; none keeps the caller's.
    pub credentials: Option<Credentials>,
}

/// Makes `command` start in a new session, as `setup` says, with no signal blocked.
pub fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let enter = move || enter(&setup);
    // SAFETY: `enter` makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(enter) };
}

/// Runs in the child: async-signal-safe calls only.
fn enter(setup: &ChildSetup) -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() })?;
    if setup.terminal {
        // SAFETY: TIOCSCTTY takes an integer; descriptor 0 is the terminal.
        check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
    }
    if let Some(user) = &setup.credentials {
        // SAFETY: the pointer and the length are those of one live vector.
        check(unsafe { libc::setgroups(user.groups.len(), user.groups.as_ptr()) })?;
        // SAFETY: integers only.
        check(unsafe { libc::setgid(user.gid) })?;
        // SAFETY: integers only.
        check(unsafe { libc::setuid(user.uid) })?;
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_leads_a_session() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cut -d' ' -f1,6 /proc/$$/stat"]);
        set_up_child(&mut command, ChildSetup::default());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (pid, session) = text.trim().split_once(' ').unwrap();
        assert_eq!(pid, session);
    }
}
