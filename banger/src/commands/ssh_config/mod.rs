//! `banger ssh-config`.

mod block;
mod file;
mod install;

use std::path::PathBuf;

use banger_bus::VmInfo;
use banger_model::{Dirs, ssh_config};
use clap::Args;

use super::vm::ssh::key;
use crate::client::{Client, dirs};
use crate::error::{Error, Result};
use crate::output;

/// Let ssh, scp, sftp, rsync and editors reach VMs as NAME.vm
///
/// Without an option the configuration for the VMs that run now is written to standard output.
/// --install puts one line into ~/.ssh/config, which includes a file of banger's own; the daemon
/// keeps that true when VMs start, stop and change their names.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger ssh-config --install && ssh NAME.vm
  banger ssh-config > banger.conf && ssh -F banger.conf NAME.vm")]
pub(crate) struct SshConfig {
    /// Write it to standard output, which is what happens without an option too
    #[arg(long)]
    print: bool,
    /// Have ~/.ssh/config include banger's file: a marked block at its top, and nothing else changes
    #[arg(long, conflicts_with = "print")]
    install: bool,
    /// Take that block out again; the file is then what it was, to the byte
    #[arg(long, conflicts_with_all = ["print", "install"])]
    uninstall: bool,
}

impl SshConfig {
    pub(crate) async fn run(self) -> Result<()> {
        let dirs = dirs()?;
        if self.uninstall {
            return install::uninstall();
        }
        let client = Client::connect().await?;
        if self.install {
            return install::install(&client, &dirs).await;
        }
        output::data(text(&client, &dirs).await?.as_bytes())
    }
}

/// The configuration for the VMs that run now.
async fn text(client: &Client, dirs: &Dirs) -> Result<String> {
    let vms = client.everything().await?.vms;
    let hosts = vms.iter().filter_map(host);
    ssh_config::text(hosts, &key(dirs)?, &dirs.known_hosts()).map_err(|error| unreadable(&error))
}

fn host(vm: &VmInfo) -> Option<ssh_config::Host> {
    ssh_config::Host::read(&vm.name, &vm.id, &vm.address, vm.ssh_port)
}

fn unreadable(error: &ssh_config::BadPath) -> Error {
    Error::refused(error.to_string(), "Use `banger vm ssh` instead")
}

/// The owner's own configuration.
fn own() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.filter(|home| home.is_absolute())
        .map(|home| home.join(".ssh/config"))
        .ok_or_else(|| {
            Error::refused(
                "HOME is not set to an absolute path",
                "Set it: the configuration is in ~/.ssh/config",
            )
        })
}
