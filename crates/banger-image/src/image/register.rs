//! Images that are there already: registered in place, or taken into the store.

use std::fs;
use std::path::{Path, PathBuf};

use banger_model::{ImageConfig, ImageName};

use super::{Image, ImageKernel, Kind, METADATA, Origin, ROOTFS, check_rootfs, directory, load};
use crate::Cancel;
use crate::disk;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::{self, Build};

/// What to register.
#[derive(Debug, Clone)]
pub struct Register<'a> {
    /// The store of images.
    pub images: &'a Path,
    pub name: ImageName,
    /// A file with an ext4 file system.
    pub rootfs: &'a Path,
    /// A reference is taken as it is; files must be there.
    pub kernel: ImageKernel,
}

/// Lists a file of the user as an image. It stays where it is, and is only ever read.
///
/// # Errors
/// [`Error::NotAFile`], [`Error::Superblock`] when it is not a file system,
/// [`Error::Exists`].
pub fn register(register: &Register<'_>) -> Result<Image> {
    store::sweep(register.images)?;
    let rootfs = absolute(register.rootfs)?;
    let found = check_rootfs(&rootfs)?;
    let image = Image {
        name: register.name.clone(),
        kind: Kind::Registered,
        kernel: checked(&register.kernel)?,
        size: found.size(),
        content: (found.blocks - found.free_blocks) * u64::from(found.block_size),
        origin: Origin::Registered {
            rootfs: rootfs.clone(),
        },
        rootfs,
        config: ImageConfig::default(),
        created: store::now(),
        dir: PathBuf::new(),
    };
    let build = Build::begin(register.images)?;
    store::write_metadata(build.dir(), METADATA, &image)?;
    let target = directory(register.images, &image.name);
    build.publish(&target, "Image", false)?;
    load(register.images, &image.name)
}

/// Takes a registered image's file system into the store; the user's file stays. Kernel files
/// stay where they are: importing the kernel is a step of its own.
///
/// # Errors
/// [`Error::NoSuchImage`], [`Error::AlreadyManaged`], [`Error::NoSpace`], or when the file is
/// no longer what was registered.
pub fn promote(images: &Path, name: &ImageName, progress: &dyn Progress, cancel: &Cancel) -> Result<Image> {
    store::sweep(images)?;
    let mut image = load(images, name)?;
    if image.kind == Kind::Managed {
        return Err(Error::AlreadyManaged(name.to_string()));
    }
    progress.stage("Copying the file system");
    let bytes = fs::metadata(&image.rootfs)
        .map_err(Error::io("open", &image.rootfs))?
        .len();
    let build = Build::begin(images)?;
    let copy = build.dir().join(ROOTFS);
    disk::clone_root_disk(&image.rootfs, &copy, bytes, cancel)?;
    let found = check_rootfs(&copy)?;
    image.kind = Kind::Managed;
    image.rootfs = PathBuf::new();
    image.size = found.size();
    image.content = (found.blocks - found.free_blocks) * u64::from(found.block_size);
    store::write_metadata(build.dir(), METADATA, &image)?;
    build.publish(&directory(images, name), "Image", true)?;
    load(images, name)
}

fn checked(kernel: &ImageKernel) -> Result<ImageKernel> {
    let ImageKernel::Files {
        kernel,
        initrd,
        modules,
    } = kernel
    else {
        return Ok(kernel.clone());
    };
    let file = |path: &PathBuf| {
        let path = absolute(path)?;
        if path.is_file() {
            Ok(path)
        } else {
            Err(Error::NotAFile(path))
        }
    };
    let modules = modules.as_deref().map(absolute).transpose()?;
    if let Some(dir) = &modules {
        fs::read_dir(dir).map_err(Error::io("read", dir))?;
    }
    Ok(ImageKernel::Files {
        kernel: file(kernel)?,
        initrd: initrd.as_ref().map(file).transpose()?,
        modules,
    })
}

/// The path by which a daemon with another directory finds the file, too.
fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(Error::io("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoProgress;
    use crate::ext4::Writer;
    use crate::image::{delete, list};

    struct Store {
        dir: tempfile::TempDir,
    }

    impl Store {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Writer::create(&dir.path().join("mine.ext4"))
                .unwrap()
                .finish()
                .unwrap();
            Self { dir }
        }

        fn images(&self) -> PathBuf {
            self.dir.path().join("images")
        }

        fn register(&self, name: &str, rootfs: &str) -> Result<Image> {
            register(&Register {
                images: &self.images(),
                name: name.parse().unwrap(),
                rootfs: &self.dir.path().join(rootfs),
                kernel: ImageKernel::Reference("debian-6.1".parse().unwrap()),
            })
        }
    }

    #[test]
    fn a_registered_file_is_never_touched() {
        let store = Store::new();
        let image = store.register("mine:1", "mine.ext4").unwrap();
        assert_eq!(image.kind, Kind::Registered);
        assert_eq!(list(&store.images()).unwrap(), std::slice::from_ref(&image));
        assert!(matches!(
            store.register("mine:1", "mine.ext4"),
            Err(Error::Exists { what: "Image", .. })
        ));
        delete(&store.images(), &image.name).unwrap();
        assert!(store.dir.path().join("mine.ext4").is_file());
        assert!(list(&store.images()).unwrap().is_empty());
        assert!(matches!(
            delete(&store.images(), &image.name),
            Err(Error::NoSuchImage(_))
        ));
    }

    #[test]
    fn a_promoted_image_lives_without_its_file() {
        let store = Store::new();
        let name = store.register("mine", "mine.ext4").unwrap().name;
        let promote = || promote(&store.images(), &name, &NoProgress, &Cancel::new());
        let image = promote().unwrap();
        assert_eq!(image.kind, Kind::Managed);
        assert!(matches!(promote(), Err(Error::AlreadyManaged(_))));
        fs::remove_file(store.dir.path().join("mine.ext4")).unwrap();
        let image = load(&store.images(), &name).unwrap();
        check_rootfs(&image.rootfs).unwrap();
        fs::remove_file(&image.rootfs).unwrap();
        assert!(matches!(load(&store.images(), &name), Err(Error::Damaged { .. })));
    }

    #[test]
    fn what_is_no_file_system_is_refused() {
        let store = Store::new();
        fs::write(store.dir.path().join("text"), "hello").unwrap();
        assert!(matches!(
            store.register("a", "text"),
            Err(Error::Superblock { .. })
        ));
        assert!(matches!(store.register("a", "."), Err(Error::NotAFile(_))));
        assert!(matches!(store.register("a", "none"), Err(Error::Io { .. })));
        assert!(list(&store.images()).unwrap().is_empty());
    }
}
