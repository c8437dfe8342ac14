//! The command line's shape: one enum for each noun.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    completion, daemon, doctor, engine, image, kernel, man, ssh_config, system, version, vm,
};
use crate::error::Result;
use crate::exit;

/// Disposable Linux machines in one command
///
/// `banger vm run` makes a virtual machine and opens a shell in it; `banger vm run --rm -- CMD`
/// runs one command in a new machine and leaves nothing behind.
#[derive(Debug, Parser)]
#[command(name = "banger", bin_name = "banger", version, propagate_version = false)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Virtual machines
    #[command(subcommand)]
    Vm(Box<Vm>),
    /// Root file systems that VMs start from
    #[command(subcommand)]
    Image(Image),
    /// Kernels that VMs boot
    #[command(subcommand)]
    Kernel(Kernel),
    /// Programs that run VMs
    #[command(subcommand)]
    Engine(Engine),
    /// List VMs: the same as `banger vm list`
    Ps(vm::list::List),
    Doctor(doctor::Doctor),
    SshConfig(ssh_config::SshConfig),
    /// The daemon behind it all
    #[command(subcommand)]
    Daemon(Daemon),
    /// System mode: VMs by a root helper, on a network of their own
    #[command(subcommand)]
    System(System),
    Version(version::Version),
    Completion(completion::Completion),
    #[command(hide = true)]
    Man(man::Man),
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, and it is made once")]
enum Vm {
    Run(vm::run::Run),
    Create(vm::create::Create),
    Start(vm::start::Start),
    Stop(vm::stop::Stop),
    Restart(vm::restart::Restart),
    Kill(vm::kill::Kill),
    #[command(visible_alias = "rm")]
    Delete(vm::delete::Delete),
    #[command(visible_alias = "ls")]
    List(vm::list::List),
    Show(vm::show::Show),
    Exec(vm::exec::Exec),
    Ssh(vm::ssh::Ssh),
    Logs(vm::logs::Logs),
    Pause(vm::pause::Pause),
    Resume(vm::resume::Resume),
    Prune(vm::prune::Prune),
    /// Repositories of this host in VMs
    #[command(subcommand)]
    Workspace(vm::workspace::Workspace),
    Cp(vm::cp::Cp),
    Ports(vm::ports::Ports),
    /// Ports of VMs at 127.0.0.1 of this host
    #[command(subcommand)]
    Port(vm::port::Port),
    Stats(vm::stats::Stats),
    Set(vm::set::Set),
    Rename(vm::rename::Rename),
}

#[derive(Debug, Subcommand)]
enum Image {
    Pull(image::pull::Pull),
    #[command(visible_alias = "ls")]
    List(image::list::List),
    Show(image::show::Show),
    Register(image::register::Register),
    Promote(image::promote::Promote),
    Tag(image::tag::Tag),
    #[command(visible_alias = "rm")]
    Delete(image::delete::Delete),
    Prune(image::prune::Prune),
    Export(image::export::Export),
    Publish(image::publish::Publish),
}

#[derive(Debug, Subcommand)]
enum Kernel {
    Pull(kernel::pull::Pull),
    #[command(visible_alias = "ls")]
    List(kernel::list::List),
    Show(kernel::show::Show),
    Import(kernel::import::Import),
    #[command(visible_alias = "delete")]
    Rm(kernel::rm::Rm),
    Export(kernel::export::Export),
    Publish(kernel::publish::Publish),
}

#[derive(Debug, Subcommand)]
enum Engine {
    Install(engine::install::Install),
}

#[derive(Debug, Subcommand)]
enum Daemon {
    Status(daemon::status::Status),
}

#[derive(Debug, Subcommand)]
enum System {
    Install(system::install::Install),
    Status(system::status::Status),
    Restart(system::restart::Restart),
    Uninstall(system::uninstall::Uninstall),
}

impl Cli {
    pub(crate) async fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Vm(vm) => return vm.run().await,
            Command::Image(image) => image.run().await,
            Command::Kernel(kernel) => kernel.run().await,
            Command::Engine(Engine::Install(install)) => install.run().await,
            Command::Ps(list) => list.run().await,
            Command::Doctor(doctor) => doctor.run().await,
            Command::SshConfig(config) => config.run().await,
            Command::Daemon(Daemon::Status(status)) => status.run().await,
            Command::System(system) => system.run().await,
            Command::Version(version) => version.run(),
            Command::Completion(completion) => completion.run(),
            Command::Man(man) => man.run(),
        };
        ordinary(result)
    }
}

impl Vm {
    async fn run(self) -> ExitCode {
        ordinary(match self {
            Self::Run(run) => return in_guest(run.run().await),
            Self::Exec(exec) => return in_guest(exec.run().await),
            Self::Ssh(ssh) => return in_guest(ssh.run().await),
            Self::Create(create) => create.run().await,
            Self::Start(start) => start.run().await,
            Self::Stop(stop) => stop.run().await,
            Self::Restart(restart) => restart.run().await,
            Self::Kill(kill) => kill.run().await,
            Self::Delete(delete) => delete.run().await,
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Logs(logs) => logs.run().await,
            Self::Pause(pause) => pause.run().await,
            Self::Resume(resume) => resume.run().await,
            Self::Prune(prune) => prune.run().await,
            Self::Workspace(workspace) => workspace.run().await,
            Self::Cp(cp) => cp.run().await,
            Self::Ports(ports) => ports.run().await,
            Self::Port(port) => port.run().await,
            Self::Stats(stats) => stats.run().await,
            Self::Set(set) => set.run().await,
            Self::Rename(rename) => rename.run().await,
        })
    }
}

