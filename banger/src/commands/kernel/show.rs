//! `banger kernel show`.

use clap::Args;

use crate::client::Client;
use crate::completion;
use crate::error::Result;
use crate::output::{self, Style, Table, Tone};

/// Show everything about a kernel
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A kernel's name or alias
    #[arg(value_name = "NAME", add = completion::kernels())]
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let (path, _) = client.kernel(&self.name).await?;
        let kernel = client.kernel_info(&path).await?;
        if self.json {
            return output::json(&kernel);
        }
        let mut table = Table::default();
        table.row(["name", &kernel.name]);
        table.row(["version", &kernel.version]);
        table.row(["aliases", &kernel.aliases.join(" ")]);
        table.row(["path", &kernel.path]);
        table.row(["origin", &kernel.origin]);
        table.row(["digest", &kernel.digest]);
        table.row(["size", &output::bytes(kernel.size_bytes)]);
        table.row(["created", &output::date(kernel.created_us)]);
        for warning in &kernel.warnings {
            table.row(["warning", warning]).tone(1, Some(Tone::Warn));
        }
        output::data(table.render(Style::stdout()).as_bytes())
    }
}
