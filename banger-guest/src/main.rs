//! banger in the guest. One static program in three parts: `/init` of the initramfs, which
//! brings any root file system up; the agent, an SSH server that is there before the image's
//! own services; and PID 1 for images that have no init.

// Tests say why they are skipped.
#![cfg_attr(test, allow(clippy::print_stdout))]

mod agent;
mod console;
mod files;
mod identity;
mod init;
mod machine;
mod memory;
mod paths;
mod sftp;
mod sockets;
mod users;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    let role = role.as_deref().and_then(|role| role.to_str());
    match (std::process::id(), role) {
        (1, Some("supervise")) => init::supervise(),
        // The kernel passes on what it does not know of its command line.
        (1, _) => init::boot(),
        (_, Some("agent")) => agent::run(),
        (_, Some("adopt")) => agent::adopt(),
        (_, Some("files")) => files::serve(),
        (_, Some("sftp")) => sftp::serve(),
        _ => {
            console::say("usage: banger-guest agent|adopt|files|sftp; PID 1 needs no argument");
            ExitCode::from(2)
        }
    }
}
