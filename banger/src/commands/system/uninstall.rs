//! `banger system uninstall`.

use std::fs;
use std::path::Path;

use clap::Args;

use banger_model::slot::NETWORK_UNIT;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::layout::{Layout, Place};
use super::manifest::Manifest;
use super::units::{self, GROUP, HELPER_UNIT, SLICES, VM_SCOPES};
use super::{host, install, place, restart};
use crate::error::{Error, Result};
use crate::{exit, output};

/// Turn system mode off and take back everything that `install` did
///
/// VMs, images and settings of users stay where they are: user mode goes on with them. Files of
/// a package stay with the package.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Stop VMs that run, and remove files that somebody changed
    #[arg(long)]
    force: bool,
}

/// What services keep between two runs.
const STATE: [&str; 4] = [
    "/var/lib/banger-helper",
    "/run/banger-helper",
    "/run/banger-network",
    "/var/lib/banger-network",
];

impl Uninstall {
    pub(crate) async fn run(self) -> Result<()> {
        host::root("remove")?;
        let root = Path::new("/");
        if !restart::is_installed().await? {
            output::note("System mode is not installed: nothing to remove");
            return Ok(());
        }
        let _lock = install::lock()?;
        let manifest = Manifest::load(root)?.unwrap_or(Manifest {
            packaged: true,
            ..Manifest::default()
        });
        self.check_vms().await?;
        let mut errors = stop().await;
        end_daemons(&manifest);
        let (changed, failed) = place::remove(root, manifest.files.keys(), &manifest, self.force);
        errors.extend(failed);
        for directory in STATE.map(Path::new) {
            errors.extend(place::gone(fs::remove_dir_all(directory), directory).err());
        }
        errors.extend(place::remove_directories(root, &manifest));
        if manifest.group {
            errors.extend(remove_group().await.err());
        }
        errors.extend(units::reload().await.err());
        if errors.is_empty() {
            errors.extend(Manifest::remove(root).err());
        }
        for path in &changed {
            output::note(&format!(
                "Changed since it was installed, and kept: {}",
                path.display()
            ));
        }
        if manifest.packaged {
            output::note("The files are a package's: remove the package to be rid of them");
        }
        output::note(
            "Users keep their VMs and images: ~/.local/state/banger, ~/.local/share/banger and ~/.cache/banger of each",
        );
        finish(&errors)
    }

    async fn check_vms(&self) -> Result<()> {
        if !host::has_systemd() {
            return Ok(());
        }
        let vms = units::active(VM_SCOPES).await?;
        if vms.is_empty() || self.force {
            return Ok(());
        }
        Err(Error::refused(
            format!("VMs are running: {}", vms.join(", ")),
            "Let their owners stop them (`systemctl status 'banger-vm-*'` says whose they are), or stop them with --force",
        ))
    }
}

/// Stops everything that runs. Goes on after a failure: what is left is then less.
async fn stop() -> Vec<Error> {
    let mut errors = Vec::new();
    if !host::has_systemd() {
        return errors;
    }
    let units = units::units().await.unwrap_or_default();
    let known: Vec<_> = units
        .iter()
        .filter(|unit| unit.load != "not-found")
        .map(|unit| unit.name.as_str())
        .collect();
    // The owners' daemons stop their guests, and give back their slots while the helper is there.
    stop_vms(&mut errors).await;
    // Then nobody can call the helper any more, and so nobody starts another VM.
    let mut doing = async |words: &[&str]| errors.extend(units::systemctl(words).await.err());
    if !known.is_empty() {
        doing(&[&["disable"], &known[..]].concat()).await;
    }
    if known.contains(&HELPER_UNIT) {
        doing(&["stop", HELPER_UNIT]).await;
    }
    stop_vms(&mut errors).await;
    let mut doing = async |words: &[&str]| errors.extend(units::systemctl(words).await.err());
    // Last, when nobody uses it.
    if known.contains(&NETWORK_UNIT) {
        doing(&["stop", NETWORK_UNIT]).await;
    }
    if let Ok(slices) = units::loaded(SLICES).await {
        for slice in &slices {
            doing(&["stop", slice]).await;
        }
    }
    // That nothing had failed is no failure.
    _ = units::systemctl(&["reset-failed", "banger*"]).await;
    errors
}

async fn stop_vms(errors: &mut Vec<Error>) {
    let scopes = match units::loaded(VM_SCOPES).await {
        Ok(scopes) if scopes.is_empty() => return,
        Ok(scopes) => scopes,
        Err(error) => return errors.push(error),
    };
    let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
    errors.extend(units::systemctl(&[&["stop"], &scopes[..]].concat()).await.err());
}

/// Ends the daemons of users that run the program which goes: one that cannot find the rest of
/// itself any more is of no use. Their VMs go on.
fn end_daemons(manifest: &Manifest) {
    let program = Layout::new(&manifest.prefix)
        .directory(Place::Libexec)
        .join("bangerd");
    if !manifest.files.contains_key(&program) {
        return;
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(Ok(process)) = number
            .and_then(Pid::from_raw)
            .map(|pid| pidfd_open(pid, PidfdFlags::empty()))
        else {
            continue;
        };
        // Looked at after it was opened: a number may have been given to somebody else.
        if fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program) {
            _ = pidfd_send_signal(&process, Signal::TERM);
        }
    }
}

async fn remove_group() -> Result<()> {
    if units::group_exists().await? {
        units::run("groupdel", &[GROUP]).await?;
    }
    Ok(())
}

fn finish(errors: &[Error]) -> Result<()> {
    for error in errors {
        exit::tell(None, error);
    }
    if errors.is_empty() {
        output::note("System mode is off");
        return Ok(());
    }
    output::note(
        "Not everything could be removed: run `banger system uninstall` again when the causes are gone",
    );
    Err(Error::Reported(exit::FAILED))
}
