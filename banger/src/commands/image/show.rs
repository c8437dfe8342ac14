//! `banger image show`.

use banger_bus::ImageInfo;
use clap::Args;

use crate::client::Client;
use crate::completion;
use crate::error::Result;
use crate::output::{self, Style, Table};

/// Show everything about an image
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// An image's name
    #[arg(value_name = "NAME", add = completion::images())]
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let (path, _) = client.image(&self.name).await?;
        let image = ImageInfo::from_properties(&client.properties(&path, "org.banger.Image").await?)?;
        if self.json {
            return output::json(&image);
        }
        let kernel = if image.kernel.is_empty() {
            "(default)"
        } else {
            &image.kernel
        };
        let mut table = Table::default();
        table.row(["name", &image.name]);
        table.row(["kind", &image.kind]);
        table.row(["root file system", &image.rootfs]);
        table.row(["kernel", kernel]);
        table.row(["size", &output::bytes(image.size_bytes)]);
        table.row(["on disk", &output::bytes(image.used_bytes)]);
        table.row(["origin", &image.origin]);
        table.row(["created", &output::date(image.created_us)]);
        output::data(table.render(Style::stdout()).as_bytes())
    }
}
