//! A kernel as a bundle.

use std::fs::File;
use std::path::Path;

use banger_model::KernelName;

use super::{Kernel, Origin, find};
use crate::Cancel;
use crate::bundle::{self, Content, Exported, KernelManifest, Manifest, Tree};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Writes a kernel, by its name or one of the catalogue, as a bundle: to `file`, or when that
/// is a directory into it under the name that the content has. What exists is replaced when
/// `force`.
///
/// # Errors
/// [`Error::NoSuchKernel`], [`Error::Replaceable`], [`Error::NoSpace`], [`Error::Cancelled`],
/// [`Error::Bundle`] when its files cannot be in a bundle.
pub fn export(
    kernels: &Path,
    name: &KernelName,
    file: &Path,
    force: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    let source = Source::open(&find(kernels, name)?)?;
    bundle::export(&source.manifest, source.content(), file, force, progress, cancel)
}

/// What a bundle is made of.
pub(super) struct Source {
    pub(super) manifest: Manifest,
    vmlinux: File,
    config: Option<File>,
    modules: Option<Tree>,
}

impl Source {
    pub(super) fn open(kernel: &Kernel) -> Result<Self> {
        let open = |path: &Path| {
            let file = File::open(path).map_err(Error::io("open", path))?;
            let bytes = file.metadata().map_err(Error::io("look at", path))?.len();
            Ok::<_, Error>((file, bytes))
        };
        let (vmlinux, vmlinux_bytes) = open(&kernel.vmlinux())?;
        let config = kernel.config().map(|config| open(&config)).transpose()?;
        let modules = kernel.modules().map(|modules| Tree::scan(&modules)).transpose();
        let modules = modules.map_err(|source| Error::Bundle {
            origin: kernel.name.to_string(),
            source,
        })?;
        let manifest = Manifest::Kernel(KernelManifest {
            version: KernelManifest::VERSION,
            name: kernel.name.clone(),
            release: kernel.version.clone(),
            vmlinux: vmlinux_bytes,
            config: config.as_ref().map(|(_, bytes)| *bytes),
            modules: modules.as_ref().map(Tree::tar_bytes),
            created: kernel.created,
            origin: describe(&kernel.origin),
        });
        Ok(Self {
            manifest,
            vmlinux,
            config: config.map(|(config, _)| config),
            modules,
        })
    }

    pub(super) fn content(&self) -> Content<'_> {
        Content::Kernel {
            vmlinux: &self.vmlinux,
            config: self.config.as_ref(),
            modules: self.modules.as_ref(),
        }
    }
}

/// For strangers: no path of this machine.
fn describe(origin: &Origin) -> String {
    match origin {
        Origin::Archive {
            url,
            package,
            version,
            sha256,
            ..
        } => format!("{package} {version} from {url} (sha256:{sha256})"),
        Origin::Files { .. } => "files".to_owned(),
        Origin::Bundle { url, sha256 } if url.starts_with("file:") => format!("a bundle ({sha256})"),
        Origin::Bundle { url, sha256 } => format!("{url} ({sha256})"),
    }
}
