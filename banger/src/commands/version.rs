//! `banger version`.

use std::env::consts::ARCH;

use clap::Args;
use serde::Serialize;

use crate::error::Result;
use crate::output;

/// Show the version, its commit and the date of its build
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    version: &'static str,
    commit: &'static str,
    build_date: String,
    arch: &'static str,
    interface_version: u32,
}

impl Version {
    pub(crate) fn run(&self) -> Result<()> {
        let seconds: u64 = env!("BANGER_BUILD_EPOCH").parse().unwrap_or(0);
        let document = Document {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("BANGER_COMMIT"),
            build_date: output::date(seconds.saturating_mul(1_000_000)),
            arch: ARCH,
            interface_version: banger_bus::INTERFACE_VERSION,
        };
        if self.json {
            return output::json(&document);
        }
        let commit = if document.commit.is_empty() {
            "unknown"
        } else {
            document.commit
        };
        output::line(&format!("banger {}", document.version))?;
        output::line(&format!("commit:     {commit}"))?;
        output::line(&format!("built:      {}", document.build_date))?;
        output::line(&format!(
            "interface:  org.banger.Manager version {}",
            document.interface_version
        ))?;
        output::line(&format!("platform:   linux {ARCH}"))
    }
}
