//! One image under another name.

use std::fs;
use std::path::{Path, PathBuf};

use banger_model::ImageName;

use super::{Image, Kind, METADATA, ROOTFS, directory, load};
use crate::Cancel;
use crate::disk;
use crate::error::Result;
use crate::store::{self, Build};

/// Lists an image under a second name. Both have the same file, which nothing ever writes to;
/// each can be deleted without the other.
///
/// # Errors
/// [`crate::Error::NoSuchImage`], [`crate::Error::Exists`].
pub fn tag(images: &Path, name: &ImageName, new: &ImageName) -> Result<Image> {
    store::sweep(images)?;
    let mut image = load(images, name)?;
    let build = Build::begin(images)?;
    if image.kind == Kind::Managed {
        let own = build.dir().join(ROOTFS);
        // Not every file system has links.
        if fs::hard_link(&image.rootfs, &own).is_err() {
            disk::clone_root_disk(&image.rootfs, &own, image.size, &Cancel::new())?;
        }
        image.rootfs = PathBuf::new();
    }
    image.name = new.clone();
    store::write_metadata(build.dir(), METADATA, &image)?;
    build.publish_files(&directory(images, new), "Image", false)?;
    load(images, new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::Error;
    use crate::image::testing::Store;
    use crate::image::{delete, list};

    #[test]
    fn a_tag_lives_without_what_it_was_made_of() {
        let store = Store::new();
        let image = store.managed("a:1");
        let new = "team/a:2".parse().unwrap();
        let tagged = tag(&store.images(), &image.name, &new).unwrap();
        assert_eq!((&tagged.name, tagged.origin == image.origin), (&new, true));
        let inode = |image: &Image| fs::metadata(&image.rootfs).unwrap().ino();
        assert_eq!(inode(&tagged), inode(&image));
        assert_ne!(tagged.rootfs, image.rootfs);
        for taken in [&new, &image.name] {
            assert!(matches!(
                tag(&store.images(), &image.name, taken),
                Err(Error::Exists { what: "Image", .. })
            ));
        }
        delete(&store.images(), &image.name).unwrap();
        assert_eq!(
            list(&store.images()).unwrap(),
            [load(&store.images(), &new).unwrap()]
        );
        super::super::check_rootfs(&tagged.rootfs).unwrap();
        assert!(matches!(
            tag(&store.images(), &image.name, &"x".parse().unwrap()),
            Err(Error::NoSuchImage(_))
        ));
    }

    #[test]
    fn a_registered_image_has_two_records_and_one_file() {
        let store = Store::new();
        let image = store.registered("mine");
        let tagged = tag(&store.images(), &image.name, &"yours".parse().unwrap()).unwrap();
        assert_eq!(tagged.rootfs, image.rootfs);
        delete(&store.images(), &tagged.name).unwrap();
        assert!(image.rootfs.is_file());
        assert_eq!(list(&store.images()).unwrap(), [image]);
    }
}
