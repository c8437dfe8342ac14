//! `banger vm show`.

use banger_bus::VmInfo;
use banger_model::Size;
use clap::Args;

use super::Names;
use super::list::{state, tone};
use crate::client::Client;
use crate::error::Result;
use crate::output::{self, Style, Table};

/// Show everything about VMs
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    names: Names,
    /// Write JSON: an array
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let mut vms = Vec::new();
        for name in &self.names.names {
            let vm = client.vm(name).await?;
            vms.push(client.vm_info(&vm).await?);
        }
        if self.json {
            return output::json(&vms);
        }
        let texts: Vec<String> = vms.iter().map(|vm| table(vm).render(Style::stdout())).collect();
        output::data(texts.join("\n").as_bytes())
    }
}

/// What is empty has not happened, or is not there, and is left out.
fn table(vm: &VmInfo) -> Table {
    let number = |n: u32| if n == 0 { String::new() } else { n.to_string() };
    let labels: Vec<String> = vm
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let ports: Vec<String> = vm
        .published_ports
        .iter()
        .map(|(host, guest)| format!("127.0.0.1:{host}->{guest}"))
        .collect();
    let mut table = Table::default();
    table.row(["name", &vm.name]);
    table.row(["id", &vm.id]);
    table.row(["state", &state(vm)]).tone(1, tone(vm));
    let rows = [
        ("detail", vm.state_detail.clone()),
        ("image", vm.image.clone()),
        ("kernel", vm.kernel.clone()),
        ("vcpu", vm.vcpus.to_string()),
        ("memory", format!("{} MiB", vm.memory_mib)),
        ("disk", Size::from_bytes(vm.disk_bytes).to_string()),
        ("network", vm.network.clone()),
        ("labels", labels.join(" ")),
        ("engine", vm.engine.clone()),
        ("accelerator", vm.accelerator.clone()),
        ("address", vm.address.clone()),
        ("ssh port", number(vm.ssh_port)),
        ("host key", vm.host_key.clone()),
        ("process", number(vm.pid)),
        ("unit", vm.unit.clone()),
        ("directory", vm.directory.clone()),
        ("init", vm.init.clone()),
        ("workspace", vm.workspace.clone()),
        ("in the guest", vm.workspace_path.clone()),
        ("commit", vm.workspace_commit.clone()),
        ("mode", vm.workspace_mode.clone()),
        ("ports", ports.join(" ")),
        ("created", output::date(vm.created_us)),
        ("started", output::date(vm.started_us)),
        ("ready", ready(vm)),
    ];
    for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        table.row([*key, value.as_str()]);
    }
    table
}

/// When the guest announced itself, and how long that took.
fn ready(vm: &VmInfo) -> String {
    match vm.ready_us.checked_sub(vm.started_us) {
        Some(us) if vm.started_us > 0 => {
            format!(
                "{} ({:.1} s after the start)",
                output::date(vm.ready_us),
                us as f64 / 1e6
            )
        }
        _ => output::date(vm.ready_us),
    }
}
