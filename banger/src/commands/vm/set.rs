//! `banger vm set`.

use banger_bus::SetOptions;
use banger_model::Size;
use clap::{ArgGroup, Args};

use super::Names;
use crate::client::Client;
use crate::commands::each;
use crate::error::Result;
use crate::output::{Finished, ProgressArgs};
use crate::parse::{self, Pair};

/// Change what VMs are made of
///
/// Disks only grow. What a VM that runs gets with its next start is said.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").multiple(true).required(true))]
pub(crate) struct Set {
    #[command(flatten)]
    names: Names,
    /// Virtual CPUs
    #[arg(long, value_name = "N", group = "change", value_parser = clap::value_parser!(u32).range(1..=i64::from(banger_model::limits::MAX_VCPUS)))]
    vcpu: Option<u32>,
    /// Memory, as 512M or 4G
    #[arg(long, value_name = "SIZE", group = "change", value_parser = parse::memory)]
    memory: Option<Size>,
    /// Size of the root disk, as 20G; not less than it has
    #[arg(long, value_name = "SIZE", group = "change", value_parser = parse::disk)]
    disk_size: Option<Size>,
    /// Add or replace a label; may be repeated
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", group = "change", value_parser = parse::pair)]
    labels: Vec<Pair>,
    /// Remove a label; may be repeated
    #[arg(long = "remove-label", value_name = "KEY", group = "change")]
    remove_labels: Vec<String>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Set {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let options = self.options();
        each(&self.names.names, self.progress, async |name, _| {
            let vm = client.vm(name).await?;
            let later = vm.proxy.set(options.clone()).await?;
            let line = if later.is_empty() {
                format!("{name}: changed")
            } else {
                format!(
                    "{name}: changed; with its next start: {} (`banger vm restart {name}`)",
                    later.join(", ")
                )
            };
            Ok(Finished::from(line).with("later", later))
        })
        .await
    }

    fn options(&self) -> SetOptions {
        SetOptions {
            vcpus: self.vcpu,
            memory_mib: self.memory.map(Size::mib),
            disk_bytes: self.disk_size.map(Size::bytes),
            labels: parse::map(&self.labels),
            remove_labels: (!self.remove_labels.is_empty()).then(|| self.remove_labels.clone()),
        }
    }
}
