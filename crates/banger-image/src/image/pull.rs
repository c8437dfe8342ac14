//! An image of the catalogue.

use std::path::{Path, PathBuf};

use banger_model::{ImageConfig, KernelName};

use super::{
    Image, ImageKernel, Kind, METADATA, Origin, PullReference, ROOTFS, bundle, check_rootfs, directory, load,
    pull_reference,
};
use crate::Cancel;
use crate::apt::Mirrors;
use crate::catalog::{ImageEntry, ImageSource, Recipe, first_of};
use crate::error::Result;
use crate::oci::{Reference, Registry};
use crate::progress::Progress;
use crate::recipe;
use crate::store::{self, Build};
use crate::unpack::Unpacker;

/// What to pull, and where to.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// The store of images.
    pub images: &'a Path,
    pub entry: &'a ImageEntry,
    /// Instead of the entry's own.
    pub kernel: Option<&'a KernelName>,
    pub mirrors: &'a Mirrors,
    /// How layers and bundles are fetched.
    pub registry: Registry<'a>,
    /// What reads them.
    pub unpacker: &'a Unpacker,
    /// Make the image again, even if it is here as its registry has it.
    pub force: bool,
}

/// Makes an image of the catalogue; one of the same name is replaced when the new one is
/// whole. The kernel is not pulled with it.
///
/// # Errors
/// What the source says, a full disk. Nothing half-made stays.
pub fn pull(pull: &Pull<'_>, progress: &dyn Progress, cancel: &Cancel) -> Result<Image> {
    store::sweep(pull.images)?;
    first_of(
        pull.entry.name.as_str(),
        &pull.entry.sources,
        progress,
        |source| match source {
            ImageSource::Recipe(recipe) => pull_recipe(pull, recipe, progress, cancel),
            ImageSource::Oci { reference } => pull_oci(pull, reference, progress, cancel),
            ImageSource::Bundle(source) => bundle::pull(pull, source, progress, cancel),
        },
    )
}

fn pull_oci(
    pull: &Pull<'_>,
    reference: &Reference,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Image> {
    let pull = PullReference {
        images: pull.images,
        reference,
        name: &pull.entry.name,
        kernel: pull.kernel.unwrap_or(&pull.entry.kernel),
        registry: pull.registry,
        unpacker: pull.unpacker,
        force: pull.force,
    };
    pull_reference(&pull, progress, cancel)
}

fn pull_recipe(pull: &Pull<'_>, recipe: &Recipe, progress: &dyn Progress, cancel: &Cancel) -> Result<Image> {
    let build = Build::begin(pull.images)?;
    let rootfs = build.dir().join(ROOTFS);
    let summary = recipe::run(recipe, pull.mirrors, &build, &rootfs, progress, cancel)?;
    let found = check_rootfs(&rootfs)?;
    cancel.check()?;
    let image = Image {
        name: pull.entry.name.clone(),
        kind: Kind::Managed,
        rootfs: PathBuf::new(),
        kernel: ImageKernel::Reference(pull.kernel.unwrap_or(&pull.entry.kernel).clone()),
        size: found.size(),
        content: summary.content,
        origin: Origin::Recipe {
            mirror: pull.mirrors.debian.clone(),
            recipe: recipe.clone(),
        },
        config: ImageConfig::default(),
        created: store::now(),
        dir: PathBuf::new(),
    };
    store::write_metadata(build.dir(), METADATA, &image)?;
    build.publish(&directory(pull.images, &image.name), "Image", true)?;
    load(pull.images, &image.name)
}
