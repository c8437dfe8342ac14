//! `banger vm port list`.

use clap::Args;
use serde_json::{Value, json};

use crate::client::Client;
use crate::completion;
use crate::error::Result;
use crate::output::{self, Style, Table};

/// List the ports of this host that lead to VMs
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Names, ids, or unambiguous prefixes of VMs [default: all]
    #[arg(value_name = "VM", add = completion::vms())]
    names: Vec<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let mut vms = client.everything().await?.vms;
        if !self.names.is_empty() {
            vms.clear();
            for name in &self.names {
                let vm = client.vm(name).await?;
                vms.push(client.vm_info(&vm).await?);
            }
        }
        if self.json {
            let rows = vms.iter().flat_map(|vm| {
                let pairs = vm.published_ports.iter();
                pairs.map(|(host, guest)| json!({ "vm": vm.name, "host": host, "guest": guest }))
            });
            return output::json(&rows.collect::<Vec<Value>>());
        }
        let mut table = Table::new(&["VM", "HOST", "GUEST"]);
        for vm in &vms {
            for (host, guest) in &vm.published_ports {
                table.row([vm.name.as_str(), &format!("127.0.0.1:{host}"), &guest.to_string()]);
            }
        }
        output::data(table.render(Style::stdout()).as_bytes())
    }
}
