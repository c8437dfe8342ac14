//! `banger ssh-config`.

use std::net::IpAddr;
use std::path::Path;

use banger_model::VmName;
use clap::Args;

use super::vm::ssh::{FIXED, USER, alias, key};
use crate::client::{Client, dirs};
use crate::error::{Error, Result};
use crate::output;

/// Below it a VM is known to ssh, and in system mode to the host's resolver.
const DOMAIN: &str = "vm";

/// Write a configuration by which ssh, scp, sftp, rsync and editors reach VMs as NAME.vm
///
/// It is written to standard output and nowhere else. It has the addresses of the VMs that run
/// now: write it again after a VM has started.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger ssh-config > ~/.ssh/banger.conf && ssh -F ~/.ssh/banger.conf NAME.vm
  echo 'Include banger.conf' | cat - ~/.ssh/config    # first line, for plain ssh NAME.vm")]
pub(crate) struct SshConfig {
    /// Write it to standard output, which is what happens without it too
    #[arg(long)]
    print: bool,
}

impl SshConfig {
    pub(crate) async fn run(self) -> Result<()> {
        let dirs = dirs()?;
        let key = value(&key(&dirs)?)?;
        let known_hosts = value(&dirs.known_hosts())?;
        let client = Client::connect().await?;
        let mut text = String::from("# What `banger ssh-config` writes: the VMs that run now.\n");
        for vm in client.everything().await?.vms {
            if let Some(host) = host(&vm.name, &vm.address, vm.ssh_port, &alias(&vm)) {
                text.push_str(&host);
            }
        }
        text.push_str(&all(&key, &known_hosts));
        output::data(text.as_bytes())
    }
}

/// What is one VM's own; nothing of one that is not reached.
fn host(name: &str, address: &str, port: u32, alias: &str) -> Option<String> {
    let name: VmName = name.parse().ok()?;
    let address: IpAddr = address.parse().ok()?;
    Some(format!(
        "\nHost {name}.{DOMAIN}\n    HostName {address}\n    Port {port}\n    HostKeyAlias {alias}\n"
    ))
}

/// What all have in common.
fn all(key: &str, known_hosts: &str) -> String {
    let mut text = format!("\nHost *.{DOMAIN}\n    User {USER}\n    IdentityFile {key}\n");
    text.push_str(&format!("    UserKnownHostsFile {known_hosts}\n"));
    for (name, value) in FIXED {
        text.push_str(&format!("    {name} {value}\n"));
    }
    text
}

/// A path as ssh_config(5) reads it: in quotes, and without its tokens.
fn value(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| {
        let special = |c: char| c == '"' || c == '\\' || c.is_control();
        !text.contains(special) && !text.contains("${")
    });
    text.map(|text| format!("\"{}\"", text.replace('%', "%%")))
        .ok_or_else(|| {
            Error::refused(
                format!("ssh cannot read the path {path:?} in a configuration"),
                "Use `banger vm ssh` instead",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_that_runs_has_a_block() {
        let expected =
            "\nHost alpha.vm\n    HostName 10.119.0.16\n    Port 1022\n    HostKeyAlias banger-00\n";
        let block = |address| host("alpha", address, 1022, "banger-00");
        assert_eq!(block("10.119.0.16").as_deref(), Some(expected));
        for other in ["", "10.119.0.16\n    ProxyCommand id"] {
            assert_eq!(block(other), None);
        }
    }

    #[test]
    fn a_path_is_one_word_or_refused() {
        assert_eq!(value(Path::new("/a b/%h")).unwrap(), "\"/a b/%%h\"");
        for bad in ["/a\"b", "/a\nb", "/${HOME}"] {
            assert!(value(Path::new(bad)).is_err(), "{bad:?}");
        }
    }
}
