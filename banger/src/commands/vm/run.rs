//! `banger vm run`.

use std::io::IsTerminal;
use std::time::Duration;

use banger_bus::VmInfo;
use banger_model::VmState;
use clap::Args;

use super::exec::SessionArgs;
use super::spec::SpecArgs;
use crate::client::{Client, Vm, done};
use crate::error::{Error, Result};
use crate::output::{self, Progress, ProgressArgs};
use crate::terminal::{self, GuestCommand};

/// Make a VM and open a shell in it, or run a command in it
///
/// Whatever is missing is pulled first: the image, its kernel. The first run takes minutes,
/// later ones seconds. The shell or the command has the environment of the image, its user and
/// its working directory.
///
/// The exit status is the command's own, and 128+N when signal N ended it. 125: banger failed;
/// 126: the command cannot be executed; 127: it was not found.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger vm run                                  a shell in a new Debian
  banger vm run --rm -- uname -a                 one command, nothing left
  banger vm run --image alpine:3.20              a shell in an image of a registry
  banger vm run --rm --image X --entrypoint      what a container of X would run
  banger vm run --name a --memory 4G --vcpu 4    a shell; the VM stays afterwards")]
pub(crate) struct Run {
    /// The new VM's name: 1 to 63 of a-z, 0-9 and '-' [default: banger finds one]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Delete the VM when the shell or the command ends, also after Ctrl-C; one that never became ready stays, for `banger vm logs`
    #[arg(long)]
    rm: bool,
    /// Run what a container of the image would run; words after `--` are its arguments instead of the image's own
    #[arg(long)]
    entrypoint: bool,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Show no progress, only errors
    #[arg(long, short)]
    quiet: bool,
    /// The command and its arguments, after `--` [default: the user's shell]
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// What deleting may take after the session: nobody wants to wait for it.
const DELETION: Duration = Duration::from_secs(10);

impl Run {
    pub(crate) async fn run(self) -> Result<u8> {
        let client = Client::connect().await?;
        let progress = Progress::new(ProgressArgs {
            quiet: self.quiet,
            json: false,
        });
        let vm = self.create(&client, &progress).await?;
        let interactive = self.command.is_empty() && !self.entrypoint;
        let command = GuestCommand {
            argv: self.command.clone(),
            env: None,
            working_directory: self.session.workdir.clone(),
            user: self.session.user.clone(),
            entrypoint: self.entrypoint,
            terminal: self.session.terminal(),
        };
        let status = terminal::run(&client, &vm, command).await;
        if self.rm {
            self.delete(&client, &vm, &progress).await;
        } else if interactive && !self.quiet {
            say_what_stays(&client, &vm).await;
        }
        status
    }

    /// Makes and starts the VM. One that was made but never became reachable stays, so that
    /// its console can be read.
    async fn create(&self, client: &Client, progress: &Progress) -> Result<Vm> {
        let manager = client.manager().await?;
        if !self.quiet {
            output::note(&self.spec.line(&manager).await?);
        }
        let call = manager.create_vm(self.name.clone().unwrap_or_default(), self.spec.options(true));
        let ended = client.run_job(progress.view(""), call).await?;
        let made = ended.outcome.object.clone();
        match (done(ended), made) {
            (Ok(_), Some(path)) => client.vm_at(path).await,
            (Ok(_), None) => Err(Error::Refused(
                "The daemon does not say what it has made".to_owned(),
            )),
            (Err(error), Some(path)) => Err(stays(client, path, error).await),
            (Err(error), None) => Err(error),
        }
    }

    async fn delete(&self, client: &Client, vm: &Vm, progress: &Progress) {
        let deleting = client.delete_vm(vm, Progress::Quiet.view(""));
        let error = match tokio::time::timeout(DELETION, deleting).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::refused(
                format!("The VM was not deleted within {} s", DELETION.as_secs()),
                "See `banger vm list -a`, and delete it with `banger vm delete -f`",
            ),
        };
        progress.around(|| crate::exit::tell(None, &error));
    }
}

/// Adds to an error that the VM is still there, if it is.
async fn stays(client: &Client, path: zbus::OwnedObjectPath, error: Error) -> Error {
    let info = async {
        let vm = client.vm_at(path).await?;
        client.vm_info(&vm).await
    };
    match (info.await, &error) {
        (Ok(VmInfo { name, .. }), Error::Bus(bus)) => Error::Bus(bus.clone().hint(format!(
            "The VM stays for a look: `banger vm logs {name}`; delete it with `banger vm delete -f {name}`"
        ))),
        _ => error,
    }
}

/// One line after an interactive session.
async fn say_what_stays(client: &Client, vm: &Vm) {
    let Ok(info) = client.vm_info(vm).await else {
        return;
    };
    let name = &info.name;
    let live = info.state.parse().is_ok_and(VmState::is_live);
    // After a raw session the cursor may stand anywhere.
    let start = if std::io::stderr().is_terminal() { "\r" } else { "" };
    output::note(&if live {
        format!(
            "{start}The VM {name} still runs: stop it with `banger vm stop {name}`, delete it with `banger vm delete -f {name}`"
        )
    } else {
        format!(
            "{start}The VM {name} is {}: start it with `banger vm start {name}`, delete it with `banger vm delete {name}`",
            info.state
        )
    });
}
