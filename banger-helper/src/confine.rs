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

/// Taps, and becoming a slot's uid. Nothing that gets around the rights of files.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID);

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
mod tests {
    use std::path::Path;
    use std::process::Command;

    use banger_sys::landlock::{WHOLE, version};

    use super::*;

    /// Where the child looks.
    const PLACE: &str = "BANGER_TEST_CONFINED";

    #[test]
    fn both_domains_hold() {
        if !rustix::process::geteuid().is_root() || version() < Some(WHOLE) {
            let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|rung| rung == "bus"),
                "not root, or an old kernel"
            );
            return;
        }
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("somebodys"), "text").unwrap();
        std::fs::copy("/bin/true", place.path().join("program")).unwrap();
        // A process of its own: what is given up stays given up.
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "confine::tests::child", "--ignored", "--nocapture"])
            .env(PLACE, place.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
            "{text}"
        );
    }

    #[test]
    #[ignore = "run by both_domains_hold in a process of its own"]
    fn child() {
        let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else {
            return;
        };
        let places = Places {
            state: place.join("state"),
            runtime: place.join("run"),
        };
        places.make().unwrap();
        let (launch, enforcement) = confine(&places).unwrap();
        assert_eq!(enforcement, Enforcement::Full);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();

        let somebodys = place.join("somebodys");
        assert!(!can_read(&somebodys), "another's file");
        assert!(!can_read(Path::new("/etc/passwd")) && can_read(Path::new("/proc/self/stat")));
        let own = places.slots().join("0.new");
        std::fs::write(&own, "{}").unwrap();
        std::fs::rename(&own, places.slots().join("0.json")).unwrap();
        std::fs::remove_file(places.slots().join("0.json")).unwrap();
        assert!(std::fs::write(place.join("new"), "").is_err());
        assert!(std::fs::write("/proc/self/oom_score_adj", "0").is_err());
        assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
        // What tokio starts is confined as its thread.
        let reading = somebodys.clone();
        let reads = runtime.block_on(async { tokio::task::spawn_blocking(move || can_read(&reading)).await });
        assert!(!reads.unwrap(), "a worker");

        // The launching thread reaches files, as VMMs must, and makes or executes none.
        let elsewhere = place.clone();
        runtime
            .block_on(launch.run(move || {
                assert!(can_read(&elsewhere.join("somebodys")));
                assert!(std::fs::write("/proc/self/oom_score_adj", "0").is_ok());
                assert!(Command::new("/bin/true").status().unwrap().success());
                assert!(Command::new(elsewhere.join("program")).status().is_err());
                assert!(std::fs::write(elsewhere.join("new"), "").is_err());
                assert!(std::fs::remove_file(elsewhere.join("somebodys")).is_err());
                assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
            }))
            .unwrap();
    }

    fn can_read(path: &Path) -> bool {
        std::fs::read(path).is_ok()
    }
}
