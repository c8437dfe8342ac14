//! `banger vm port add`.

use clap::Args;
use serde_json::{Value, json};

use super::Mapping;
use crate::client::Client;
use crate::completion;
use crate::error::Result;
use crate::output;

/// Reach ports of a VM at 127.0.0.1 of this host
///
/// They stay published through restarts, and are reached while the VM runs: TCP, also what
/// listens on the guest's own loopback only. In HOST:GUEST the host's port comes first, as docker
/// has it; without one the kernel chooses.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger vm port add a 8080         some port of this host
  banger vm port add a 3000:8080    http://127.0.0.1:3000/ is port 8080 of the guest")]
pub(crate) struct Add {
    /// A VM's name, id, or unambiguous prefix
    #[arg(value_name = "VM", add = completion::vms())]
    name: String,
    /// The guest's port, or the host's and the guest's
    #[arg(value_name = "[HOST:]GUEST", required = true)]
    ports: Vec<Mapping>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Add {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let vm = client.vm(&self.name).await?;
        let mut added: Vec<Value> = Vec::new();
        for mapping in self.ports {
            let host = vm.proxy.publish_port(mapping.guest, mapping.host).await?;
            if !self.json {
                output::line(&Mapping { host, ..mapping }.to_string())?;
            }
            added.push(json!({ "host": host, "guest": mapping.guest }));
        }
        if self.json {
            return output::json(&added);
        }
        Ok(())
    }
}
