//! `banger vm run`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use banger_bus::{ErrorKind, StartOptions, VmInfo};
use banger_model::VmState;
use clap::{Args, ValueHint};

use super::exec::SessionArgs;
use super::spec::SpecArgs;
use super::workspace::listing::{self, Form};
use super::workspace::{Place, WorkspaceArgs, notes, sync, tell};
use crate::client::{Client, Vm, done};
use crate::error::{Error, Result};
use crate::output::{self, Progress, ProgressArgs};
use crate::terminal::{self, GuestCommand};

/// Make a VM and open a shell in it, or run a command in it
///
/// With PATH the git repository around that directory comes along: its commit, and the tracked
/// files as they are on the disk. The shell or the command starts in it. The same directory run
/// again finds its VM, starts it where it is stopped, and brings what has changed.
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
  banger vm run ./repo                           a shell in a repository
  banger vm run ./repo -- make test              one command in it
  banger vm run --rm -- uname -a                 one command, nothing left
  banger vm run --image alpine:3.20              a shell in an image of a registry
  banger vm run --rm --image X --entrypoint      what a container of X would run
  banger vm run --name a --memory 4G --vcpu 4    a shell; the VM stays afterwards")]
pub(crate) struct Run {
    /// A repository, or a directory inside one, to work on
    #[arg(value_name = "PATH", value_hint = ValueHint::DirPath)]
    path: Option<PathBuf>,
    /// The new VM's name: 1 to 63 of a-z, 0-9 and '-' [default: banger finds one]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Make a new VM although one has the repository; --rm does so too
    #[arg(long, requires = "path")]
    new: bool,
    /// Print the files that would go in, a line each, and their mode; make nothing
    #[arg(long, requires = "path", conflicts_with_all = ["command", "rm", "entrypoint"])]
    dry_run: bool,
    /// End each name of --dry-run with a NUL, and quote nothing
    #[arg(long = "null", short = 'z', requires = "dry_run")]
    null: bool,
    #[command(flatten, next_help_heading = "Workspace")]
    workspace: WorkspaceArgs,
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
        let place = self.path.as_deref().map(Place::find).transpose()?;
        let client = Client::connect().await?;
        let progress = Progress::new(ProgressArgs {
            quiet: self.quiet,
            json: false,
        });
        if let (true, Some(place)) = (self.dry_run, &place) {
            let form = if self.null { Form::Null } else { Form::Lines };
            let options = self.workspace.options(false);
            listing::show(&client, &place.directory, options, form, &progress).await?;
            return Ok(0);
        }
        let vm = match &place {
            Some(place) => self.with_workspace(&client, place, &progress).await?,
            None => self.create(&client, &progress).await?,
        };
        self.session(&client, &vm, &progress).await
    }

    async fn session(&self, client: &Client, vm: &Vm, progress: &Progress) -> Result<u8> {
        let command = GuestCommand {
            argv: self.command.clone(),
            env: None,
            working_directory: self.session.workdir.clone(),
            user: self.session.user.clone(),
            entrypoint: self.entrypoint,
            terminal: self.session.terminal(),
        };
        let status = terminal::run(client, vm, command).await;
        if self.rm {
            self.delete(client, vm, progress).await;
        } else if self.is_shell() && !self.quiet {
            say_what_stays(client, vm).await;
        }
        status
    }

    fn is_shell(&self) -> bool {
        self.command.is_empty() && !self.entrypoint
    }

    /// The VM that has the repository, or a new one, with the repository as it is now.
    async fn with_workspace(&self, client: &Client, place: &Place, progress: &Progress) -> Result<Vm> {
        if !self.new && !self.rm {
            let vms = client.everything().await?.vms;
            if let Some(info) = place.vm(&vms, self.name.as_deref()) {
                return self.again(client, place, info, progress).await;
            }
        }
        // First, so that no VM is made for a repository that cannot be used.
        listing::check(client, &place.directory, self.workspace.options(false)).await?;
        let vm = self.create(client, progress).await?;
        match self.bring(client, &vm, place, progress).await {
            Ok(()) => Ok(vm),
            Err(error) if self.rm => {
                self.delete(client, &vm, progress).await;
                Err(error)
            }
            Err(error) => Err(stays(client, vm.path, error).await),
        }
    }

    /// The VM of an earlier run. A shell opens also where the guest's own changes are in the way:
    /// somebody must look at them.
    async fn again(&self, client: &Client, place: &Place, info: &VmInfo, progress: &Progress) -> Result<Vm> {
        if !self.quiet {
            output::note(&super::spec::line_of(info));
            output::note(&format!(
                "Using the VM {}, which has this repository (--new makes another)",
                info.name
            ));
            let other = self.spec.other_than(info);
            if !other.is_empty() {
                output::note(&format!(
                    "It stays as it is; for a new one only: {} (`banger vm set {}` changes it)",
                    other.join(", "),
                    info.name
                ));
            }
        }
        let vm = client.vm(&info.id).await?;
        match info.state.parse() {
            Ok(VmState::Stopped) => {
                let call = vm.proxy.start(StartOptions::default());
                done(Box::pin(client.run_job(progress.view(""), call)).await?)?;
            }
            Ok(VmState::Paused) => vm.proxy.resume().await?,
            _ => {}
        }
        match self.bring(client, &vm, place, progress).await {
            Err(error) if self.is_shell() && error.kind() == Some(ErrorKind::WouldOverwrite) => {
                progress.around(|| crate::exit::tell(None, &error));
            }
            result => result?,
        }
        Ok(vm)
    }

    async fn bring(&self, client: &Client, vm: &Vm, place: &Place, progress: &Progress) -> Result<()> {
        let options = self.workspace.options(false);
        let finished = sync(client, vm, place.directory.clone(), options, progress.view("")).await?;
        tell(&notes(&finished), progress);
        Ok(())
    }

    /// Makes and starts the VM. One that was made but never became reachable stays, so that
    /// its console can be read.
    async fn create(&self, client: &Client, progress: &Progress) -> Result<Vm> {
        let manager = client.manager().await?;
        if !self.quiet {
            output::note(&self.spec.line(&manager).await?);
        }
        let call = manager.create_vm(self.name.clone().unwrap_or_default(), self.spec.options(true));
        let ended = Box::pin(client.run_job(progress.view(""), call)).await?;
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
