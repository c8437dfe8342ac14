//! `banger vm exec`.

use std::io::{IsTerminal, stderr};

use banger_bus::{VmInfo, WorkspaceOptions};
use banger_model::image::check_user;
use clap::Args;

use super::Name;
use super::workspace::{self, notes, sync, tell};
use crate::client::{Client, Vm};
use crate::error::Result;
use crate::output::{self, Progress, ProgressArgs};
use crate::parse::{self, Pair};
use crate::terminal::{self, GuestCommand};

/// Run a command in a VM, with this command's standard streams
///
/// In a VM with a workspace it starts there, unless --workdir says otherwise. When the repository
/// has another commit by now, one line says so.
///
/// The exit status is the command's own, and 128+N when signal N ended it. 125: banger could
/// not run it; 126: it cannot be executed; 127: it was not found.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger vm exec a -- uname -a
  banger vm exec a --user www-data -- id
  tar -c . | banger vm exec a --workdir /srv -- tar -x
  banger vm exec a -- sh -c 'cd /tmp && ls | wc -l'")]
pub(crate) struct Exec {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    env: EnvArgs,
    /// Bring what has changed of the VM's repository first
    #[arg(long)]
    auto_prepare: bool,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// How a command in a guest is run.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    /// Run as this user of the guest: a name or a number [default: the image's user]
    #[arg(long, short, value_name = "USER[:GROUP]", value_parser = user)]
    pub(super) user: Option<String>,
    /// Start in this directory of the guest [default: the workspace, else the image's, else the user's home]
    #[arg(long, short, value_name = "DIR", value_parser = absolute)]
    pub(super) workdir: Option<String>,
    /// Give the command a terminal [default: when standard input and output are terminals]
    #[arg(long, short = 't')]
    tty: bool,
    /// Never give it one
    #[arg(long, short = 'T', conflicts_with = "tty")]
    no_tty: bool,
    /// Standard input is always passed on: accepted for the habit of `-it`
    #[arg(long, short, hide = true)]
    interactive: bool,
}

/// An environment variable of one command.
#[derive(Debug, Args)]
struct EnvArgs {
    /// An environment variable of the command; may be repeated
    #[arg(long = "env", short = 'e', value_name = "KEY=VALUE", value_parser = parse::pair)]
    env: Vec<Pair>,
}

impl Exec {
    pub(crate) async fn run(self) -> Result<u8> {
        let client = Client::connect().await?;
        let vm = client.vm(&self.name.name).await?;
        self.prepare(&client, &vm).await?;
        let command = GuestCommand {
            argv: self.command,
            env: parse::map(&self.env.env),
            working_directory: self.session.workdir.clone(),
            user: self.session.user.clone(),
            entrypoint: false,
            terminal: self.session.terminal(),
        };
        terminal::run(&client, &vm, command).await
    }

    /// Sees that the workspace is what the user thinks it is.
    async fn prepare(&self, client: &Client, vm: &Vm) -> Result<()> {
        if !self.auto_prepare && self.session.workdir.is_some() {
            return Ok(());
        }
        let info = client.vm_info(vm).await?;
        if self.auto_prepare {
            return bring(client, vm, &info).await;
        }
        // What cannot be told keeps no command from running.
        if !info.workspace.is_empty() && vm.proxy.check_workspace().await.is_ok_and(|(stale, _)| stale) {
            output::note(&format!(
                "banger: Warning: {} has another commit than the workspace of {}: `--auto-prepare` brings it",
                output::plain(&info.workspace),
                info.name
            ));
        }
        Ok(())
    }
}

async fn bring(client: &Client, vm: &Vm, info: &VmInfo) -> Result<()> {
    if info.workspace.is_empty() {
        return Err(workspace::none(&info.name));
    }
    // Standard error is the command's own, unless somebody watches.
    let progress = Progress::new(ProgressArgs {
        quiet: !stderr().is_terminal(),
        json: false,
    });
    let options = WorkspaceOptions::default();
    let finished = sync(client, vm, info.workspace.clone(), options, progress.view("")).await?;
    tell(&notes(&finished), &progress);
    Ok(())
}

impl SessionArgs {
    pub(super) fn terminal(&self) -> bool {
        self.tty || (!self.no_tty && terminal::wants_terminal())
    }
}

pub(super) fn absolute(text: &str) -> std::result::Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("write an absolute path of the guest".to_owned())
    }
}

fn user(text: &str) -> std::result::Result<String, String> {
    check_user(text)
        .map(|()| text.to_owned())
        .map_err(|e| e.to_string())
}
