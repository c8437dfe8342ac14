//! `banger image list`.

use banger_bus::ImageInfo;
use clap::Args;

use super::kernel;
use crate::client::Client;
use crate::commands::list_available;
use crate::error::Result;
use crate::output::{self, Style, Table};

/// List images: those that are here, or those that can be pulled
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
            return list_available(&client, "images", self.quiet, self.json).await;
        }
        let images = client.everything().await?.images;
        if self.json {
            return output::json(&images);
        }
        if self.quiet {
            return images.iter().try_for_each(|image| output::line(&image.name));
        }
        output::data(
            table(&images)
                .fitted(Style::stdout(), output::columns())
                .as_bytes(),
        )
    }
}

fn table(images: &[ImageInfo]) -> Table {
    let mut table = Table::new(&["NAME", "KIND", "KERNEL", "SIZE", "ON DISK", "AGE", "ORIGIN"]);
    for image in images {
        table.row([
            image.name.as_str(),
            &image.kind,
            kernel(image),
            &output::bytes(image.size_bytes),
            &output::bytes(image.used_bytes),
            &output::age(image.created_us),
            &image.origin,
        ]);
    }
    table
}
