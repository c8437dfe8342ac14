//! Switching the machine off in order: whoever is PID 1 does it, in the way it understands.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use banger_sys::guest::kill_init_realtime;
use rustix::process::{Pid, Signal, kill_process};

/// systemd(1), "SIGNALS": SIGRTMIN+4 starts poweroff.target.
const POWEROFF: i32 = 4;
const PROGRAMS: [&str; 3] = ["/sbin/poweroff", "/usr/sbin/poweroff", "/bin/poweroff"];

/// Asks PID 1 to switch off.
pub(super) fn off() -> io::Result<()> {
    if Path::new("/run/systemd/system").is_dir() && Path::new("/run/systemd/private").exists() {
        return kill_init_realtime(POWEROFF);
    }
    if let Some(program) = PROGRAMS.iter().find(|program| Path::new(program).exists())
        && !is_own_init()
    {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env_clear();
        // Reaped with the connections.
        return command.spawn().map(drop);
    }
    // What busybox's init and this program's own understand.
    kill_process(Pid::INIT, Signal::USR2).map_err(io::Error::from)
}

fn is_own_init() -> bool {
    std::fs::read_to_string(crate::paths::INIT).is_ok_and(|init| init == "banger-guest")
}
