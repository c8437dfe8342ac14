//! Images and kernels.

use std::collections::BTreeMap;

use async_trait::async_trait;
use banger_bus::api::{Caller, ImageApi, JobPath, KernelApi};
use banger_bus::{Error, ErrorKind, ExportOptions, ImageInfo, KernelInfo, Result};
use zbus::OwnedObjectPath;

pub(super) struct FakeImage;

#[async_trait]
impl ImageApi for FakeImage {
    fn info(&self) -> ImageInfo {
        ImageInfo {
            name: "debian-bookworm".to_owned(),
            kind: "managed".to_owned(),
            rootfs: "/images/debian-bookworm/rootfs.ext4".to_owned(),
            kernel: "debian-6.1".to_owned(),
            size_bytes: 2 << 30,
            used_bytes: 900 << 20,
            origin: "recipe".to_owned(),
            digest: String::new(),
            reference: String::new(),
            layers: Vec::new(),
            env: BTreeMap::default(),
            user: String::new(),
            working_directory: String::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            labels: BTreeMap::default(),
            created_us: 0,
        }
    }

    async fn delete(&self) -> Result<()> {
        Err(Error::new(ErrorKind::ImageInUse, "The VM \"a\" uses the image"))
    }

    async fn promote(&self, _: Caller) -> Result<JobPath> {
        Err(Error::new(ErrorKind::WrongState, "It is in the store already"))
    }

    async fn tag(&self, _: String) -> Result<OwnedObjectPath> {
        not_here()
    }

    async fn export(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        not_here()
    }

    async fn publish(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        not_here()
    }
}

pub(super) struct FakeKernel;

#[async_trait]
impl KernelApi for FakeKernel {
    fn info(&self) -> KernelInfo {
        KernelInfo {
            name: "6.1".to_owned(),
            version: "6.1.0".to_owned(),
            aliases: vec!["debian-6.1".to_owned()],
            path: "/kernels/6.1/vmlinux".to_owned(),
            origin: "debian".to_owned(),
            digest: String::new(),
            warnings: vec!["No overlayfs: Docker will not work".to_owned()],
            size_bytes: 30 << 20,
            created_us: 0,
        }
    }

    async fn delete(&self) -> Result<()> {
        Ok(())
    }

    async fn export(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        not_here()
    }

    async fn publish(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        not_here()
    }
}

pub(super) fn not_here<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Failed, "Not in this test"))
}
