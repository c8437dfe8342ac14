//! `banger image show`.

use banger_bus::ImageInfo;
use clap::Args;

use super::kernel;
use crate::client::Client;
use crate::completion;
use crate::error::Result;
use crate::output::{self, Style, Table, escaped};

/// Show everything about an image
///
/// Where it came from, with which digest and layers, and what its author says about its
/// processes: environment, user, working directory, entrypoint and command. Characters that are
/// not printed are shown as escape sequences.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger image show alpine:3.20
  banger image show --json docker.io/library/alpine:3.20")]
pub(crate) struct Show {
    /// An image's name, or its reference
    #[arg(value_name = "IMAGE", add = completion::images())]
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let (path, _) = client.image(&self.name).await?;
        let image = client.image_info(&path).await?;
        if self.json {
            return output::json(&image);
        }
        output::data(table(&image).render(Style::stdout()).as_bytes())
    }
}

/// What is empty is not there, and is left out.
fn table(image: &ImageInfo) -> Table {
    // `Debug` of words escapes as `escaped` does.
    let words = |words: &[String]| match words {
        [] => String::new(),
        words => format!("{words:?}"),
    };
    let rows = [
        ("name", escaped(&image.name)),
        ("kind", escaped(&image.kind)),
        ("reference", escaped(&image.reference)),
        ("digest", escaped(&image.digest)),
        ("origin", escaped(&image.origin)),
        ("root file system", escaped(&image.rootfs)),
        ("kernel", escaped(kernel(image))),
        ("size", output::bytes(image.size_bytes)),
        ("on disk", output::bytes(image.used_bytes)),
        ("created", output::date(image.created_us)),
        ("user", escaped(&image.user)),
        ("working directory", escaped(&image.working_directory)),
        ("entrypoint", words(&image.entrypoint)),
        ("command", words(&image.command)),
    ];
    let mut table = Table::default();
    for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        table.row([*key, value]);
    }
    for (key, pairs) in [("env", &image.env), ("label", &image.labels)] {
        for (name, value) in pairs {
            table.row([key, &escaped(&format!("{name}={value}"))]);
        }
    }
    for layer in &image.layers {
        table.row(["layer", &escaped(layer)]);
    }
    table
}
