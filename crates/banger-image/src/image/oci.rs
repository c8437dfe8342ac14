//! An image of a registry: its layers become a file system while they are fetched.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use banger_model::{ImageName, KernelName};

use super::{Image, ImageKernel, Kind, METADATA, Origin, ROOTFS, check_rootfs, directory, load};
use crate::Cancel;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::ext4::Seed;
use crate::oci::{Manifest, Reference, Registry};
use crate::progress::{Part, PartState, Progress};
use crate::store::{self, Build};
use crate::unpack::{self, Session, Unpacker};

/// What to pull, and where to.
#[derive(Debug, Clone, Copy)]
pub struct PullReference<'a> {
    /// The store of images.
    pub images: &'a Path,
    pub reference: &'a Reference,
    /// The name in the store: [`Reference::familiar`] unless the user wants another.
    pub name: &'a ImageName,
    pub kernel: &'a KernelName,
    pub registry: Registry<'a>,
    pub unpacker: &'a Unpacker,
    /// Make the image again, even if it is here.
    pub force: bool,
}

/// The least time between two reports of a layer that is unpacked.
const REPORTS: Duration = Duration::from_millis(100);

/// Makes an image of a registry's; one of the same name is replaced when the new one is whole.
/// One that has the registry's manifest already is not made again. The kernel is not pulled
/// with it.
///
/// # Errors
/// [`Error::Oci`], [`Error::Layer`], a full disk. Nothing half-made stays.
pub fn pull_reference(pull: &PullReference<'_>, progress: &dyn Progress, cancel: &Cancel) -> Result<Image> {
    store::sweep(pull.images)?;
    let mut seen = None;
    match pull.attempt(&mut seen, progress, cancel) {
        // The layers were checked when they came; a disk may have changed them since.
        Err(error @ (Error::Layer { .. } | Error::Unpack(_))) => match seen {
            Some(manifest) if !pull.registry.scrub(&manifest)? => {
                progress.message("A layer in the cache was damaged: fetching it again");
                pull.attempt(&mut None, progress, cancel)
            }
            _ => Err(error),
        },
        result => result,
    }
}

impl PullReference<'_> {
    /// `seen` is the manifest, also after an error.
    fn attempt(
        &self,
        seen: &mut Option<Manifest>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Image> {
        let build = Build::begin(self.images)?;
        let rootfs = build.dir().join(ROOTFS);
        let mut here = None;
        let mut unpacking = Unpacking {
            pull: self,
            rootfs: &rootfs,
            progress: Overall::new(progress),
            session: None,
            cancel,
        };
        let overall = unpacking.progress.clone();
        let manifest = self.registry.pull_if(
            self.reference,
            &mut |manifest| {
                here = self.up_to_date(manifest);
                overall.expect(manifest);
                *seen = Some(manifest.clone());
                here.is_none()
            },
            &mut |manifest, number, blob| unpacking.layer(manifest, number, blob),
            &*overall,
            cancel,
        )?;
        if let Some(image) = here {
            progress.message(&format!("Image {} is up to date", self.name));
            return self.adopt(image, &manifest);
        }
        progress.stage("Writing the file system");
        let summary = unpacking.finish(&manifest)?;
        let found = check_rootfs(&rootfs)?;
        cancel.check()?;
        let image = Image {
            name: self.name.clone(),
            kind: Kind::Managed,
            rootfs: PathBuf::new(),
            kernel: ImageKernel::Reference(self.kernel.clone()),
            size: found.size(),
            content: summary.content,
            origin: origin(&manifest),
            config: manifest.config,
            created: store::now(),
            dir: PathBuf::new(),
        };
        store::write_metadata(build.dir(), METADATA, &image)?;
        build.publish_soon(&directory(self.images, self.name), "Image", true)?;
        load(self.images, self.name)
    }

    /// The image that is here already, if it was made of this manifest.
    fn up_to_date(&self, manifest: &Manifest) -> Option<Image> {
        let image = load(self.images, self.name).ok()?;
        let same =
            matches!(&image.origin, Origin::Oci { manifest: made_of, .. } if *made_of == manifest.digest);
        (same && !self.force).then_some(image)
    }

    /// Lets an image that stays as it is have what the pull says otherwise.
    fn adopt(&self, mut image: Image, manifest: &Manifest) -> Result<Image> {
        let kernel = ImageKernel::Reference(self.kernel.clone());
        let origin = origin(manifest);
        if image.kernel != kernel || image.origin != origin {
            image.kernel = kernel;
            image.origin = origin;
            store::write_metadata(&image.dir, METADATA, &image)?;
        }
        Ok(image)
    }
}

