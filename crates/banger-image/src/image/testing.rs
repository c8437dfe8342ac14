//! A store of images for tests.

use std::path::PathBuf;

use super::{Image, ImageKernel, Register, promote, register};
use crate::{Cancel, NoProgress};

pub(crate) struct Store {
    pub(crate) dir: tempfile::TempDir,
}

impl Store {
    /// With `mine.ext4` beside it.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        crate::ext4::Writer::create(&dir.path().join("mine.ext4"))
            .unwrap()
            .finish()
            .unwrap();
        Self { dir }
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub(crate) fn registered(&self, name: &str) -> Image {
        register(&Register {
            images: &self.images(),
            name: name.parse().unwrap(),
            rootfs: &self.dir.path().join("mine.ext4"),
            kernel: ImageKernel::Reference("debian-6.1".parse().unwrap()),
        })
        .unwrap()
    }

    pub(crate) fn managed(&self, name: &str) -> Image {
        let image = self.registered(name);
        promote(&self.images(), &image.name, &NoProgress, &Cancel::new()).unwrap()
    }
}
