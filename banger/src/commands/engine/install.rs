//! `banger engine install`.

use std::process::Stdio;

use clap::Args;
use tokio::process::Command;

use crate::client::daemon_program;
use crate::error::{Error, Result};
use crate::exit;

/// Install an engine that no distribution has, for the VMs of system mode
///
/// The release that the catalogue of this machine names is fetched, compared with its digest,
/// tried, and put where only root can. Run it as root.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The engine
    #[arg(value_name = "ENGINE", value_parser = ["firecracker"])]
    name: String,
}

impl Install {
    pub(crate) async fn run(self) -> Result<()> {
        let program = daemon_program()?;
        let status = Command::new(&program)
            .args(["engine-install", &self.name])
            .stdin(Stdio::null())
            .status()
            .await
            .map_err(|e| Error::io(format!("Cannot start {program:?}"), e))?;
        // It has said why.
        if status.success() {
            Ok(())
        } else {
            Err(Error::Reported(exit::FAILED))
        }
    }
}