impl Image {
    async fn run(self) -> Result<()> {
        match self {
            Self::Pull(pull) => pull.run().await,
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Register(register) => register.run().await,
            Self::Promote(promote) => promote.run().await,
            Self::Tag(tag) => tag.run().await,
            Self::Delete(delete) => delete.run().await,
            Self::Prune(prune) => prune.run().await,
            Self::Export(export) => export.run().await,
            Self::Publish(publish) => publish.run().await,
        }
    }
}

impl Kernel {
    async fn run(self) -> Result<()> {
        match self {
            Self::Pull(pull) => pull.run().await,
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Import(import) => import.run().await,
            Self::Rm(rm) => rm.run().await,
            Self::Export(export) => export.run().await,
            Self::Publish(publish) => publish.run().await,
        }
    }
}

impl System {
    async fn run(self) -> Result<()> {
        match self {
            Self::Install(install) => install.run().await,
            Self::Status(status) => status.run().await,
            Self::Restart(restart) => restart.run().await,
            Self::Uninstall(uninstall) => uninstall.run().await,
        }
    }
}

fn ordinary(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error, exit::ordinary(&error)),
    }
}

fn in_guest(result: Result<u8>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => exit::report(&error, exit::in_guest(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;
    use std::{env, fs};

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Help is part of the interface: a change of it is seen in the review.
    #[test]
    fn help_is_as_recorded() {
        let mut text = String::new();
        // A width of its own: not the terminal's of whoever runs the test.
        let mut root = Cli::command().term_width(100);
        root.build();
        collect(&mut root, &mut text);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/help.txt");
        if env::var_os("BANGER_UPDATE_SNAPSHOTS").is_some() {
            fs::write(&file, &text).unwrap();
        }
        let recorded = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            recorded == text,
            "the help has changed; look at it, and record it with BANGER_UPDATE_SNAPSHOTS=1"
        );
    }

    fn collect(command: &mut clap::Command, text: &mut String) {
        let help = command.render_long_help();
        writeln!(
            text,
            "=== {}\n{}",
            command.get_bin_name().unwrap_or_default(),
            help
        )
        .unwrap();
        for sub in command
            .get_subcommands_mut()
            .filter(|sub| sub.get_name() != "help")
        {
            collect(sub, text);
        }
    }

    #[test]
    fn a_command_comes_after_two_dashes() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        for good in [
            "banger vm run",
            "banger vm run --rm -- sh -c exit",
            "banger vm run PATH --new --branch b --from HEAD --include-untracked --mode full_copy -- make",
            "banger vm run PATH --dry-run -z",
            "banger vm set a b --vcpu 2 --memory 1G -l a=b --remove-label c",
            "banger vm port add a 80 3000:81",
            "banger vm workspace prepare a . --dry-run -z --guest-path /srv",
            "banger vm workspace export a --to b --force",
            "banger vm stats --watch a",
            "banger vm prune -f --filter label=x",
            "banger vm run --name a --vcpu 2 --memory 2G --disk-size 9G -e A=b -l c=d --no-network -t",
            "banger vm exec a -it --workdir /srv -e A=b -- ls -l",
            "banger vm delete -f a b",
            "banger ps -a -q --filter label=x",
            "banger image register a --rootfs r --kernel k --modules m",
            "banger image register --name a --rootfs r --kernel-ref k",
            "banger vm run --image alpine:3.20 --entrypoint -u 1000:1000 -w /srv -- -x",
            "banger image pull --offline --insecure -f --name a localhost:5000/a@sha256:0",
            "banger image prune -a -y",
            "banger image prune --all --force",
            "banger image export a --bundle -o b --force",
            "banger image publish a b --base-url https://c/ --description d",
            "banger system install --prefix /opt/b --force",
            "banger system uninstall --force",
            "banger system status --json",
        ] {
            assert!(parse(good).is_ok(), "{good}: {}", parse(good).unwrap_err());
        }
        for bad in [
            "banger",
            "banger vm run --new",
            "banger vm run PATH --from HEAD",
            "banger vm run PATH -z",
            "banger vm run --dry-run",
            "banger vm run PATH OTHER",
            "banger vm set a",
            "banger vm port add a x",
            "banger vm port remove a 0",
            "banger vm cp a:x",
            "banger vm rename a B",
            "banger vm workspace export a --to b --patch c",
            "banger vm run --memory 0",
            "banger vm run --vcpu 0",
            "banger vm run --engine xen",
            "banger vm run --network none --no-network",
            "banger vm exec a",
            "banger vm exec a -t -T -- ls",
            "banger vm exec a --workdir srv -- ls",
            "banger vm delete",
            "banger ps -q --json",
            "banger image register a --rootfs r --kernel k --kernel-ref k",
            "banger image register --rootfs r",
            "banger image pull",
            "banger image pull a --name -a",
            "banger image tag a",
            "banger image tag a b+c",
            "banger image publish a",
            "banger vm exec a --entrypoint -- ls",
            "banger vm exec a --user a:b:c -- ls",
            "banger system",
            "banger system install --force --destdir d",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
