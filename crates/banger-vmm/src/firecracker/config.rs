//! A machine as the requests that configure it, in their order.

use serde_json::{Value, json};

use super::args::{DIRECTORY, INITRD, KERNEL, MAX_CMDLINE, ROOT_DISK, descriptor};
use super::{MAX_VCPUS, VSOCK_SOCKET};
use crate::engine::{PlanError, TapNetwork};

/// The guest's number on its own vsock; the host's is 2, and no other guest is on it.
const GUEST_CID: u32 = 3;

/// What Firecracker is told about a machine after its start; the rest are the descriptors that
/// it was given.
#[derive(Debug)]
pub struct MachineConfig {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub cmdline: String,
    /// Opened by its name; `None`: no interface.
    pub tap: Option<TapNetwork>,
}

/// One request.
#[derive(Debug, PartialEq)]
pub(super) struct Put {
    pub(super) path: &'static str,
    pub(super) body: Value,
}

impl MachineConfig {
    /// # Errors
    /// What would be cut off or misread instead of refused.
    pub(super) fn requests(&self) -> Result<Vec<Put>, PlanError> {
        let bytes = self.cmdline.len();
        if bytes > MAX_CMDLINE || self.cmdline.contains(['\0', '\n']) {
            let max = MAX_CMDLINE;
            return Err(PlanError::Cmdline { bytes, max });
        }
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            let (vcpus, max) = (self.vcpus, MAX_VCPUS);
            return Err(PlanError::Vcpus { vcpus, max });
        }
        let put = |path, body| Put { path, body };
        let mut requests = vec![
            put(
                "/machine-config",
                json!({"vcpu_count": self.vcpus, "mem_size_mib": self.memory_mib}),
            ),
            put(
                "/boot-source",
                json!({
                    "kernel_image_path": descriptor(KERNEL),
                    "initrd_path": descriptor(INITRD),
                    "boot_args": self.cmdline,
                }),
            ),
            // Not the "root device", which would add `root=` to the command line: the guest
            // finds its disk by the serial number.
            put(
                "/drives/root",
                json!({
                    "drive_id": "root",
                    "path_on_host": descriptor(ROOT_DISK),
                    "is_root_device": false,
                    "is_read_only": false,
                    // Or what the guest has flushed would be lost with the host's power.
                    "cache_type": "Writeback",
                }),
            ),
            put(
                "/vsock",
                json!({
                    "guest_cid": GUEST_CID,
                    "uds_path": format!("{}/{VSOCK_SOCKET}", descriptor(DIRECTORY)),
                }),
            ),
            put("/entropy", json!({})),
            // Never inflated: by it the guest gives back pages that it does not use.
            put(
                "/balloon",
                json!({"amount_mib": 0, "deflate_on_oom": true, "free_page_reporting": true}),
            ),
        ];
        requests.extend(self.tap.as_ref().map(|tap| {
            put(
                "/network-interfaces/eth0",
                json!({
                    "iface_id": "eth0",
                    "host_dev_name": tap.name,
                    "guest_mac": mac(tap.mac),
                }),
            )
        }));
        Ok(requests)
    }
}

fn mac([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MachineConfig {
        MachineConfig {
            vcpus: 2,
            memory_mib: 1024,
            cmdline: "console=ttyS0".into(),
            tap: Some(TapNetwork {
                name: "bt7".into(),
                queue: None,
                mac: [2, 0x62, 0x6e, 0x67, 0, 7],
            }),
        }
    }

    #[test]
    fn every_request() {
        let lines: Vec<String> = config()
            .requests()
            .unwrap()
            .iter()
            .map(|put| format!("{} {}", put.path, put.body))
            .collect();
        assert_eq!(lines, EXPECTED.trim().lines().collect::<Vec<_>>());
    }

    #[test]
    fn what_would_be_cut_off_is_refused() {
        for cmdline in ["x".repeat(MAX_CMDLINE + 1), "a\0b".into(), "a\nb".into()] {
            let config = MachineConfig { cmdline, ..config() };
            assert!(matches!(config.requests(), Err(PlanError::Cmdline { .. })));
        }
        let config = MachineConfig {
            // 1 for whoever keeps eight bits.
            vcpus: 257,
            ..config()
        };
        assert!(matches!(
            config.requests(),
            Err(PlanError::Vcpus { vcpus: 257, .. })
        ));
    }

    const EXPECTED: &str = r#"
/machine-config {"mem_size_mib":1024,"vcpu_count":2}
/boot-source {"boot_args":"console=ttyS0","initrd_path":"/proc/self/fd/11","kernel_image_path":"/proc/self/fd/10"}
/drives/root {"cache_type":"Writeback","drive_id":"root","is_read_only":false,"is_root_device":false,"path_on_host":"/proc/self/fd/12"}
/vsock {"guest_cid":3,"uds_path":"/proc/self/fd/13/vsock.sock"}
/entropy {}
/balloon {"amount_mib":0,"deflate_on_oom":true,"free_page_reporting":true}
/network-interfaces/eth0 {"guest_mac":"02:62:6e:67:00:07","host_dev_name":"bt7","iface_id":"eth0"}
"#;
}
