//! All that is in an image without a shell: says how it was started, one line for each fact,
//! and exits with the number that its first argument is.
#![allow(clippy::print_stdout, reason = "what it says is the program's output")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    println!("uid={}", uid.as_raw());
    println!("gid={}", gid.as_raw());
    let groups = rustix::process::getgroups().unwrap_or_default();
    let groups: Vec<_> = groups.iter().map(|group| group.as_raw().to_string()).collect();
    println!("groups={}", groups.join(","));
    println!("cwd={}", std::env::current_dir().unwrap_or_default().display());
    println!("arguments={}", arguments.join("|"));
    for (key, value) in std::env::vars() {
        println!("env:{key}={value}");
    }
    let status = arguments.first().and_then(|word| word.parse().ok());
    ExitCode::from(status.unwrap_or(0))
}
