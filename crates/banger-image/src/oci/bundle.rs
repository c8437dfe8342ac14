//! A file of the web into the cache, as if it were a layer.

use std::fs::File;

use reqwest::Url;

use super::cache::Store;
use super::document::Blob;
use super::download::Downloads;
use super::error::Failure;
use super::session::Session;
use super::{Driver, Registry};
use crate::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;

impl Registry<'_> {
    /// Fetches a file whose digest and size are known, unless the cache has it, and opens it.
    /// Nobody's credentials are sent.
    ///
    /// Must not be called in an async task.
    ///
    /// # Errors
    /// [`Error::Oci`], [`Error::NoSpace`], [`Error::Cancelled`].
    pub(crate) fn download(
        &self,
        url: &Url,
        sha256: &Digest,
        size: u64,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<File> {
        cancel.check()?;
        let named = |failure: Failure| failure.of(url.as_str());
        let store = Store::open(self.cache)?;
        let session = Session::of_file(url, progress, cancel).map_err(|error| named(error.into()))?;
        let downloads = Downloads {
            session: &session,
            store: &store,
            policy: self.retry,
            offline: self.offline,
        };
        let blob = Blob {
            digest: *sha256,
            size,
        };
        let mut report = |done: u64| progress.fraction(done as f64 / size as f64);
        let driver = Driver::new(cancel)?;
        driver.run(downloads.fetch(&blob, &mut report)).map_err(named)?;
        let file = store.get(&blob)?.ok_or_else(|| Error::Damaged {
            path: store.path(sha256),
            reason: "another program removes what is fetched".to_owned(),
        })?;
        // What is open stays, whatever goes.
        store.evict(self.cache_bytes)?;
        Ok(file)
    }
}
