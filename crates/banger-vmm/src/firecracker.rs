//! Firecracker, of the versions without known holes.
//! <https://github.com/firecracker-microvm/firecracker/tree/main/docs>

mod api;
mod args;
mod config;
mod http;
mod probe;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::engine::{Accelerator, Engine, LaunchPlan, MachineSpec, PlanError};
use crate::qemu::Version;

pub use api::{Api, ApiError, InstanceState};
pub use args::{MAX_CMDLINE, default_cmdline};
pub use config::MachineConfig;
pub use probe::{FirecrackerError, INSTALL_PLACE, PLACES, check_version, examine, installed, judge, place};

/// The name of the API's socket in the machine's directory.
pub const API_SOCKET: &str = "api.sock";
/// The name of the socket by which the host reaches ports of the guest.
pub const VSOCK_SOCKET: &str = "vsock.sock";
/// The most processors of a guest.
pub const MAX_VCPUS: u32 = 32;
/// virtio-blk's VIRTIO_BLK_ID_BYTES.
const SERIAL_BYTES: usize = 20;

/// An installed Firecracker; [`installed`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firecracker {
    pub binary: PathBuf,
    pub version: Version,
}

/// The name of the socket in the machine's directory on which the host listens for connections
/// of the guest to this port of the host.
pub fn guest_socket(port: u32) -> String {
    format!("{VSOCK_SOCKET}_{port}")
}

/// The serial number that the guest sees on a disk: Firecracker makes it from the file, and
/// takes none from outside.
pub fn disk_serial(disk: &Metadata) -> String {
    let mut serial = format!("{}{}{}", disk.dev(), disk.rdev(), disk.ino());
    serial.truncate(SERIAL_BYTES);
    serial
}

impl Engine for Firecracker {
    fn plan(&self, spec: MachineSpec) -> Result<LaunchPlan, PlanError> {
        args::plan(self, spec)
    }

    fn default_cmdline(&self, _: Accelerator) -> String {
        args::default_cmdline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_the_files_own_and_short_enough() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let serial = disk_serial(&file.as_file().metadata().unwrap());
        let inode = file.as_file().metadata().unwrap().ino().to_string();
        assert!(serial.len() <= SERIAL_BYTES, "{serial}");
        assert!(serial.chars().all(|c| c.is_ascii_digit()), "{serial}");
        // Regular files have no device number of their own.
        assert!(
            serial.ends_with(&format!("0{inode}")) || serial.len() == SERIAL_BYTES,
            "{serial}"
        );
    }

    #[test]
    fn the_sockets_have_the_names_that_firecracker_makes() {
        assert_eq!(guest_socket(1022), "vsock.sock_1022");
    }
}
