//! What the helper gives up before it listens to anybody.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use banger_sys::landlock::{
    Confinement, Enforcement, FileAccess, FileRule, restrict_launching, restrict_self,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::launch_thread::LaunchThread;

/// Taps, becoming a slot's uid, and emptying its bounding set. Nothing that gets around the rights
/// of files.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP);

/// Where the helper keeps its state.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Persistent.
    pub(crate) state: PathBuf,
    /// Until the next boot.
    pub(crate) runtime: PathBuf,
}

impl Places {
    /// As the unit says (systemd.exec(5), StateDirectory=, RuntimeDirectory=).
    pub(crate) fn of_unit() -> Self {
        let place = |variable, default: &str| {
            let given = std::env::var_os(variable).map(PathBuf::from);
            given.unwrap_or_else(|| PathBuf::from(default))
        };
        Self {
            state: place("STATE_DIRECTORY", "/var/lib/banger-helper"),
            runtime: place("RUNTIME_DIRECTORY", "/run/banger-helper"),
        }
    }

    pub(crate) fn slots(&self) -> PathBuf {
        self.state.join("slots")
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.runtime.join("names.json")
    }

    /// Both, for root alone. Landlock's rules need them to exist.
    pub(crate) fn make(&self) -> io::Result<()> {
        for directory in [&self.slots(), &self.runtime] {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        Ok(())
    }
}

/// Confines this process, which must have one thread, and starts the thread that launches.
pub(crate) fn confine(places: &Places) -> io::Result<(LaunchThread, Enforcement)> {
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true)?;
    // The launched programs inherit this, and add rules of their own.
    restrict_launching(&launching(places))?;
    let thread = LaunchThread::start()?;
    let enforcement = restrict_self(&serving(places))?;
    Ok((thread, enforcement))
}

/// No network but netlink and unix sockets; no signals and no abstract sockets of others.
fn confinement(files: Vec<FileRule>) -> Confinement {
    Confinement {
        files,
        tcp_bind: Some(Vec::new()),
        tcp_connect: Some(Vec::new()),
        scoped: true,
    }
}

/// Programs of the system, and the devices that a VMM has. The helper's own directories are
/// here because the other domain is within this one; no VMM may enter them.
fn launching(places: &Places) -> Confinement {
    let mut files = programs();
    files.extend(own(places));
    for device in ["/dev/kvm", "/dev/net/tun"] {
        files.push(FileRule::path(device, FileAccess::Device));
    }
    confinement(files)
}

/// What the thread that talks to the bus needs: its files, taps, and whether a process is the one
/// that was written down.
fn serving(places: &Places) -> Confinement {
    let mut files = vec![
        FileRule::path("/proc", FileAccess::Read),
        FileRule::path("/dev/net/tun", FileAccess::Device),
    ];
    files.extend(own(places));
    confinement(files)
}

fn own(places: &Places) -> [FileRule; 2] {
    [&places.state, &places.runtime].map(|path| FileRule::path(path, FileAccess::Own))
}

fn programs() -> Vec<FileRule> {
    let mut paths: Vec<PathBuf> = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store"]
        .map(PathBuf::from)
        .into();
    // Another prefix, or an unpacked build.
    let own = std::env::current_exe().ok();
    paths.extend(own.as_deref().and_then(Path::parent).map(Path::to_owned));
    // A test's engine.
    #[cfg(debug_assertions)]
    paths.extend(
        std::env::var_os(crate::launch::TEST_ENGINE)
            .and_then(|engine| Path::new(&engine).parent().map(Path::to_owned)),
    );
    let rules = paths.into_iter();
    rules
        .map(|path| FileRule::path(path, FileAccess::ReadExecute))
        .collect()
}

/// From all sets of this thread. A process with less has less.
fn drop_capabilities() -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << number);
            match rustix::thread::capability_is_in_bounding_set(one) {
                Ok(true) if !KEPT.contains(one) => {
                    rustix::thread::remove_capability_from_bounding_set(one)?;
                }
                Ok(_) => {}
                // The kernel has no more of them.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let kept = held.permitted & KEPT;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

#[cfg(test)]
#[path = "../tests/unit/confine.rs"]
mod tests;
