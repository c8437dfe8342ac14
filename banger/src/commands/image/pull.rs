//! `banger image pull`.

use std::time::{Duration, Instant};

use banger_bus::{ImageInfo, JobOutcome, PullOptions};
use clap::Args;

use crate::client::{Client, done};
use crate::commands::each;
use crate::completion;
use crate::error::{Error, Result};
use crate::output::{Finished, Parts, ProgressArgs, View, bytes};

/// Fetch or build images, and the kernels they ask for
///
/// A name of the catalogue (see `banger image list --available`), else an image of an OCI
/// registry, with docker's defaults: `alpine` is `docker.io/library/alpine:latest`. Logins are
/// those of `docker login`. Layers that are here already are not fetched again. Ctrl-C cancels,
/// and leaves nothing half-made.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger image pull debian-minimal                  from the catalogue
  banger image pull alpine:3.20                     from Docker Hub
  banger image pull ghcr.io/owner/tool@sha256:…     exactly that one
  banger image pull --name tool ghcr.io/owner/tool  under a name of your own
  banger image pull --insecure localhost:5000/mine  plain HTTP, this machine only
  banger image pull --offline alpine:3.20           from what was fetched before

With --json each line of standard output is one object (here with a break). While it goes on:
  {\"event\":\"progress\",\"subject\":\"alpine:3.20\",\"stage\":\"…\",\"fraction\":0.5,\"message\":\"\",
   \"parts\":[{\"name\":\"4f4fb700ef54\",\"state\":\"fetching\",\"done\":1048576,\"total\":3623807}]}
\"fraction\" is null when it cannot be told. Each part is a layer. Its state is one of waiting,
fetching, cached, fetched, unpacking and done; done and total are bytes, and total is 0 when it
is not known. At the end, one for each image:
  {\"event\":\"result\",\"subject\":\"alpine:3.20\",\"result\":\"done\",\"error\":\"\",\"message\":\"\",
   \"image\":\"alpine:3.20\",\"digest\":\"sha256:…\",\"layers\":1,\"cached\":0,
   \"fetched_bytes\":3623807,\"seconds\":1.9}
\"result\" is one of done, cancelled, failed and timeout; all but done have the name and the text
of an error, and nothing after \"message\".")]
pub(crate) struct Pull {
    /// Names of the catalogue, or OCI references
    #[arg(value_name = "IMAGE", required = true, add = completion::available_images())]
    names: Vec<String>,
    /// List it under this name instead of its own
    #[arg(long, value_name = "NAME", value_parser = super::name)]
    name: Option<String>,
    /// A kernel instead of the catalogue's choice
    #[arg(long, value_name = "KERNEL", add = completion::kernels())]
    kernel_ref: Option<String>,
    /// Again, although it is there
    #[arg(long, short)]
    force: bool,
    /// Allow plain HTTP to a registry on this machine's loopback addresses
    #[arg(long)]
    insecure: bool,
    /// Use only what was fetched before
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Pull {
    pub(crate) async fn run(self) -> Result<()> {
        if self.name.is_some() && self.names.len() > 1 {
            return Err(Error::refused(
                "Cannot list several images under one name",
                "Give --name with one image only",
            ));
        }
        let client = Client::connect().await?;
        let manager = client.manager().await?;
        let options = PullOptions {
            force: Some(self.force),
            kernel: self.kernel_ref,
            name: self.name,
            insecure: Some(self.insecure),
            offline: Some(self.offline),
        };
        each(&self.names, self.progress, async |name, view: View| {
            let parts = view.parts();
            let start = Instant::now();
            let call = manager.pull_image(name.to_owned(), options.clone());
            let outcome = done(client.run_job(view, call).await?)?;
            let took = start.elapsed();
            // Who has deleted it meanwhile has pulled it all the same.
            let image = match &outcome.object {
                Some(path) => client.image_info(path).await.ok(),
                None => None,
            };
            let Some(image) = image else {
                return Ok(format!("{name}: pulled").into());
            };
            let mut report = report(&image, fetched(&outcome, &parts.lock()), took);
            if self.progress.quiet {
                report.line = format!("{}: pulled", image.name);
            }
            Ok(report)
        })
        .await
    }
}

/// The number of layers that came over the network, and their bytes. What was seen while it went
/// on is not all of it: a signal tells only the last of several changes.
fn fetched(outcome: &JobOutcome, seen: &Parts) -> (usize, u64) {
    match outcome.bytes {
        Some(bytes) => (outcome.names.len(), bytes),
        None => (seen.fetched(), seen.fetched_bytes()),
    }
}

/// What came from where, and how long it took.
fn report(image: &ImageInfo, (layers, fetched): (usize, u64), took: Duration) -> Finished {
    // The same layer may be there twice, and was fetched once.
    let cached = image.layers.len().saturating_sub(layers);
    let mut words = Vec::new();
    if !image.digest.is_empty() {
        words.push(format!("digest {}", image.digest));
    }
    if !image.layers.is_empty() {
        let noun = if image.layers.len() == 1 {
            "layer"
        } else {
            "layers"
        };
        words.push(format!("{} {noun}, {cached} cached", image.layers.len()));
    }
    if layers > 0 {
        words.push(format!("{} fetched", bytes(fetched)));
    } else if !image.layers.is_empty() {
        words.push("nothing fetched".to_owned());
    }
    words.push(format!("{:.1} s", took.as_secs_f64()));
    Finished::from(format!("{}: pulled ({})", image.name, words.join(", ")))
        .with("image", image.name.as_str())
        .with("digest", image.digest.as_str())
        .with("layers", image.layers.len())
        .with("cached", cached)
        .with("fetched_bytes", fetched)
        .with("seconds", (took.as_secs_f64() * 1000.0).round() / 1000.0)
}
