//! What OpenSSH reads to reach VMs as `NAME.vm`: ssh_config(5). The daemon keeps a file of it true,
//! and the command line prints the same.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::{VmId, VmName};

/// Below it a VM is known to ssh, and in system mode to the host's resolver.
pub const DOMAIN: &str = "vm";
/// As whom a guest's agent lets one in.
pub const USER: &str = "root";
/// What holds for every guest: its key is known beforehand, the owner's key is the only way in.
pub const FIXED: [(&str, &str); 7] = [
    ("GlobalKnownHostsFile", "/dev/null"),
    ("StrictHostKeyChecking", "yes"),
    ("UpdateHostKeys", "no"),
    ("IdentitiesOnly", "yes"),
    ("PasswordAuthentication", "no"),
    ("KbdInteractiveAuthentication", "no"),
    ("LogLevel", "ERROR"),
];
/// What a `Host *` of the owner's must not turn on for guests: a way round by another host, and
/// for what runs in them the owner's agent and screen.
const NOT_FOR_GUESTS: [(&str, &str); 3] = [
    ("ProxyCommand", "none"),
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
];

/// A VM that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: VmName,
    pub address: IpAddr,
    pub port: u16,
    pub id: VmId,
}

/// A path that ssh cannot read in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ssh cannot read the path {0:?} in a configuration")]
pub struct BadPath(PathBuf);

impl Host {
    /// `None` for a VM that is not reached: one that does not run has no address and no port.
    pub fn read(name: &str, id: &str, address: &str, port: u32) -> Option<Self> {
        Some(Self {
            name: name.parse().ok()?,
            address: address.parse().ok()?,
            port: u16::try_from(port).ok().filter(|&port| port > 0)?,
            id: id.parse().ok()?,
        })
    }

    /// What the guest's key is listed under: addresses and ports are given again, ids are not.
    pub fn alias(&self) -> String {
        format!("banger-{}", self.id)
    }
}

/// The whole file.
///
/// # Errors
/// When a path has characters that ssh cannot read there.
pub fn text(
    hosts: impl IntoIterator<Item = Host>,
    key: &Path,
    known_hosts: &Path,
) -> Result<String, BadPath> {
    let mut text = String::from("# The VMs that run now. banger writes this file again when they change.\n");
    let mut write = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a text takes what is written to it");
    };
    for host in hosts {
        let Host {
            name, address, port, ..
        } = &host;
        write(format_args!("\nHost {name}.{DOMAIN}\n    HostName {address}\n"));
        write(format_args!(
            "    Port {port}\n    HostKeyAlias {}\n",
            host.alias()
        ));
    }
    write(format_args!("\nHost *.{DOMAIN}\n    User {USER}\n"));
    write(format_args!("    IdentityFile {}\n", value(key)?));
    write(format_args!("    UserKnownHostsFile {}\n", value(known_hosts)?));
    for (name, value) in FIXED.into_iter().chain(NOT_FOR_GUESTS) {
        write(format_args!("    {name} {value}\n"));
    }
    Ok(text)
}

/// The file's name for `Include`, which takes patterns: what would be one is refused.
///
/// # Errors
/// When ssh would read it as something else.
pub fn include(path: &Path) -> Result<String, BadPath> {
    let text = value(path)?;
    if text.contains(['*', '?', '[', '%']) {
        return Err(BadPath(path.to_owned()));
    }
    Ok(text)
}

/// A path as ssh_config(5) reads it: in quotes, and without its tokens.
fn value(path: &Path) -> Result<String, BadPath> {
    let text = path.to_str().filter(|text| {
        let special = |c: char| c == '"' || c == '\\' || c.is_control();
        !text.contains(special) && !text.contains("${")
    });
    text.map(|text| format!("\"{}\"", text.replace('%', "%%")))
        .ok_or_else(|| BadPath(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_that_runs_has_a_block() {
        let id = VmId::from_bytes([7; 16]);
        let read = |name, address, port| Host::read(name, &id.to_string(), address, port);
        let host = read("alpha", "10.119.0.16", 1022).unwrap();
        let text = text([host], Path::new("/key"), Path::new("/hosts")).unwrap();
        let block = format!(
            "\nHost alpha.vm\n    HostName 10.119.0.16\n    Port 1022\n    HostKeyAlias banger-{id}\n\nHost *.vm\n    User root\n    IdentityFile \"/key\"\n"
        );
        assert!(text.contains(&block), "{text}");
        for (name, address, port) in [
            ("alpha", "", 1),
            ("alpha", "127.0.0.1", 0),
            ("alpha", "127.0.0.1", 65536),
            ("al pha", "127.0.0.1", 1),
            ("alpha", "10.0.0.1\n    ProxyCommand id", 1),
        ] {
            assert_eq!(read(name, address, port), None, "{name:?} {address:?} {port}");
        }
    }

    #[test]
    fn a_path_is_one_word_or_refused() {
        assert_eq!(value(Path::new("/a b/%h")).unwrap(), "\"/a b/%%h\"");
        for bad in ["/a\"b", "/a\nb", "/${HOME}"] {
            assert!(value(Path::new(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(include(Path::new("/a b/c")).unwrap(), "\"/a b/c\"");
        for bad in ["/a*", "/[a]", "/a?", "/%h"] {
            assert!(include(Path::new(bad)).is_err(), "{bad:?}");
        }
    }
}
