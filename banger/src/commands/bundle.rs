//! Bundles: what exporting and publishing of images and kernels share.

use std::path::{Path, PathBuf};

use banger_bus::{ExportOptions, JobOutcome};
use clap::Args;

use crate::error::{Error, Result};
use crate::output::{Finished, bytes};

/// Options of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The new file [default: the name, with '-' for '/' and ':', and .tar.zst]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, short)]
    force: bool,
}

/// Options of `publish`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Where the bundle and `catalog.toml` are written; made when it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Where others will reach the directory [default: bundles are looked for beside the catalogue]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// The description in the catalogue
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Replace an entry of the same name
    #[arg(long, short)]
    force: bool,
}

impl ExportArgs {
    /// The absolute path of the file for an object's name.
    pub(super) fn file(&self, name: &str) -> Result<String> {
        match &self.output {
            Some(file) => absolute(file),
            None => absolute(Path::new(&file_name(name))),
        }
    }

    pub(super) fn options(&self) -> ExportOptions {
        ExportOptions {
            force: Some(self.force),
            ..ExportOptions::default()
        }
    }
}

impl PublishArgs {
    pub(super) fn directory(&self) -> Result<String> {
        absolute(&self.directory)
    }

    pub(super) fn options(&self) -> ExportOptions {
        ExportOptions {
            force: Some(self.force),
            base_url: self.base_url.clone(),
            description: self.description.clone(),
        }
    }
}

/// `NAME: exported to FILE (89.0 MiB, sha256:…)`.
pub(super) fn written(name: &str, verb: &str, outcome: &JobOutcome) -> Finished {
    let file = outcome.names.first().map_or("", String::as_str);
    let size = outcome.bytes.unwrap_or_default();
    let digest = outcome.digest.as_deref().unwrap_or_default();
    Finished::from(format!("{name}: {verb} {file} ({}, {digest})", bytes(size)))
        .with("file", file)
        .with("bytes", size)
        .with("digest", digest)
}

/// The daemon has another working directory, so it gets absolute paths.
pub(super) fn absolute(path: &Path) -> Result<String> {
    let whole: PathBuf =
        std::path::absolute(path).map_err(|e| Error::io(format!("Cannot resolve {path:?}"), e))?;
    whole
        .into_os_string()
        .into_string()
        .map_err(|path| Error::Refused(format!("Cannot name {path:?} on the bus: it is not UTF-8")))
}

pub(super) fn absolute_option(path: Option<&Path>) -> Result<Option<String>> {
    path.map(absolute).transpose()
}

fn file_name(name: &str) -> String {
    format!("{}.tar.zst", name.replace(['/', ':'], "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_file_of_this_directory() {
        for (name, file) in [
            ("debian-minimal", "debian-minimal.tar.zst"),
            ("ghcr.io/owner/tool:1.2", "ghcr.io-owner-tool-1.2.tar.zst"),
            ("localhost:5000/a", "localhost-5000-a.tar.zst"),
        ] {
            assert_eq!(file_name(name), file);
        }
    }
}
