//! `banger vm cp`.

use std::path::Path;

use banger_bus::{CopyOptions, JobOutcome};
use clap::{Args, CommandFactory, ValueHint, error::ErrorKind};

use super::workspace::absolute;
use crate::cli::Cli;
use crate::client::{Client, done};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::{self, Finished, Progress, ProgressArgs, View};

/// Copy a file or a directory into a VM or out of it
///
/// One side is VM:PATH. As cp -a: into the target where that is a directory, else to that name.
/// Modes, times and symbolic links are kept, owners are not. A relative path of the guest begins
/// at its user's home. A path of the host with a colon is written with a slash before the colon,
/// as ./a:b.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger vm cp report.pdf a:
  banger vm cp ./data a:/srv/data
  banger vm cp a:/var/log/app.log .")]
pub(crate) struct Cp {
    /// What to copy: PATH or VM:PATH
    #[arg(value_name = "SOURCE", add = completion::vm_paths(), value_hint = ValueHint::AnyPath)]
    source: String,
    /// Where to: VM:PATH or PATH
    #[arg(value_name = "TARGET", add = completion::vm_paths(), value_hint = ValueHint::AnyPath)]
    target: String,
    /// Follow a symbolic link that is named itself
    #[arg(long, short = 'L')]
    follow_link: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Host(&'a str),
    Guest { vm: &'a str, path: &'a str },
}

impl Cp {
    pub(crate) async fn run(self) -> Result<()> {
        match (Side::read(&self.source), Side::read(&self.target)) {
            (Side::Host("-"), _) | (_, Side::Host("-")) => misused(
                "standard input and output are no side of a copy: write `tar -c X | banger vm exec VM -- tar -x`",
            ),
            (Side::Host(_), Side::Host(_)) => misused("one side must be in a VM: write it as VM:PATH"),
            (Side::Guest { .. }, Side::Guest { .. }) => {
                misused("one side must be on this host: copy to a directory here first")
            }
            (Side::Host(source), Side::Guest { vm, path }) => self.copy_in(source, vm, path).await,
            (Side::Guest { vm, path }, Side::Host(target)) => self.copy_out(vm, path, target).await,
        }
    }

    async fn copy_in(&self, source: &str, vm: &str, target: &str) -> Result<()> {
        let source = absolute(Path::new(source))?;
        let target = if target.is_empty() { "." } else { target };
        self.copy(vm, &format!("{vm}:{target}"), async |client, view| {
            let vm = client.vm(vm).await?;
            let call = vm
                .proxy
                .copy_in(source.clone(), target.to_owned(), self.options());
            done(client.run_job(view, call).await?)
        })
        .await
    }

    async fn copy_out(&self, vm: &str, source: &str, target: &str) -> Result<()> {
        if source.is_empty() {
            misused("name what to copy of the VM: VM:PATH")
        }
        let to = absolute(Path::new(target))?;
        self.copy(vm, target, async |client, view| {
            let vm = client.vm(vm).await?;
            let call = vm.proxy.copy_out(source.to_owned(), to.clone(), self.options());
            done(client.run_job(view, call).await?)
        })
        .await
    }

    async fn copy(
        &self,
        vm: &str,
        to: &str,
        copy: impl AsyncFn(&Client, View) -> Result<JobOutcome>,
    ) -> Result<()> {
        let client = Client::connect().await?;
        let progress = Progress::new(self.progress);
        each(&[vm.to_owned()], self.progress, async |_, view| {
            let outcome = copy(&client, view).await?;
            super::workspace::tell(&outcome.names, &progress);
            let much = outcome.bytes.map(output::bytes).unwrap_or_default();
            let line = ["Copied", &much, "to", to]
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
                .join(" ");
            Ok(Finished::from(line)
                .with("bytes", outcome.bytes)
                .with("notes", outcome.names))
        })
        .await
    }

    fn options(&self) -> CopyOptions {
        CopyOptions {
            follow: self.follow_link.then_some(true),
        }
    }
}

impl<'a> Side<'a> {
    /// As docker has it: what is before the first colon is a VM's, unless it looks like a path.
    fn read(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((vm, path)) if !vm.is_empty() && !vm.starts_with('.') && !vm.contains('/') => {
                Self::Guest { vm, path }
            }
            _ => Self::Host(text),
        }
    }
}

/// Ends the program as a command line does that cannot be read.
fn misused(text: &str) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, text).exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_read_as_docker_does() {
        let guest = |vm, path| Side::Guest { vm, path };
        assert_eq!(Side::read("a:/x:y"), guest("a", "/x:y"));
        assert_eq!(Side::read("a:"), guest("a", ""));
        for host in ["x", "./a:b", "/a:b", "../a:b", "dir/a:b", ":x", "."] {
            assert_eq!(Side::read(host), Side::Host(host), "{host}");
        }
    }
}
