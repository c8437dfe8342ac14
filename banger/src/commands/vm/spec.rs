//! What a new VM should be: the options that `create` and `run` share.

use banger_bus::{CreateOptions, ManagerProxy, VmInfo};
use banger_model::{EngineChoice, Size};
use clap::Args;

use crate::completion;
use crate::error::Result;
use crate::parse::{self, Pair};

/// Options of a new VM.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpecArgs {
    /// The image: a name of the catalogue or an OCI reference, as alpine:3.20; pulled when it is missing [default: default_image_name of the configuration, else debian-bookworm]
    #[arg(long, value_name = "IMAGE", add = completion::images())]
    image: Option<String>,
    /// A kernel of `banger kernel list` instead of the image's own choice
    #[arg(long, value_name = "KERNEL", add = completion::kernels())]
    kernel_ref: Option<String>,
    /// Virtual CPUs [default: [vm_defaults] of the configuration, else a quarter of the host's, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(banger_model::limits::MAX_VCPUS)))]
    vcpu: Option<u32>,
    /// Memory, as 512M or 4G [default: [vm_defaults] of the configuration, else an eighth of the host's, at most 8G]
    #[arg(long, value_name = "SIZE", value_parser = parse::memory)]
    memory: Option<Size>,
    /// Size of the root disk, as 20G; it takes only what is written to it [default: [vm_defaults] of the configuration, else 8G]
    #[arg(long, value_name = "SIZE", value_parser = parse::disk)]
    disk_size: Option<Size>,
    /// What runs it: auto, qemu or firecracker [default: auto]
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    engine: Option<EngineChoice>,
    /// An environment variable of everything that banger runs in the guest; may be repeated
    #[arg(long = "env", short = 'e', value_name = "KEY=VALUE", value_parser = parse::pair)]
    env: Vec<Pair>,
    /// A label, for `vm list --filter`; may be repeated
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", value_parser = parse::pair)]
    labels: Vec<Pair>,
    /// What the guest reaches: public (the Internet) or none [default: public]
    #[arg(long, value_name = "MODE", value_parser = ["public", "none"])]
    network: Option<String>,
    /// The same as --network none
    #[arg(long, conflicts_with = "network")]
    no_network: bool,
}

impl SpecArgs {
    /// For `CreateVm`: what is missing is fetched.
    pub(super) fn options(&self, start: bool) -> CreateOptions {
        CreateOptions {
            image: self.image.clone(),
            kernel: self.kernel_ref.clone(),
            vcpus: self.vcpu,
            memory_mib: self.memory.map(Size::mib),
            disk_bytes: self.disk_size.map(Size::bytes),
            engine: self.engine.map(|engine| engine.as_str().to_owned()),
            network: if self.no_network {
                Some("none".to_owned())
            } else {
                self.network.clone()
            },
            env: parse::map(&self.env),
            labels: parse::map(&self.labels),
            start: Some(start),
            pull: Some(true),
        }
    }

    /// The options that ask for something else than a VM is.
    pub(super) fn other_than(&self, info: &VmInfo) -> Vec<&'static str> {
        let image = self.image.as_ref().is_some_and(|image| *image != info.image);
        let network = self.no_network.then_some("none").or(self.network.as_deref());
        let options = [
            (image, "--image"),
            (
                self.kernel_ref
                    .as_ref()
                    .is_some_and(|kernel| *kernel != info.kernel),
                "--kernel-ref",
            ),
            (self.vcpu.is_some_and(|n| n != info.vcpus), "--vcpu"),
            (
                self.memory.is_some_and(|size| size.mib() != info.memory_mib),
                "--memory",
            ),
            (
                self.disk_size.is_some_and(|size| size.bytes() != info.disk_bytes),
                "--disk-size",
            ),
            (
                network.is_some_and(|network| network != info.network),
                "--network",
            ),
            (!self.env.is_empty(), "--env"),
            (!self.labels.is_empty(), "--label"),
        ];
        let other = options.into_iter().filter(|(differs, _)| *differs);
        other.map(|(_, option)| option).collect()
    }

    /// `spec: 4 vcpu · 8192 MiB · 8G disk`: what is asked for, and the daemon's defaults.
    pub(super) async fn line(&self, manager: &ManagerProxy<'_>) -> Result<String> {
        let defaults = manager.defaults().await?;
        let default = |key: &str| {
            let row = defaults.iter().find(|(name, ..)| name == key);
            row.map_or("?", |(_, value, _)| value.as_str())
        };
        let vcpu = self
            .vcpu
            .map_or_else(|| default("vcpu").to_owned(), |n| n.to_string());
        let memory = match self.memory {
            Some(size) => size.mib().to_string(),
            None => default("memory")
                .parse::<Size>()
                .map_or_else(|_| "?".to_owned(), |size| size.mib().to_string()),
        };
        let disk = self
            .disk_size
            .map_or_else(|| default("disk_size").to_owned(), |size| size.to_string());
        Ok(format!("spec: {vcpu} vcpu · {memory} MiB · {disk} disk"))
    }
}

/// The same of a VM that is there.
pub(super) fn line_of(info: &VmInfo) -> String {
    format!(
        "spec: {} vcpu · {} MiB · {} disk",
        info.vcpus,
        info.memory_mib,
        Size::from_bytes(info.disk_bytes)
    )
}

fn engine(text: &str) -> std::result::Result<EngineChoice, String> {
    text.parse()
        .map_err(|_| "write auto, qemu or firecracker".to_owned())
}
