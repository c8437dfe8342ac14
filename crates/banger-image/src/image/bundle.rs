//! An image that was exported.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{Image, ImageKernel, Kind, METADATA, Origin, Pull, ROOTFS, check_rootfs, directory, load};
use crate::Cancel;
use crate::bundle::{BundleError, Manifest, Verified};
use crate::catalog::BundleSource;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::{self, Build};

/// Makes an image of a bundle. What the bundle says of itself must be what the catalogue asks
/// for; the kernel is the catalogue's.
pub(super) fn pull(
    pull: &Pull<'_>,
    source: &BundleSource,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Image> {
    let bundle = Verified::open(source, &pull.registry, progress, cancel)?;
    let build = Build::begin(pull.images)?;
    let rootfs = build.dir().join(ROOTFS);
    let target = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&rootfs)
        .map_err(Error::io("make", &rootfs))?;
    let manifest = match bundle.unpack(pull.unpacker, target, progress, cancel)? {
        Manifest::Image(manifest) if manifest.name == pull.entry.name => manifest,
        other => {
            return Err(bundle.refused(BundleError::Other {
                found: other.kind(),
                name: other.name().to_owned(),
                expected: format!("image {}", pull.entry.name),
            }));
        }
    };
    let found = check_rootfs(&rootfs)?;
    if found.size() != manifest.size {
        return Err(bundle.refused(BundleError::Size {
            member: ROOTFS,
            said: manifest.size,
            found: found.size(),
        }));
    }
    cancel.check()?;
    let image = Image {
        name: pull.entry.name.clone(),
        kind: Kind::Managed,
        rootfs: PathBuf::new(),
        kernel: ImageKernel::Reference(pull.kernel.unwrap_or(&pull.entry.kernel).clone()),
        size: found.size(),
        content: (found.blocks - found.free_blocks) * u64::from(found.block_size),
        origin: Origin::Bundle {
            url: bundle.url.clone(),
            sha256: bundle.sha256,
        },
        config: manifest.config,
        created: store::now(),
        dir: PathBuf::new(),
    };
    store::write_metadata(build.dir(), METADATA, &image)?;
    build.publish_soon(&directory(pull.images, &image.name), "Image", true)?;
    load(pull.images, &image.name)
}
