//! Ending the machine in order: whoever is PID 1 does it, in the way it understands. Where a
//! reset ends the machine, he restarts it.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use banger_sys::guest::kill_init_realtime;
use rustix::process::{Pid, Signal, kill_process};

use crate::{machine, paths};

/// One way of doing it.
struct Way {
    /// systemd(1), "SIGNALS": the offset from SIGRTMIN.
    systemd: i32,
    programs: [&'static str; 3],
    /// What busybox's init and this program's own understand.
    signal: Signal,
}

const OFF: Way = Way {
    systemd: 4,
    programs: ["/sbin/poweroff", "/usr/sbin/poweroff", "/bin/poweroff"],
    signal: Signal::USR2,
};
const RESET: Way = Way {
    systemd: 5,
    programs: ["/sbin/reboot", "/usr/sbin/reboot", "/bin/reboot"],
    signal: Signal::TERM,
};

/// Asks PID 1 to end the machine.
pub(super) fn off() -> io::Result<()> {
    let way = if machine::reset_ends() { RESET } else { OFF };
    if Path::new("/run/systemd/system").is_dir() && Path::new("/run/systemd/private").exists() {
        return kill_init_realtime(way.systemd);
    }
    if let Some(program) = way.programs.iter().find(|program| Path::new(program).exists())
        && !is_own_init()
    {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env_clear();
        // Reaped with the connections.
        return command.spawn().map(drop);
    }
    if is_own_init() {
        // The kernel drops a signal for which PID 1 has not asked yet: it finds this instead.
        std::fs::write(paths::END, way.signal.as_raw().to_string())?;
    }
    kill_process(Pid::INIT, way.signal).map_err(io::Error::from)
}

fn is_own_init() -> bool {
    std::fs::read_to_string(paths::INIT).is_ok_and(|init| init == "banger-guest")
}
