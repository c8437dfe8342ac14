//! A kernel on the bus.

use std::sync::Weak;

use async_trait::async_trait;
use banger_bus::api::{Caller, JobPath, KernelApi};
use banger_bus::{ExportOptions, KernelInfo, Result};
use banger_image::kernel::{Kernel, Origin};

use super::image::library;
use super::library::Library;

/// One kernel and where its operations are.
pub(super) struct KernelEntry {
    pub(super) kernel: Kernel,
    pub(super) library: Weak<Library>,
}

#[async_trait]
impl KernelApi for KernelEntry {
    fn info(&self) -> KernelInfo {
        let kernel = &self.kernel;
        let (origin, digest) = match &kernel.origin {
            Origin::Archive {
                url,
                suite,
                package,
                version,
                sha256,
            } => (
                format!("{package} {version} of {suite} from {url}"),
                format!("sha256:{sha256}"),
            ),
            Origin::Files { kernel, .. } => (format!("imported from {}", kernel.display()), String::new()),
            Origin::Bundle { url, sha256 } => (format!("bundle {url}"), sha256.to_string()),
        };
        KernelInfo {
            name: kernel.name.to_string(),
            version: kernel.version.clone(),
            aliases: kernel.aliases.clone(),
            path: kernel.vmlinux().display().to_string(),
            origin,
            digest,
            warnings: kernel.warnings.clone(),
            size_bytes: kernel.kernel_bytes.saturating_add(kernel.modules_bytes),
            created_us: kernel.created.saturating_mul(1_000_000),
        }
    }

    async fn delete(&self) -> Result<()> {
        library(&self.library)?.delete_kernel(&self.kernel.name).await
    }

    async fn export(&self, caller: Caller, file: String, options: ExportOptions) -> Result<JobPath> {
        library(&self.library)?
            .export_kernel(caller, &self.kernel.name, file, options)
            .await
    }

    async fn publish(&self, caller: Caller, directory: String, options: ExportOptions) -> Result<JobPath> {
        library(&self.library)?
            .publish_kernel(caller, &self.kernel.name, directory, options)
            .await
    }
}
