//! `banger system uninstall`.

use std::fs;
use std::path::Path;

use clap::Args;

use banger_model::slot::NETWORK_UNIT;

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
        // A file of somebody who is still at work with it stays: without its service nothing
        // can be called any more, and the next run goes on here.
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
    let known = units::units().await.unwrap_or_default();
    let known = |name| {
        known
            .iter()
            .any(|unit| unit.name == name && unit.load != "not-found")
    };
    let mut doing = async |words: &[&str]| errors.extend(units::systemctl(words).await.err());
    // First who could start another; the network last, when nobody uses it.
    if known(HELPER_UNIT) {
        doing(&["stop", HELPER_UNIT]).await;
    }
    if let Ok(scopes) = units::loaded(VM_SCOPES).await {
        for scope in &scopes {
            doing(&["stop", scope]).await;
        }
    }
    if known(NETWORK_UNIT) {
        doing(&["disable", "--now", NETWORK_UNIT]).await;
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
