//! Images and kernels.

use std::collections::BTreeMap;

use async_trait::async_trait;
use banger_bus::api::{Caller, ImageApi, JobPath, KernelApi};
use banger_bus::{Error, ErrorKind, ExportOptions, ImageInfo, JobOutcome, KernelInfo, Result, path};
use zbus::OwnedObjectPath;

use super::Fake;
use super::job::Plan;

/// An image. What is asked of it is noted.
pub(super) struct FakeImage {
    pub(super) fake: Fake,
    pub(super) info: ImageInfo,
}

pub(super) const DIGEST: &str = "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

/// Built from a recipe: no layers, and nothing about its processes.
pub(super) fn debian() -> ImageInfo {
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

/// A registry's, whose author means no good.
pub(super) fn alpine() -> ImageInfo {
    ImageInfo {
        name: "alpine:3.20".to_owned(),
        rootfs: "/images/alpine:3.20/rootfs.ext4".to_owned(),
        kernel: String::new(),
        origin: "docker.io/library/alpine:3.20".to_owned(),
        digest: DIGEST.to_owned(),
        reference: "docker.io/library/alpine:3.20".to_owned(),
        layers: vec!["sha256:aa".to_owned(), "sha256:bb".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/bin:/sbin".to_owned())]),
        user: "app:app".to_owned(),
        working_directory: "/srv\x1b[2J".to_owned(),
        entrypoint: vec!["/bin/sh".to_owned(), "-c".to_owned()],
        command: vec!["echo \x07\u{202e}\"x\"".to_owned()],
        labels: BTreeMap::from([("title".to_owned(), "a\x1b]0;owned\x07\nlayer  none".to_owned())]),
        ..debian()
    }
}

/// What an export has written.
fn written(file: &str) -> JobOutcome {
    JobOutcome {
        names: vec![file.to_owned()],
        bytes: Some(3 << 20),
        digest: Some(DIGEST.to_owned()),
        ..JobOutcome::done()
    }
}

#[async_trait]
impl ImageApi for FakeImage {
    fn info(&self) -> ImageInfo {
        self.info.clone()
    }

    async fn delete(&self) -> Result<()> {
        self.fake.called(format!("delete-image {}", self.info.name));
        if self.info.name == "alpine:3.20" {
            return Ok(());
        }
        Err(Error::new(ErrorKind::ImageInUse, "The VM \"a\" uses the image"))
    }

    async fn promote(&self, _: Caller) -> Result<JobPath> {
        Err(Error::new(ErrorKind::WrongState, "It is in the store already"))
    }

    async fn tag(&self, name: String) -> Result<OwnedObjectPath> {
        self.fake.called(format!("tag {} {name}", self.info.name));
        Ok(path::image(&name))
    }

    async fn export(&self, caller: Caller, file: String, options: ExportOptions) -> Result<JobPath> {
        self.fake.called(format!(
            "export {} {file} force={:?}",
            self.info.name, options.force
        ));
        let plan = Plan::Run(Vec::new(), written(&file));
        self.fake.job(&caller, "export-image", plan).await
    }

    async fn publish(&self, caller: Caller, directory: String, options: ExportOptions) -> Result<JobPath> {
        self.fake.called(format!(
            "publish {} {directory} {:?} {:?}",
            self.info.name, options.base_url, options.description
        ));
        let plan = Plan::Run(Vec::new(), written(&format!("{directory}/x.tar.zst")));
        self.fake.job(&caller, "publish-image", plan).await
    }
}

pub(super) struct FakeKernel {
    pub(super) fake: Fake,
}

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

    async fn export(&self, caller: Caller, file: String, _: ExportOptions) -> Result<JobPath> {
        self.fake.called(format!("export-kernel {file}"));
        let plan = Plan::Run(Vec::new(), written(&file));
        self.fake.job(&caller, "export-kernel", plan).await
    }

    async fn publish(&self, caller: Caller, directory: String, _: ExportOptions) -> Result<JobPath> {
        self.fake.called(format!("publish-kernel {directory}"));
        let plan = Plan::Run(Vec::new(), written(&format!("{directory}/x.tar.zst")));
        self.fake.job(&caller, "publish-kernel", plan).await
    }
}
