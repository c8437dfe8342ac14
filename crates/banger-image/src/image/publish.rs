//! An image for others to pull.

use std::path::Path;

use banger_model::ImageName;

use super::export::Source;
use super::{ImageKernel, load};
use crate::Cancel;
use crate::bundle::{self, Exported, Publish};
use crate::catalog::Thing;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Writes an image as a bundle into a directory, and its entry into the catalogue there.
///
/// # Errors
/// [`Error::NoSuchImage`]; [`Error::OwnKernel`] when it boots kernel files of its owner;
/// [`Error::Replaceable`] when the catalogue has an entry of the name, unless `force`;
/// [`Error::Catalogue`] for a bad url, or a catalogue that cannot be edited.
pub fn publish(
    images: &Path,
    name: &ImageName,
    publish: &Publish<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    let image = load(images, name)?;
    let ImageKernel::Reference(kernel) = &image.kernel else {
        return Err(Error::OwnKernel(name.to_string()));
    };
    let source = Source::open(&image)?;
    bundle::publish(
        publish,
        name.as_str(),
        Thing::Image { kernel },
        &source.manifest,
        source.content(),
        progress,
        cancel,
    )
}
