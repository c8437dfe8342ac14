//! Images of OCI registries: references, manifests, logins, and layers through a cache.
//!
//! Everything that a registry says is taken for a stranger's: every answer has a bound, and no
//! byte of a layer is used before its size and its SHA-256 are those of the manifest. The
//! protocol is that of the OCI distribution-spec 1.1 and of docker's registry before it.

mod bundle;
pub mod cache;
mod config;
mod credentials;
mod document;
mod download;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod layers;
mod reference;
mod resolve;
mod retry;
mod session;
mod time;

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use banger_model::ImageConfig;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc};

pub use error::OciError;
pub use reference::{Reference, ReferenceError};
pub use retry::RetryPolicy;

use crate::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Compression;
use crate::progress::Progress;
use cache::Store;
use download::Downloads;
use error::Failure;
use session::Session;

/// How images are had of registries.
#[derive(Debug, Clone, Copy)]
pub struct Registry<'a> {
    /// The owner's cache; blobs are below `oci` in it.
    pub cache: &'a Path,
    /// What it may hold after a pull, in bytes: [`cache::DEFAULT_BYTES`].
    pub cache_bytes: u64,
    /// Speak plain HTTP, and that with this machine alone.
    pub insecure: bool,
    /// Ask nobody: take what is in the cache.
    pub offline: bool,
    pub retry: RetryPolicy,
}

/// One layer of an image, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    pub digest: Digest,
    /// In bytes, compressed.
    pub size: u64,
    pub compression: Compression,
    /// Of its content.
    pub diff_id: Digest,
}

/// An image for this machine's platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// In its full form.
    pub reference: String,
    /// Of the manifest itself, also where the reference names an index.
    pub digest: Digest,
    pub config: ImageConfig,
    /// When it was made, in seconds since 1970.
    pub created: Option<i64>,
    /// The lowest first.
    pub layers: Vec<Layer>,
}

/// Blobs that are open and wait for those who use them.
const READY: usize = 1;
/// How long files and name servers are waited for at the end.
const LAST: Duration = Duration::from_millis(50);

impl Registry<'_> {
    /// Fetches an image. `ready` gets each layer's verified blob in the order of the layers,
    /// open for reading, while later ones are still on their way; it runs in the caller's
    /// thread, and its error ends the pull. What the cache holds is not fetched again: an
    /// image of the cache takes one request for its manifest, or none by its digest.
    ///
    /// Must not be called in an async task.
    ///
    /// # Errors
    /// [`Error::Oci`], [`Error::NoSpace`], [`Error::Cancelled`], what `ready` says.
    pub fn pull(
        &self,
        reference: &Reference,
        ready: &mut dyn FnMut(&Manifest, usize, File) -> Result<()>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Manifest> {
        self.pull_if(reference, &mut |_| true, ready, progress, cancel)
    }

    /// The same, with layers only if `wanted` says so of the manifest.
    ///
    /// # Errors
    /// As [`Registry::pull`].
    pub fn pull_if(
        &self,
        reference: &Reference,
        wanted: &mut dyn FnMut(&Manifest) -> bool,
        ready: &mut dyn FnMut(&Manifest, usize, File) -> Result<()>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Manifest> {
        cancel.check()?;
        let store = Store::open(self.cache)?;
        let named = |failure: Failure| failure.of(&reference.to_string());
        let session = Session::new(reference, self.insecure, progress, cancel);
        let session = session.map_err(|error| named(error.into()))?;
        let downloads = Downloads {
            session: &session,
            store: &store,
            policy: self.retry,
            offline: self.offline,
        };
        let driver = Driver::new(cancel)?;
        progress.stage("Reading the manifest");
        let manifest = driver.run(downloads.resolve(reference)).map_err(named)?;
        if wanted(&manifest) {
            progress.stage("Fetching the layers");
            let (sender, receiver) = mpsc::channel(READY);
            let (handed, fetched) = thread::scope(|scope| {
                let fetching = thread::Builder::new()
                    .name("registry".to_owned())
                    .spawn_scoped(scope, || {
                        driver.run(downloads.fetch_all(&manifest.layers, sender))
                    })
                    .map_err(Error::io("start a thread for", self.cache))?;
                let handed = hand_over(&manifest, receiver, ready);
                let fetched = fetching.join();
                Ok::<_, Error>((
                    handed,
                    fetched.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                ))
            })?;
            // The error that came first ended the other side.
            handed?;
            fetched.map_err(named)?;
        }
        cancel.check()?;
        store.evict(self.cache_bytes)?;
        Ok(manifest)
    }

    /// Checks the blobs of an image that was pulled again, and removes from the cache what is
    /// damaged. Whether all were good.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn scrub(&self, manifest: &Manifest) -> Result<bool> {
        let store = Store::open(self.cache)?;
        let mut good = true;
        for layer in &manifest.layers {
            good &= store.scrub(&layer.digest)?;
        }
        Ok(good)
    }
}

fn hand_over(
    manifest: &Manifest,
    mut blobs: mpsc::Receiver<(usize, File)>,
    ready: &mut dyn FnMut(&Manifest, usize, File) -> Result<()>,
) -> Result<()> {
    while let Some((number, blob)) = blobs.blocking_recv() {
        ready(manifest, number, blob)?;
    }
    Ok(())
}

/// Runs what waits for the network, until it is done or cancelled.
struct Driver {
    runtime: Option<Runtime>,
    cancelled: Arc<Notify>,
    _cancelled: banger_sys::cancel::OnCancel,
}

impl Driver {
    fn new(cancel: &Cancel) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::io("start", Path::new("the network")))?;
        let cancelled = Arc::new(Notify::new());
        let notify = cancelled.clone();
        Ok(Self {
            runtime: Some(runtime),
            cancelled,
            _cancelled: cancel.on_cancel(move || notify.notify_one()),
        })
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let Some(runtime) = &self.runtime else {
            return Err(Error::Cancelled.into());
        };
        runtime.block_on(async {
            tokio::select! {
                result = work => result,
                () = self.cancelled.notified() => Err(Error::Cancelled.into()),
            }
        })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(LAST);
        }
    }
}
