//! All layers of an image: several at once, handed over in their order.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::Layer;
use super::document::Blob;
use super::download::{Downloads, Origin};
use super::error::Failure;
use crate::error::Error;
use crate::progress::{Part, PartState, Progress};

/// The least time between two reports about a layer.
const REPORTS: Duration = Duration::from_millis(100);

impl Downloads<'_> {
    /// Fetches all layers, at most three at once, and sends each, open for reading, once those
    /// before it were sent. Ends early when nobody receives.
    pub(super) async fn fetch_all(
        &self,
        layers: &[Layer],
        out: mpsc::Sender<(usize, File)>,
    ) -> Result<(), Failure> {
        let mut distinct: Vec<Blob> = Vec::new();
        let mut places = BTreeMap::new();
        for layer in layers {
            places.entry(layer.digest).or_insert_with(|| {
                distinct.push(layer.blob());
                distinct.len() - 1
            });
        }
        let watches: Vec<_> = distinct.iter().map(|_| watch::Sender::new(false)).collect();
        let tracks: Vec<_> = distinct
            .iter()
            .map(|blob| Track::new(self.session.progress, blob))
            .collect();
        let next = Cell::new(0);
        let worker = || async {
            while let Some(blob) = distinct.get(next.get()) {
                let place = next.replace(next.get() + 1);
                self.fetch_tracked(blob, &tracks[place]).await?;
                watches[place].send_replace(true);
            }
            Ok::<(), Failure>(())
        };
        let emit = async {
            for (number, layer) in layers.iter().enumerate() {
                let place = places[&layer.digest];
                // The sender lives as long as this.
                _ = watches[place].subscribe().wait_for(|done| *done).await;
                let file = self.open(&layer.blob(), &tracks[place]).await?;
                if out.send((number, file)).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let all = async { tokio::try_join!(worker(), worker(), worker(), emit).map(|_| ()) };
        tokio::select! {
            result = all => result,
            () = out.closed() => Ok(()),
        }
    }

    async fn fetch_tracked(&self, blob: &Blob, track: &Track<'_>) -> Result<(), Failure> {
        match self.fetch(blob, &mut |done| track.fetching(done)).await? {
            Origin::Cache => track.report(PartState::Cached, blob.size),
            Origin::Network => track.report(PartState::Fetched, blob.size),
        }
        Ok(())
    }

    /// Opens a blob that was fetched. Somebody may have emptied the cache since.
    async fn open(&self, blob: &Blob, track: &Track<'_>) -> Result<File, Failure> {
        if let Some(file) = self.store.get(blob)? {
            return Ok(file);
        }
        self.fetch_tracked(blob, track).await?;
        let file = self.store.get(blob)?;
        Ok(file.ok_or_else(|| Error::Damaged {
            path: self.store.path(&blob.digest),
            reason: "another program removes what is fetched".to_owned(),
        })?)
    }
}

impl Layer {
    pub(super) fn blob(&self) -> Blob {
        Blob {
            digest: self.digest,
            size: self.size,
        }
    }
}

/// What is said about one layer, not too often.
struct Track<'a> {
    progress: &'a dyn Progress,
    name: String,
    total: u64,
    last: Cell<Option<Instant>>,
}

impl<'a> Track<'a> {
    fn new(progress: &'a dyn Progress, blob: &Blob) -> Self {
        let track = Self {
            progress,
            name: blob.digest.short(),
            total: blob.size,
            last: Cell::new(None),
        };
        track.report(PartState::Waiting, 0);
        track
    }

    fn fetching(&self, done: u64) {
        let now = Instant::now();
        if self.last.get().is_none_or(|last| now - last >= REPORTS) {
            self.last.set(Some(now));
            self.report(PartState::Fetching, done);
        }
    }

    fn report(&self, state: PartState, done: u64) {
        self.progress.part(&Part {
            name: &self.name,
            state,
            done,
            total: self.total,
        });
    }
}
