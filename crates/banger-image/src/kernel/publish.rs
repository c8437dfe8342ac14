//! A kernel for others to pull.

use std::path::Path;

use banger_model::KernelName;

use super::export::Source;
use super::find;
use crate::Cancel;
use crate::bundle::{self, Exported, Publish};
use crate::catalog::Thing;
use crate::error::Result;
use crate::progress::Progress;

/// Writes a kernel as a bundle into a directory, and its entry into the catalogue there. The
/// entry has the name that is given, which may be one of the catalogue: images that ask for
/// that name find the kernel.
///
/// # Errors
/// [`crate::Error::NoSuchKernel`]; [`crate::Error::Replaceable`] when the catalogue has an entry of
/// the name, unless `force`; [`crate::Error::Catalogue`] for a bad url, or a catalogue that
/// cannot be edited.
pub fn publish(
    kernels: &Path,
    name: &KernelName,
    publish: &Publish<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    let kernel = find(kernels, name)?;
    let source = Source::open(&kernel)?;
    let default = format!("Linux {}", kernel.version);
    let publish = Publish {
        description: publish.description.or(Some(&default)),
        ..*publish
    };
    bundle::publish(
        &publish,
        name.as_str(),
        Thing::Kernel,
        &source.manifest,
        source.content(),
        progress,
        cancel,
    )
}