fn origin(manifest: &Manifest) -> Origin {
    Origin::Oci {
        reference: manifest.reference.clone(),
        manifest: manifest.digest,
        layers: manifest.layers.iter().map(|layer| layer.digest).collect(),
    }
}

/// The same layers give the same file system, whatever they are called.
fn seed(manifest: &Manifest) -> Seed {
    // What an ext4 timestamp holds without its extension; images say any time since year 1.
    let time = manifest.created.unwrap_or(0).clamp(0, u32::MAX.into());
    let mut hasher = Hasher::default();
    for layer in &manifest.layers {
        hasher.update(layer.diff_id.as_bytes());
    }
    hasher.update(&time.to_le_bytes());
    Seed::from_digest(hasher.finish().as_bytes(), time)
}

/// A file system that grows by the layers as they come.
struct Unpacking<'a> {
    pull: &'a PullReference<'a>,
    rootfs: &'a Path,
    progress: Arc<Overall<'a>>,
    session: Option<Session>,
    cancel: &'a Cancel,
}

impl Unpacking<'_> {
    fn layer(&mut self, manifest: &Manifest, number: usize, blob: File) -> Result<()> {
        let layer = &manifest.layers[number];
        let name = layer.digest.short();
        let progress = self.progress.clone();
        let report = |state, done| {
            progress.unpacked(&Part {
                name: &name,
                state,
                done,
                total: layer.size,
            });
        };
        report(PartState::Unpacking, 0);
        let mut last = Instant::now();
        let mut consumed = |done| {
            if last.elapsed() >= REPORTS {
                last = Instant::now();
                report(PartState::Unpacking, done);
            }
        };
        let unpack = unpack::Layer {
            blob,
            size: layer.size,
            compression: layer.compression,
            diff_id: layer.diff_id,
        };
        self.session(manifest)?.layer(&unpack, &mut consumed)?;
        report(PartState::Done, layer.size);
        Ok(())
    }

    /// Begins with the first layer: until there is one, no process is needed.
    fn session(&mut self, manifest: &Manifest) -> Result<&mut Session> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let target = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(self.rootfs)
                    .map_err(Error::io("make", self.rootfs))?;
                self.pull.unpacker.start(target, seed(manifest), self.cancel)?
            }
        };
        Ok(self.session.insert(session))
    }

    fn finish(mut self, manifest: &Manifest) -> Result<crate::ext4::Summary> {
        // Also an image without layers is a file system.
        self.session(manifest)?;
        match self.session.take() {
            Some(session) => session.finish(),
            None => Err(Error::Cancelled),
        }
    }
}

/// Makes one fraction of all that is fetched and unpacked.
struct Overall<'a> {
    inner: &'a dyn Progress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes to fetch and to unpack.
    total: u64,
    fetched: BTreeMap<String, u64>,
    /// Of layers that are done, and of the one that is unpacked.
    unpacked: u64,
    unpacking: u64,
}

impl<'a> Overall<'a> {
    fn new(inner: &'a dyn Progress) -> Arc<Self> {
        Arc::new(Self {
            inner,
            state: Mutex::default(),
        })
    }

    fn expect(&self, manifest: &Manifest) {
        let distinct: BTreeMap<_, _> = manifest
            .layers
            .iter()
            .map(|layer| (layer.digest, layer.size))
            .collect();
        let fetch: u64 = distinct.values().sum();
        let unpack: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
        self.update(|state| state.total = fetch + unpack);
    }

    fn unpacked(&self, part: &Part<'_>) {
        self.inner.part(part);
        self.update(|state| {
            if part.state == PartState::Done {
                state.unpacked += part.total;
                state.unpacking = 0;
            } else {
                state.unpacking = part.done;
            }
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "a fraction for people")]
    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let done = state.fetched.values().sum::<u64>() + state.unpacked + state.unpacking;
        if state.total > 0 {
            self.inner.fraction((done as f64 / state.total as f64).min(1.0));
        }
    }
}

impl Progress for Overall<'_> {
    fn stage(&self, stage: &str) {
        self.inner.stage(stage);
    }

    /// The client has none of its own.
    fn fraction(&self, _: f64) {}

    fn message(&self, text: &str) {
        self.inner.message(text);
    }

    fn part(&self, part: &Part<'_>) {
        self.inner.part(part);
        self.update(|state| {
            state.fetched.insert(part.name.to_owned(), part.done);
        });
    }
}
