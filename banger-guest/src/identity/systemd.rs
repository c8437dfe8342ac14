//! What a systemd image is told for this boot: a unit for the agent, and units that would
//! only wait or ask for a login nobody can give. All of it lies in `/run`.

use std::io;
use std::path::Path;

use banger_model::guest::Identity;

use super::files;
use crate::machine;

const UNITS: &str = "run/systemd/system";
const AGENT: &str = "banger-agent.service";

/// The agent runs before systemd does, so the unit takes it over; what it starts are sessions,
/// which a restart of the agent leaves alone (`KillMode=process`).
const AGENT_UNIT: &str = "\
# Written by banger at boot.
[Unit]
Description=banger guest agent
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
Type=forking
PIDFile=/run/banger/agent.pid
ExecStart=/run/banger/banger-guest adopt
KillMode=process
Restart=always
RestartSec=1
TasksMax=infinity
OOMPolicy=continue
";

const RESET: &str = "\
# Written by banger at boot: this machine can be reset, and not switched off.
[Unit]
SuccessAction=reboot-force
";

/// Units that wait for what this guest has not, or that cost each boot without a use.
const MASKED: [&str; 11] = [
    // The serial console is a log; its device unit would be waited for up to 90 s.
    "serial-getty@ttyS0.service",
    "serial-getty@hvc0.service",
    "console-getty.service",
    "getty@tty1.service",
    // The network is up before any of them could wait for it.
    "systemd-networkd-wait-online.service",
    "NetworkManager-wait-online.service",
    "ifupdown-wait-online.service",
    "dhcpcd.service",
    // The host sets the clock.
    "chrony-wait.service",
    "systemd-time-wait-sync.service",
    "e2scrub_reap.service",
];

pub(super) fn apply(root: &Path, _identity: &Identity) -> io::Result<()> {
    let has_systemd = ["usr/lib/systemd/system", "lib/systemd/system"]
        .iter()
        .any(|directory| files::is_directory(root, directory));
    if !has_systemd {
        return Ok(());
    }
    files::write(root, &format!("{UNITS}/{AGENT}"), 0o644, AGENT_UNIT.as_bytes())?;
    let wanted = format!("{UNITS}/sysinit.target.wants/{AGENT}");
    files::link(root, &wanted, &format!("../{AGENT}"))?;
    for unit in MASKED {
        files::link(root, &format!("{UNITS}/{unit}"), "/dev/null")?;
    }
    if machine::reset_ends() {
        reset_instead(root)?;
    }
    Ok(())
}

/// A guest that switches itself off ends by what ends this machine.
fn reset_instead(root: &Path) -> io::Result<()> {
    for unit in ["systemd-poweroff.service", "systemd-halt.service"] {
        let path = format!("{UNITS}/{unit}.d/banger.conf");
        files::write(root, &path, 0o644, RESET.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::identity;
    use super::*;

    #[test]
    fn a_systemd_image_gets_the_unit_and_the_masks_in_run() {
        let root = tempfile::tempdir().unwrap();
        apply(root.path(), &identity()).unwrap();
        assert!(!root.path().join("run").exists());
        fs::create_dir_all(root.path().join("lib/systemd/system")).unwrap();
        apply(root.path(), &identity()).unwrap();
        let units = root.path().join(UNITS);
        let wanted = fs::canonicalize(units.join("sysinit.target.wants").join(AGENT)).unwrap();
        assert_eq!(wanted, fs::canonicalize(units.join(AGENT)).unwrap());
        for unit in MASKED {
            assert_eq!(fs::read_link(units.join(unit)).unwrap(), Path::new("/dev/null"));
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_machine_that_cannot_be_switched_off_is_reset_instead() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run")).unwrap();
        reset_instead(root.path()).unwrap();
        let units = root.path().join(UNITS);
        for unit in ["systemd-poweroff.service.d", "systemd-halt.service.d"] {
            let text = fs::read_to_string(units.join(unit).join("banger.conf")).unwrap();
            assert!(text.ends_with("[Unit]\nSuccessAction=reboot-force\n"), "{text}");
        }
    }
}
