//! The machine: its architecture, and what runs guests on it.

use std::time::Duration;

use banger_sys::kvm::{KvmProbe, probe_kvm};
use banger_sys::landlock;
use banger_vmm::Accelerator;
use banger_vmm::firecracker::{FirecrackerError, installed};
use banger_vmm::probe::{choose_accelerator, find_qemu};

use super::report::Report;
use crate::core::error::chain;

/// How long the probe's guest may take.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn architecture(report: &mut Report) {
    match std::env::consts::ARCH {
        "x86_64" => report.ok("architecture", "x86-64"),
        other => report.failure(
            "architecture",
            format!("This is {other}, and banger runs x86-64 guests on x86-64 only"),
            "Use an x86-64 machine.",
        ),
    }
    let kernel = rustix::system::uname();
    report.info("host-kernel", kernel.release().to_string_lossy());
}

/// What confines a VMM to its own files.
pub(super) fn landlock(report: &mut Report) {
    match landlock::version() {
        Some(version) if version >= landlock::WHOLE => {
            report.ok("landlock", format!("A VMM is confined (version {version})"));
        }
        Some(version) => {
            report.info(
                "landlock",
                format!("A VMM is confined to its files (version {version})"),
            );
            report.detail(format!(
                "Rules for TCP ports, signals and abstract sockets need version {}.",
                landlock::WHOLE
            ));
        }
        None => report.warning(
            "landlock",
            "Not there: a VMM that was broken into reaches the owner's files",
            "Use a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in its lsm= parameter.",
        ),
    }
}

pub(super) async fn engines(report: &mut Report) {
    let (kvm, qemu) = tokio::join!(probe_kvm(PROBE_LIMIT), find_qemu());
    let choice = choose_accelerator(&kvm);
    let how = match &kvm {
        KvmProbe::Works { .. } => "A small guest was taken into 64-bit mode and its result was right.",
        KvmProbe::DoesNotRun { .. } => {
            "A small guest was started on a virtual CPU and watched on its way into 64-bit mode."
        }
        KvmProbe::NoDevice | KvmProbe::NoPermission => "The device was to be opened.",
        KvmProbe::Unsupported { .. } => "The device was asked for its capabilities.",
    };
    match choice.accelerator {
        Accelerator::Kvm => report.ok("kvm", choice.reason),
        Accelerator::Tcg => {
            report.warning(
                "kvm",
                choice.reason,
                "Guests run by QEMU's software emulation (tcg) instead.",
            );
        }
    }
    report.detail(how);
    match qemu {
        Ok(qemu) => {
            let accelerator = match choice.accelerator {
                Accelerator::Kvm => "kvm",
                Accelerator::Tcg => "tcg",
            };
            report.ok("engine-qemu", format!("QEMU {} with {accelerator}", qemu.version));
            report.detail(qemu.binary.display().to_string());
        }
        Err(error) => report.failure(
            "engine-qemu",
            chain(&error),
            "apt install qemu-system-x86 (Fedora: dnf install qemu-system-x86-core)",
        ),
    }
    firecracker(report).await;
}

/// For system mode alone; a machine without it lacks nothing.
async fn firecracker(report: &mut Report) {
    match installed().await {
        Ok(found) => {
            let text = format!("Firecracker {} for VMs of system mode", found.version);
            report.ok("engine-firecracker", text);
            report.detail(found.binary.display().to_string());
        }
        Err(FirecrackerError::Missing) => {
            report.info("engine-firecracker", "Not installed; only system mode uses it");
        }
        Err(error) => report.warning(
            "engine-firecracker",
            chain(&error),
            "VMs run by QEMU instead. Replace it: `sudo banger engine install firecracker`.",
        ),
    }
}
