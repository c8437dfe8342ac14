//! What nothing needs any more goes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use banger_bus::api::{Caller, JobPath};
use banger_bus::{JobOutcome, PruneOptions, Result};
use banger_image::Digest;
use banger_image::image::{self, Image, Kind, Origin};
use banger_image::oci::cache;
use tokio::sync::OwnedRwLockWriteGuard;

use super::super::error::About;
use super::Library;
use crate::core::progress::{JobContext, cancelled};
use crate::jobs::no_object;

impl Library {
    /// Removes fetched layers that no image here was made of; with `all` first the images that
    /// no VM uses, and then everything that was fetched.
    pub(crate) async fn prune(self: &Arc<Self>, caller: Caller, options: PruneOptions) -> Result<JobPath> {
        let (all, dry_run) = (options.all.unwrap_or(false), options.dry_run.unwrap_or(false));
        let library = self.clone();
        self.jobs
            .start("prune-images", caller, no_object(), |ctx| async move {
                let (mut names, mut bytes) = (Vec::new(), 0);
                if all {
                    ctx.stage("Removing images");
                    bytes = library.unused_images(&ctx, dry_run, &mut names).await?;
                }
                let cleared = library.clear_cache(&ctx, all, dry_run).await?;
                names.extend(cleared.digests.iter().map(ToString::to_string));
                Ok(JobOutcome {
                    names,
                    bytes: Some(bytes.saturating_add(cleared.bytes)),
                    ..JobOutcome::done()
                })
            })
            .await
    }

    /// Removes the store's images that no VM was made of. Returns the bytes that this frees.
    async fn unused_images(
        self: &Arc<Self>,
        ctx: &JobContext,
        dry_run: bool,
        names: &mut Vec<String>,
    ) -> Result<u64> {
        let images = self.dirs.images();
        let listed = images.clone();
        let all = self
            .blocking(ctx, About::Image, move |_, _| image::list(&listed))
            .await?;
        let mut links = Links::default();
        // Registered ones are their owner's.
        for image in all.into_iter().filter(|image| image.kind == Kind::Managed) {
            ctx.check()?;
            // Who works on it needs it.
            let Some(_turn) = self.turns.try_take(&format!("image {}", image.name)) else {
                continue;
            };
            if !self.users(&image.name).is_empty() {
                continue;
            }
            links.remove(&image.rootfs);
            names.push(image.name.to_string());
            if !dry_run {
                let images = images.clone();
                self.blocking(ctx, About::Image, move |_, _| image::delete(&images, &image.name))
                    .await?;
            }
        }
        Ok(links.freed())
    }

    async fn clear_cache(
        self: &Arc<Self>,
        ctx: &JobContext,
        all: bool,
        dry_run: bool,
    ) -> Result<cache::Pruned> {
        let _alone = self.alone(ctx).await?;
        ctx.stage("Clearing what was fetched");
        let dirs = self.dirs.clone();
        self.blocking(ctx, About::Image, move |_, _| {
            let needed = match all {
                true => BTreeSet::new(),
                false => needed(&image::list(&dirs.images())?),
            };
            if !dry_run {
                image::sweep(&dirs.images())?;
            }
            cache::prune(&dirs.cache, |digest| needed.contains(digest), dry_run)
        })
        .await
    }

    /// Waits until no pull is under way: each counts on what it has fetched already.
    async fn alone(&self, ctx: &JobContext) -> Result<OwnedRwLockWriteGuard<()>> {
        if let Ok(guard) = self.cache.clone().try_write_owned() {
            return Ok(guard);
        }
        ctx.stage("Waiting until nothing is pulled");
        tokio::select! {
            guard = self.cache.clone().write_owned() => Ok(guard),
            () = ctx.cancelled() => Err(cancelled()),
        }
    }
}

/// What the images here were made of.
fn needed(images: &[Image]) -> BTreeSet<Digest> {
    let mut needed = BTreeSet::new();
    for image in images {
        if let Origin::Oci { manifest, layers, .. } = &image.origin {
            needed.insert(*manifest);
            needed.extend(layers);
        }
    }
    needed
}

/// Files of which several images may have a link: space is free when the last one goes.
#[derive(Debug, Default)]
struct Links(BTreeMap<(u64, u64), Link>);

#[derive(Debug)]
struct Link {
    bytes: u64,
    left: u64,
}

impl Links {
    /// Counts a link as removed. To be called before it is.
    fn remove(&mut self, file: &Path) {
        // What is not there frees nothing.
        let Ok(found) = file.metadata() else { return };
        let link = self.0.entry((found.dev(), found.ino())).or_insert(Link {
            bytes: found.blocks() * 512,
            left: found.nlink(),
        });
        link.left = link.left.saturating_sub(1);
    }

    fn freed(&self) -> u64 {
        let gone = self.0.values().filter(|link| link.left == 0);
        gone.map(|link| link.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_file_is_free_with_its_last_name() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        std::fs::write(&one, vec![1; 8192]).unwrap();
        std::fs::hard_link(&one, &two).unwrap();
        for dry_run in [true, false] {
            let mut links = Links::default();
            links.remove(&directory.path().join("none"));
            links.remove(&one);
            assert_eq!(links.freed(), 0);
            if !dry_run {
                std::fs::remove_file(&one).unwrap();
            }
            links.remove(&two);
            assert!(links.freed() >= 8192, "{links:?}");
        }
    }
}
