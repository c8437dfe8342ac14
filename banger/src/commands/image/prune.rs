//! `banger image prune`.

use banger_bus::{JobOutcome, ManagerProxy, PruneOptions};
use clap::Args;

use crate::client::{Client, done};
use crate::commands::confirm;
use crate::error::{Error, Result};
use crate::output::{self, Finished, Progress, ProgressArgs, bytes};

/// Remove fetched layers that no image needs; with --all also images that no VM uses
///
/// Layers are kept so that a later pull need not fetch them again. Registered images are yours,
/// and stay. Asks before an image is removed.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger image prune               what is left of images that are gone
  banger image prune --dry-run -a  what --all would remove
  banger image prune -a -y         every image without a VM, and all layers")]
pub(crate) struct Prune {
    /// Also images that no VM uses, and all layers
    #[arg(long, short)]
    all: bool,
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short, visible_alias = "force", visible_short_alias = 'f')]
    yes: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Prune {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let manager = client.manager().await?;
        let progress = Progress::new(self.progress);
        if self.dry_run {
            let found = self.prune(&client, &manager, &progress, true).await?;
            return self.tell(&progress, &found, "would be removed");
        }
        if self.all && !self.yes {
            let found = self.prune(&client, &manager, &progress, true).await?;
            let images: Vec<&str> = images(&found).collect();
            let question = format!(
                "Remove {} image(s) that no VM uses: {}?",
                images.len(),
                images.join(", ")
            );
            if !images.is_empty() && !confirm(&question, "--yes (-y)")? {
                output::note("Nothing was removed");
                return Ok(());
            }
        }
        let removed = self.prune(&client, &manager, &progress, false).await?;
        self.tell(&progress, &removed, "removed")
    }

    async fn prune(
        &self,
        client: &Client,
        manager: &ManagerProxy<'_>,
        progress: &Progress,
        dry_run: bool,
    ) -> Result<JobOutcome> {
        let options = PruneOptions {
            all: Some(self.all),
            dry_run: Some(dry_run),
        };
        let ended = client.run_job(progress.view(""), manager.prune_images(options));
        let result = ended.await.and_then(done);
        if let Err(error @ Error::Bus(_)) = &result {
            progress.result("", Err(error))?;
        }
        result
    }

    /// A line for each image, and one for all layers.
    fn tell(&self, progress: &Progress, outcome: &JobOutcome, verb: &str) -> Result<()> {
        let mut lines: Vec<String> = images(outcome).map(|name| format!("{name}: {verb}")).collect();
        let layers = outcome.names.len() - lines.len();
        if layers > 0 {
            lines.push(format!("{layers} layer(s): {verb}"));
        }
        let size = bytes(outcome.bytes.unwrap_or_default());
        lines.push(match (outcome.names.is_empty(), self.dry_run) {
            (true, _) => "Nothing to remove".to_owned(),
            (false, true) => format!("{size} would be given back"),
            (false, false) => format!("{size} given back"),
        });
        if self.progress.json {
            let finished = Finished::default()
                .with("names", outcome.names.as_slice())
                .with("bytes", outcome.bytes.unwrap_or_default());
            return progress.result("", Ok(&finished));
        }
        lines
            .into_iter()
            .try_for_each(|line| progress.result("", Ok(&line.into())))
    }
}

fn images(outcome: &JobOutcome) -> impl Iterator<Item = &str> {
    let names = outcome.names.iter().map(String::as_str);
    names.filter(|name| !is_digest(name))
}

/// Layers are told by their digests; no image's name has that form by accident.
fn is_digest(name: &str) -> bool {
    name.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}
