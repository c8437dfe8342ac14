//! For the fuzz targets alone: parsers of what a registry, or a file of logins, says.

use banger_model::ImageConfig;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use super::config::Configuration;
use super::credentials;
use super::document::{Blob, Document, choose};
use super::error::OciError;
use super::retry::retry_after;
use crate::digest::Digest;

/// What a document is.
pub enum Said {
    /// The configuration and the layers, with their sizes in bytes.
    Manifest(Vec<(Digest, u64)>),
    /// What is chosen of an index.
    Index(Digest, u64),
}

/// # Errors
/// When it is refused, or has nothing for this platform.
pub fn document(text: &[u8], announced: &str) -> Result<Said, OciError> {
    let pair = |blob: &Blob| (blob.digest, blob.size);
    Ok(match Document::parse(text, announced)? {
        Document::Manifest(manifest) => {
            let layers = manifest.layers.iter().map(|(layer, _)| pair(layer));
            Said::Manifest([pair(&manifest.config)].into_iter().chain(layers).collect())
        }
        Document::Index(entries) => {
            let (digest, size) = pair(&choose(&entries)?.blob);
            Said::Index(digest, size)
        }
    })
}

/// The configuration and the warnings about it.
///
/// # Errors
/// When it is refused.
pub fn configuration(text: &[u8], layers: usize) -> Result<(ImageConfig, Vec<String>), OciError> {
    Configuration::parse(text, layers).map(|found| (found.config, found.warnings))
}

/// Whether a file of logins has one, or names who has, for a repository.
///
/// # Errors
/// What the user is told when the file or the login in it is damaged.
pub fn credentials(text: &[u8], host: &str, repository: &str) -> Result<bool, String> {
    credentials::is_in(text, host, repository)
}

/// Seconds that a server asks one to wait.
pub fn seconds(text: &[u8]) -> Option<u64> {
    let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_bytes(text).ok()?)]);
    retry_after(&headers).map(|wait| wait.as_secs())
}
