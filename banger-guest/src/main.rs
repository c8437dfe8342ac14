//! banger in the guest. One static program in three parts: `/init` of the initramfs, which
//! brings any root file system up; the agent, an SSH server that is there before the image's
//! own services; and PID 1 for images that have no init.

mod agent;
mod console;
mod identity;
mod init;
mod paths;
mod sftp;
mod users;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    match role.as_deref().and_then(|role| role.to_str()) {
        Some("agent") => agent::run(),
        Some("adopt") => agent::adopt(),
        Some("supervise") => init::supervise(),
        Some("sftp") => sftp::serve(),
        // The kernel passes on what it does not know of its command line.
        _ if std::process::id() == 1 => init::boot(),
        _ => {
            console::say("usage: banger-guest agent|adopt|sftp; PID 1 needs no argument");
            ExitCode::from(2)
        }
    }
}
