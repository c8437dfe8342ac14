//! A session bus of the rig's own.

use std::fs;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::rig::Rig;

/// A running `dbus-daemon`; it ends with this value.
#[derive(Debug)]
pub struct Bus {
    address: String,
    _daemon: Child,
}

impl Bus {
    /// Starts a bus on which the rig's daemon can be activated, and gives its address to what
    /// is run in the rig from now on. `None` where there is no `dbus-daemon`; that was said.
    ///
    /// # Panics
    /// When the bus does not come up.
    pub async fn start(rig: &mut Rig) -> Option<Self> {
        if !crate::has_program("dbus-daemon") || !crate::has_program("busctl") {
            crate::skipped("guest", "no dbus-daemon or busctl here");
            return None;
        }
        let services = rig.dir().join("d/dbus-1/services");
        fs::create_dir_all(&services).expect("the rig is writable");
        let service = format!(
            "[D-BUS Service]\nName=org.banger.Manager\nExec={}\n",
            Rig::daemon_program().display()
        );
        fs::write(services.join("org.banger.Manager.service"), service).expect("the rig is writable");
        let mut daemon = rig
            .program("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--address=unix:path={}", rig.dir().join("bus").display()))
            .spawn()
            .expect("dbus-daemon can be started");
        let stdout = daemon.stdout.take().expect("standard output is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let address = timeout(Duration::from_secs(20), lines.next_line())
            .await
            .expect("the bus comes up in time")
            .expect("the bus says its address")
            .expect("the bus comes up");
        rig.set("DBUS_SESSION_BUS_ADDRESS", &address);
        Some(Self {
            address,
            _daemon: daemon,
        })
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}
