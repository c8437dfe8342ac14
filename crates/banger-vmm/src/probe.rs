//! Which QEMU is there, and what accelerates it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_sys::kvm::KvmProbe;
use tokio::process::Command;

use crate::engine::Accelerator;
use crate::qemu::{Qemu, Version};
use crate::roots::changed_by_others;

/// The oldest QEMU that is supported.
pub const MIN_VERSION: Version = Version {
    major: 7,
    minor: 0,
    micro: 0,
};
/// Where a QEMU may be besides PATH; Red Hat's derivatives keep theirs out of PATH.
const PLACES: [&str; 2] = ["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"];
const PROGRAM: &str = "qemu-system-x86_64";
/// Where system mode looks for QEMU, in this order: as administrators and packages install it.
/// PATH is of no account, the program runs as another user.
pub const SYSTEM_PLACES: [&str; 5] = [
    "/usr/local/lib/banger/qemu-system-x86_64",
    "/usr/lib/banger/qemu-system-x86_64",
    "/usr/local/bin/qemu-system-x86_64",
    "/usr/bin/qemu-system-x86_64",
    "/usr/libexec/qemu-kvm",
];
/// How long QEMU may take to print its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Why no QEMU can be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "No QEMU found: install the package qemu-system-x86 (Debian, Ubuntu) or qemu-system-x86-core (Fedora)"
    )]
    Missing,
    #[error("{binary:?} is QEMU {found}, and at least {MIN_VERSION} is needed")]
    TooOld { binary: PathBuf, found: Version },
    #[error("{0:?} did not say which version of QEMU it is")]
    NoVersion(PathBuf),
    #[error("{path:?} could be changed by others than root, so {binary:?} is not used")]
    NotRoots { binary: PathBuf, path: PathBuf },
    #[error("Cannot run {binary:?}")]
    Run {
        binary: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What a machine will be run with, and why: the text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceleratorChoice {
    pub accelerator: Accelerator,
    pub reason: String,
}

/// Finds QEMU in PATH and the usual places, and asks its version.
///
/// # Errors
/// When there is none, it does not run, or it is too old.
pub async fn find_qemu() -> Result<Qemu, ProbeError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(PROGRAM))
        .chain(PLACES.map(PathBuf::from));
    for binary in candidates {
        if is_program(&binary) {
            return examine(binary).await;
        }
    }
    Err(ProbeError::Missing)
}

/// Finds the QEMU of system mode, which only root can change. The first one in
/// [`SYSTEM_PLACES`] counts: a bad one there is an error, not skipped.
///
/// # Errors
/// When there is none, or others can change it.
pub fn system_qemu() -> Result<PathBuf, ProbeError> {
    let binary = SYSTEM_PLACES
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    let binary = binary.ok_or(ProbeError::Missing)?;
    match changed_by_others(&binary) {
        Ok(None) => Ok(binary),
        Ok(Some(path)) => Err(ProbeError::NotRoots { binary, path }),
        Err(source) => Err(ProbeError::Run { binary, source }),
    }
}

/// What a binary is that has answered `--version` by this text.
///
/// # Errors
/// When that is no version, or too old a one.
pub fn judge(binary: PathBuf, text: &str) -> Result<Qemu, ProbeError> {
    let Some(version) = parse_version(text) else {
        return Err(ProbeError::NoVersion(binary));
    };
    if version < MIN_VERSION {
        let found = version;
        return Err(ProbeError::TooOld { binary, found });
    }
    Ok(Qemu { binary, version })
}

/// Decides what runs the guest's instructions.
pub fn choose_accelerator(probe: &KvmProbe) -> AcceleratorChoice {
    let (accelerator, reason) = match probe {
        KvmProbe::Works { vm_create_us } => (
            Accelerator::Kvm,
            format!("KVM runs a guest (making a VM takes {vm_create_us} µs)"),
        ),
        KvmProbe::NoDevice => (
            Accelerator::Tcg,
            "There is no /dev/kvm: guests are emulated in software, which is many times slower. Enable virtualisation in the firmware, or nested virtualisation in the hypervisor below".to_owned(),
        ),
        KvmProbe::NoPermission => (
            Accelerator::Tcg,
            "/dev/kvm may not be opened: guests are emulated in software, which is many times slower. Join the group that owns it (usually kvm) and log in again".to_owned(),
        ),
        KvmProbe::Unsupported { why } => (
            Accelerator::Tcg,
            format!("/dev/kvm lacks what a guest needs ({why}): guests are emulated in software, which is many times slower"),
        ),
        KvmProbe::DoesNotRun { how } => (
            Accelerator::Tcg,
            format!("/dev/kvm opens but does not run a guest ({how}): guests are emulated in software, which is many times slower"),
        ),
    };
    AcceleratorChoice { accelerator, reason }
}

fn is_program(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

async fn examine(binary: PathBuf) -> Result<Qemu, ProbeError> {
    let output = Command::new(&binary).arg("--version").kill_on_drop(true).output();
    let output = match tokio::time::timeout(VERSION_LIMIT, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => return Err(ProbeError::Run { binary, source }),
        Err(_) => return Err(ProbeError::NoVersion(binary)),
    };
    judge(binary, &String::from_utf8_lossy(&output.stdout))
}

/// From `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<Version> {
    let (_, rest) = text.lines().next()?.split_once(" version ")?;
    let number = rest.split([' ', '(', '-']).next()?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    Some(Version {
        major: parts.next()??,
        minor: parts.next()??,
        micro: parts.next().flatten().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let version = |major, minor, micro| Some(Version { major, minor, micro });
        assert_eq!(
            parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright"),
            version(7, 2, 22)
        );
        assert_eq!(
            parse_version("QEMU emulator version 9.1.0(qemu-9.1.0-1.fc41)"),
            version(9, 1, 0)
        );
        assert_eq!(parse_version("QEMU emulator version 10.0"), version(10, 0, 0));
        assert_eq!(parse_version("something else 1.2"), None);
        assert_eq!(parse_version(""), None);
        assert!(version(10, 0, 0) > version(7, 2, 22));
    }

    #[test]
    fn only_a_kvm_that_runs_a_guest_is_used() {
        let choose = |probe| choose_accelerator(&probe).accelerator;
        assert_eq!(choose(KvmProbe::Works { vm_create_us: 9 }), Accelerator::Kvm);
        assert_eq!(choose(KvmProbe::NoDevice), Accelerator::Tcg);
        assert_eq!(choose(KvmProbe::NoPermission), Accelerator::Tcg);
        let how = "it hangs".to_owned();
        let choice = choose_accelerator(&KvmProbe::DoesNotRun { how });
        assert_eq!(choice.accelerator, Accelerator::Tcg);
        assert!(choice.reason.contains("(it hangs)"), "{}", choice.reason);
    }
}
