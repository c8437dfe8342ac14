//! `banger vm ssh`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_bus::VmInfo;
use banger_model::ssh_config::{FIXED, USER};
use banger_model::{Config, Dirs};
use clap::Args;

use super::Name;
use crate::client::{Client, dirs};
use crate::error::{Error, Result};

/// Open a shell in a VM, or run a command, with the system's `ssh`
///
/// The guest's host key is known beforehand. The exit status is that of `ssh`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger vm ssh a
  banger vm ssh a -- uptime")]
pub(crate) struct Ssh {
    #[command(flatten)]
    name: Name,
    /// A command for the guest's shell, after `--`
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Ssh {
    pub(crate) async fn run(self) -> Result<u8> {
        let client = Client::connect().await?;
        let vm = client.vm(&self.name.name).await?;
        let info = client.vm_info(&vm).await?;
        if info.ssh_port == 0 || info.address.is_empty() {
            return Err(Error::refused(
                format!("The VM {} does not run: it is {}", info.name, info.state),
                &format!("Start it with `banger vm start {}`", info.name),
            ));
        }
        let dirs = dirs()?;
        let error = Command::new("ssh")
            .args(arguments(&info, &key(&dirs)?, &dirs.known_hosts()))
            .args(&self.command)
            .exec();
        Err(if error.kind() == io::ErrorKind::NotFound {
            Error::refused(
                "There is no `ssh` here",
                "Install the package openssh-client, or use `banger vm exec`",
            )
        } else {
            Error::io("Cannot run `ssh`", error)
        })
    }
}

/// The owner's key: the configured one, else the one that the daemon has made.
pub(crate) fn key(dirs: &Dirs) -> Result<PathBuf> {
    let path = dirs.config_file();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(format!("Cannot read {path:?}"), e)),
    };
    let config = Config::parse(&text).map_err(|source| Error::Config { path, source })?;
    match config.ssh_key_path {
        Some(key) => {
            let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            Ok(key.resolve(&home))
        }
        None => Ok(dirs.ssh_key()),
    }
}

/// Nothing of the user's own configuration: a `Host *` there is not about these guests.
fn arguments(info: &VmInfo, key: &Path, known_hosts: &Path) -> Vec<OsString> {
    let option = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        let mut text = OsString::from(format!("{name}="));
        text.push(value);
        [OsString::from("-o"), text]
    };
    let mut arguments: Vec<OsString> = vec!["-F".into(), "none".into(), "-i".into(), key.into()];
    arguments.extend([
        "-p".into(),
        info.ssh_port.to_string().into(),
        "-l".into(),
        USER.into(),
    ]);
    arguments.extend(option("UserKnownHostsFile", &quoted(known_hosts)));
    arguments.extend(option("HostKeyAlias", &alias(info)));
    for (name, value) in FIXED {
        arguments.extend(option(name, &value));
    }
    arguments.extend(["--".into(), info.address.clone().into()]);
    arguments
}

/// The option takes several files, so blanks in one need quotes (ssh_config(5)).
fn quoted(path: &Path) -> OsString {
    let mut text = OsString::from("\"");
    text.push(path);
    text.push("\"");
    text
}

/// A name of its own for each VM: addresses and ports are given again.
fn alias(info: &VmInfo) -> String {
    format!("banger-{}", info.id)
}
