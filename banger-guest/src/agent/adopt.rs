//! What the image's systemd runs as the agent's service: the agent has been there since before
//! systemd was, and is taken over; where it is gone, a new one is started.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::{console, paths};

/// Moves the running agent into the control group of this process, or starts one there.
pub(crate) fn adopt() -> ExitCode {
    let result = match running_agent() {
        Some(pid) => move_here(pid),
        None => start(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::warn("The agent is not taken over", &error);
            ExitCode::FAILURE
        }
    }
}

/// The process id of the agent, if it is alive and is the agent.
fn running_agent() -> Option<u32> {
    let pid = fs::read_to_string(paths::PID_FILE).ok()?.trim().parse().ok()?;
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    (program == Path::new(paths::PROGRAM)).then_some(pid)
}

fn move_here(pid: u32) -> io::Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let place =
        own_group(&own).ok_or_else(|| io::Error::other("This process is in no control group of systemd"))?;
    fs::write(place.join("cgroup.procs"), pid.to_string())
}

/// The directory of the control group in systemd's hierarchy, by /proc/self/cgroup.
fn own_group(text: &str) -> Option<PathBuf> {
    let below = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    let named = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.strip_prefix("name=systemd:")
    });
    match (named, unified) {
        (Some(path), _) => Some(below("/sys/fs/cgroup/systemd", path)),
        (None, Some(path)) => Some(below("/sys/fs/cgroup", path)),
        (None, None) => None,
    }
}

/// Starts an agent and waits until it listens.
fn start() -> io::Result<()> {
    let mut command = Command::new(paths::PROGRAM);
    command
        .args(["agent", "wait"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    banger_sys::guest::set_up_child(&mut command, banger_sys::guest::ChildSetup::default());
    let mut child = command.spawn()?;
    let mut said = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut said)?;
    }
    if said != "ready\n" {
        return Err(io::Error::other("It ended before it listened"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_in_either_layout() {
        let unified = "0::/system.slice/banger-agent.service\n";
        assert_eq!(
            own_group(unified).unwrap(),
            Path::new("/sys/fs/cgroup/system.slice/banger-agent.service")
        );
        let hybrid = "12:pids:/x\n1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n";
        assert_eq!(
            own_group(hybrid).unwrap(),
            Path::new("/sys/fs/cgroup/systemd/system.slice/a.service")
        );
        assert_eq!(own_group("12:pids:/x\n"), None);
    }
}
