//! What host and guest say to each other outside SSH: the identity that a boot is given,
//! and the messages on the control channel. Both sides use this module, so they cannot differ.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_GUEST_MESSAGE;

/// The TCP port of the guest's agent. Below 1024, so that no unprivileged process of the
/// guest can take it first, and not 22, which belongs to the image's own sshd.
pub const AGENT_PORT: u16 = 1022;
/// The name of the virtio-serial port that carries the control channel.
pub const CONTROL_PORT: &str = "org.banger.control.0";
/// The vsock port that carries the control channel where there is no virtio-serial port: the
/// guest connects to the host's when its agent starts, and takes the host's connections to its
/// own. Below 1024, so that no unprivileged process of the guest can take it.
pub const CONTROL_VSOCK_PORT: u32 = 1022;
/// A word of the kernel's command line: this machine ends by a reset, and not by being switched
/// off, which it has no way for.
pub const RESET_ENDS: &str = "banger.off=reset";
/// An `env` request of this name is the agent's own: the directory in which the process starts.
pub const WORKDIR_VARIABLE: &str = "BANGER_WORKDIR";
/// An `env` request of this name is the agent's own, and root's alone, whatever its value: the
/// directory of [`WORKDIR_VARIABLE`] is made, as root's, where the image has none.
pub const MAKE_WORKDIR_VARIABLE: &str = "BANGER_MAKE_WORKDIR";
/// An `env` request of this name is the agent's own, whatever its value: the words of the `exec`
/// request are the program and its arguments, quoted for a POSIX shell, and no shell is needed.
pub const WORDS_VARIABLE: &str = "BANGER_WORDS";
/// An `env` request of this name is the agent's own, and root's alone: the user as whom the
/// process runs, in the form of [`crate::image::Process::user`].
pub const USER_VARIABLE: &str = "BANGER_USER";
/// The serial number of the root disk (at most 20 bytes, virtio's limit).
pub const ROOT_SERIAL: &str = "banger-root";
/// Where the identity lies in the initramfs.
pub const IDENTITY_PATH: &str = "banger/identity.json";
/// Where the modules lie in the initramfs, beside two lists of their file names, one a line
/// and in the order to load them.
pub const MODULES_DIR: &str = "banger/modules";
/// The list of what the boot waits for: the disk, the network, the control channel.
pub const MODULES_ORDER: &str = "modules.order";
/// The list of what can be loaded once the agent runs.
pub const MODULES_LATER: &str = "modules.later";
/// The version of [`Identity`]; a guest program refuses another.
pub const IDENTITY_VERSION: u32 = 1;

/// Who this guest is: one JSON document in the per-VM archive of the initramfs (mode 0600),
/// applied at every boot, whatever the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub version: u32,
    pub vm_id: String,
    pub hostname: String,
    /// 32 lower-case hexadecimal digits (machine-id(5)), stable for the VM's life.
    pub machine_id: String,
    /// The serial number of the root disk, see [`ROOT_SERIAL`].
    pub root_serial: String,
    pub network: Option<GuestNetwork>,
    pub ssh: GuestSsh,
    /// Environment of everything that the agent runs.
    pub env: BTreeMap<String, String>,
}

/// A static configuration: no DHCP, nothing to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestNetwork {
    /// Lower-case, colon-separated; the interface is found by it.
    pub mac: String,
    pub address: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub dns: Vec<IpAddr>,
}

/// How the agent's SSH server knows itself and its one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestSsh {
    pub port: u16,
    /// An ed25519 private key in OpenSSH's format, made by the owner's daemon and pinned there.
    pub host_key: String,
    /// Lines of authorized_keys(5) without options.
    pub authorized_keys: Vec<String>,
}

/// A message of the guest: one JSON object a line on the control channel. The guest says
/// where it is again whenever the host connects, so a restarted daemon misses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum GuestMessage {
    /// The agent listens. `boot_id` tells one boot from the next.
    Ready {
        boot_id: String,
        /// The agent's version.
        version: String,
        /// What PID 1 of the image is: its path, or `banger-guest` where there is none.
        init: String,
        /// Milliseconds of the guest's own clock since its kernel started.
        uptime_ms: u64,
    },
    /// The agent was told to end, as by a guest that shuts down.
    Ending,
    /// The guest cannot boot; the text says why and ends on the console too.
    Failed { stage: String, message: String },
}

/// A message of the host on the same channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum HostMessage {
    /// Shut down in order: the image's own init where there is one.
    Poweroff,
    /// Say again where you are: answered by [`GuestMessage::Ready`]. A host that connects
    /// asks, so that a connection which the guest did not see end costs it nothing.
    Status,
    /// Set the clock to this time (microseconds since 1970, UTC).
    SetTime { unix_us: u64 },
}

/// What is wrong with a line of the control channel. The other side is hostile: nothing of
/// the line is repeated here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("The guest sent a message of more than {MAX_GUEST_MESSAGE} bytes")]
    TooLong,
    #[error("The guest sent a message that is not understood")]
    NotUnderstood,
}

impl GuestMessage {
    /// Reads one line, without its newline.
    ///
    /// # Errors
    /// When the line is too long, not JSON, or no known message.
    pub fn parse(line: &[u8]) -> Result<Self, MessageError> {
        if line.len() >= MAX_GUEST_MESSAGE {
            return Err(MessageError::TooLong);
        }
        serde_json::from_slice(line).map_err(|_| MessageError::NotUnderstood)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_each() {
        let ready = GuestMessage::Ready {
            boot_id: "b".into(),
            version: "0.1.0".into(),
            init: "/sbin/init".into(),
            uptime_ms: 7,
        };
        let line = serde_json::to_string(&ready).unwrap();
        assert_eq!(
            line,
            r#"{"event":"ready","boot_id":"b","version":"0.1.0","init":"/sbin/init","uptime_ms":7}"#
        );
        assert_eq!(GuestMessage::parse(line.as_bytes()), Ok(ready));
        assert_eq!(
            GuestMessage::parse(br#"{"event":"ending"}"#),
            Ok(GuestMessage::Ending)
        );
        assert_eq!(
            serde_json::to_string(&HostMessage::Poweroff).unwrap(),
            r#"{"request":"poweroff"}"#
        );
    }

    #[test]
    fn garbage_is_refused_and_not_repeated() {
        for line in [
            &b""[..],
            b"{}",
            b"{\"event\":\"\x1b[31m\"}",
            b"\xff\xfe",
            b"[[[[[[[[[",
            b"null",
        ] {
            assert_eq!(GuestMessage::parse(line), Err(MessageError::NotUnderstood));
        }
        assert_eq!(
            GuestMessage::parse(&[b' '; MAX_GUEST_MESSAGE]),
            Err(MessageError::TooLong)
        );
        assert_eq!(
            GuestMessage::parse(&[b'['; MAX_GUEST_MESSAGE - 1]),
            Err(MessageError::NotUnderstood)
        );
    }
}
