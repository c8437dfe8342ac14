//! `banger system restart`.

use clap::Args;

use banger_model::slot::NETWORK_UNIT;

use super::manifest::Manifest;
use super::units::{self, HELPER_UNIT, VM_SCOPES};
use super::{host, install};
use crate::error::{Error, Result};
use crate::exit;
use crate::output;

/// Start the helper and the network anew; VMs go on running
#[derive(Debug, Args)]
pub(crate) struct Restart {}

impl Restart {
    pub(crate) async fn run(self) -> Result<()> {
        host::root("restart")?;
        if !is_installed().await? {
            output::note("System mode is not installed: turn it on with `banger system install`");
            return Err(Error::Reported(exit::NOT_RUNNING));
        }
        let _lock = install::lock()?;
        start().await
    }
}

/// Whether system mode was turned on here, or a package brought it.
pub(super) async fn is_installed() -> Result<bool> {
    if Manifest::load(std::path::Path::new("/"))?.is_some() {
        return Ok(true);
    }
    Ok(host::has_systemd() && units::units().await?.iter().any(|unit| unit.load == "loaded"))
}

/// Starts the network, or has its service run the program that is installed now, and ends a
/// helper that runs: the next call starts the new one.
pub(super) async fn start() -> Result<()> {
    let units = units::units().await?;
    let running = units
        .iter()
        .find(|unit| unit.name == NETWORK_UNIT && unit.active == "active" && unit.main_pid != 0);
    if let Some(unit) = running
        && !units::active(VM_SCOPES).await?.is_empty()
    {
        // An ordinary stop takes the network from the VMs that use it. Its service is killed
        // instead: started again, it finds what is there.
        units::replace(NETWORK_UNIT, unit.main_pid)
            .await
            .map_err(|error| told(&error))?;
    } else {
        units::systemctl(&["restart", NETWORK_UNIT])
            .await
            .map_err(|error| told(&error))?;
    }
    units::systemctl(&["try-restart", HELPER_UNIT]).await?;
    Ok(())
}

fn told(error: &Error) -> Error {
    Error::refused(
        error.to_string(),
        &format!("Its own words: journalctl -b -u {NETWORK_UNIT}"),
    )
}
