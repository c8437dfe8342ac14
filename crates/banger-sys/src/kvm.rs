//! Whether KVM runs a guest. That /dev/kvm opens and makes VMs does not say so. Where the host
//! is itself a guest without nested virtualisation, a KVM without hardware (kvm_pvm, for one)
//! interprets an ordinary guest's 16-, 32- and 64-bit code one instruction at a time in the
//! kernel: right, at about one million instructions a second. SeaBIOS still prints; Linux
//! spends seconds in its first memset and seems to hang. So the probe takes a small guest
//! through every operating system's steps into 64-bit mode, checks what it computes there,
//! and measures how fast; in a process of its own that can be killed.

#[cfg(target_arch = "x86_64")]
mod guest;

use std::io;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kvm")]
pub enum KvmProbe {
    /// A guest ran in 64-bit mode.
    Works {
        /// How long KVM_CREATE_VM took, in microseconds.
        vm_create_us: u64,
    },
    /// There is no /dev/kvm.
    NoDevice,
    /// /dev/kvm may not be opened.
    NoPermission,
    /// The device opens and refuses a step; the text says which.
    Unsupported { why: String },
    /// The device opens, makes a VM, and does not run a guest.
    DoesNotRun { how: String },
}

/// How far the guest came; the child writes one line for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The virtual CPU is about to start, in 16-bit mode.
    Start,
    /// 32-bit code ran, with paging and 64-bit mode prepared.
    Protected,
    /// 64-bit code ran and computed what it should.
    Long,
}

/// The child's output is a few short lines.
const MAX_OUTPUT: u64 = 4096;

/// Runs a small guest in a child process (`/proc/self/exe kvm-probe`) and waits for it no
/// longer than `time_limit`; where KVM works it takes some milliseconds.
pub async fn probe_kvm(time_limit: Duration) -> KvmProbe {
    let mut command = Command::new("/proc/self/exe");
    command.arg("kvm-probe");
    probe_with(command, time_limit).await
}

/// As [`probe_kvm`], with the command that calls [`run_kvm_probe_child`].
pub async fn probe_with(mut command: Command, time_limit: Duration) -> KvmProbe {
    let failed = |e: &io::Error| KvmProbe::Unsupported {
        why: format!("the probe cannot be started: {e}"),
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return failed(&e),
    };
    let Some(output) = child.stdout.take() else {
        return failed(&io::ErrorKind::BrokenPipe.into());
    };
    let mut said = String::new();
    let mut output = output.take(MAX_OUTPUT);
    let read = output.read_to_string(&mut said);
    let in_time = tokio::time::timeout(time_limit, read).await.is_ok();
    // Also reaps it. A virtual CPU that spins in the kernel still takes SIGKILL.
    let _ = child.kill().await;
    judge(&said, in_time)
}

/// The child's side: call it in `main` for the hidden subcommand `kvm-probe`.
pub fn run_kvm_probe_child() -> ExitCode {
    // A daemon that is killed meanwhile leaves nothing behind; where this fails, the guest
    // ends by itself or not at all, as without it.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    #[cfg(target_arch = "x86_64")]
    guest::run(&mut io::stdout());
    ExitCode::SUCCESS
}

/// Lines: `created MICROSECONDS`, `stage NAME`, `verdict NAME TEXT`.
fn judge(said: &str, in_time: bool) -> KvmProbe {
    let mut vm_create_us = 0;
    let mut stage = None;
    for line in said.lines() {
        match line.split_once(' ') {
            Some(("created", number)) => vm_create_us = number.parse().unwrap_or(0),
            Some(("stage", name)) => stage = stage.max(Stage::parse(name)),
            Some(("no-device", _)) => return KvmProbe::NoDevice,
            Some(("no-permission", _)) => return KvmProbe::NoPermission,
            Some(("unsupported", why)) => return KvmProbe::Unsupported { why: why.into() },
            Some(("failed", how)) => return KvmProbe::DoesNotRun { how: how.into() },
            _ => {}
        }
    }
    match stage {
        Some(Stage::Long) => KvmProbe::Works { vm_create_us },
        Some(stage) => {
            let verb = if in_time { "stops" } else { "hangs" };
            KvmProbe::DoesNotRun {
                how: format!("a guest {verb} {}", stage.place()),
            }
        }
        None if in_time => KvmProbe::Unsupported {
            why: "the probe ended without a word".into(),
        },
        None => KvmProbe::Unsupported {
            why: "making a VM takes too long".into(),
        },
    }
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Protected => "protected",
            Self::Long => "long",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Start, Self::Protected, Self::Long]
            .into_iter()
            .find(|stage| stage.as_str() == name)
    }

    /// Where a guest is that came no further.
    const fn place(self) -> &'static str {
        match self {
            Self::Start => "in 16- or 32-bit mode",
            Self::Protected => "at its entry to 64-bit mode",
            Self::Long => "in 64-bit mode",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells this test program that it is the child.
    const CHILD: &str = "BANGER_TEST_KVM_CHILD";

    /// Not a test by itself: the child's `main`.
    #[test]
    fn child_entry() {
        if std::env::var_os(CHILD).is_some() {
            let _ = run_kvm_probe_child();
            std::process::exit(0);
        }
    }

    #[tokio::test]
    async fn the_probe_ends_with_a_verdict() {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["kvm::tests::child_entry", "--exact", "--nocapture"])
            .env(CHILD, "1");
        let limit = Duration::from_millis(500);
        let before = std::time::Instant::now();
        let probe = probe_with(command, limit).await;
        println!("{probe:?} in {:?}", before.elapsed());
        assert!(before.elapsed() < limit * 20);
        match probe {
            KvmProbe::NoDevice => assert!(!std::path::Path::new("/dev/kvm").exists()),
            KvmProbe::Works { vm_create_us } => assert!(vm_create_us > 0),
            _ => assert!(std::path::Path::new("/dev/kvm").exists()),
        }
    }

    #[test]
    fn the_verdict_follows_from_the_stages() {
        let works = KvmProbe::Works { vm_create_us: 350 };
        let all = "created 350\nstage start\nstage protected\nstage long\n";
        assert_eq!(judge(all, true), works);
        let how = |how: &str| KvmProbe::DoesNotRun { how: how.into() };
        assert_eq!(
            judge("created 350\nstage start\nstage protected\n", false),
            how("a guest hangs at its entry to 64-bit mode")
        );
        assert_eq!(
            judge("created 1\nstage start\n", true),
            how("a guest stops in 16- or 32-bit mode")
        );
        assert_eq!(
            judge(
                "created 1\nstage start\nfailed a guest ends with Shutdown\n",
                true
            ),
            how("a guest ends with Shutdown")
        );
        assert_eq!(judge("no-device \n", true), KvmProbe::NoDevice);
        assert_eq!(judge("no-permission \n", true), KvmProbe::NoPermission);
        let KvmProbe::Unsupported { why } = judge("", false) else {
            panic!()
        };
        assert_eq!(why, "making a VM takes too long");
    }
}
