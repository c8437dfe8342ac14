//! `banger kernel list`.

use banger_bus::KernelInfo;
use clap::Args;

use crate::client::Client;
use crate::commands::list_available;
use crate::error::Result;
use crate::output::{self, Style, Table};

/// List kernels: those that are here, or those that can be pulled
#[derive(Debug, Args)]
pub(crate) struct List {
    /// What the catalogue offers
    #[arg(long)]
    available: bool,
    /// Only the names
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        if self.available {
            return list_available(&client, "kernels", self.quiet, self.json).await;
        }
        let kernels = client.everything().await?.kernels;
        if self.json {
            return output::json(&kernels);
        }
        if self.quiet {
            return kernels.iter().try_for_each(|kernel| output::line(&kernel.name));
        }
        output::data(
            table(&kernels)
                .fitted(Style::stdout(), output::columns())
                .as_bytes(),
        )
    }
}

fn table(kernels: &[KernelInfo]) -> Table {
    let mut table = Table::new(&["NAME", "VERSION", "ALIASES", "SIZE", "AGE", "ORIGIN"]);
    for kernel in kernels {
        table.row([
            kernel.name.as_str(),
            &kernel.version,
            &kernel.aliases.join(" "),
            &output::bytes(kernel.size_bytes),
            &output::age(kernel.created_us),
            &kernel.origin,
        ]);
    }
    table
}
