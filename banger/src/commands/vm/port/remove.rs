//! `banger vm port remove`.

use clap::Args;

use crate::client::Client;
use crate::completion;
use crate::error::Result;
use crate::output;

/// Close ports of this host that lead to a VM
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// A VM's name, id, or unambiguous prefix
    #[arg(value_name = "VM", add = completion::vms())]
    name: String,
    /// Ports of this host, as `banger vm port list` shows them
    #[arg(value_name = "HOST", required = true, add = completion::published_ports(), value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
}

impl Remove {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let vm = client.vm(&self.name).await?;
        for port in self.ports {
            vm.proxy.unpublish_port(port).await?;
            output::line(&format!("127.0.0.1:{port}: closed"))?;
        }
        Ok(())
    }
}
