//! One blob of a registry into the cache: once for all who want it, resumed where it broke
//! off, hashed while it comes, verified before it has its name.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::cache::{Partial, Store};
use super::document::Blob;
use super::error::{Failure, OciError};
use super::http::{Request, host_of};
use super::retry::RetryPolicy;
use super::session::Session;
use crate::digest::{Digest, Hasher};
use crate::error::Error;

/// How a blob came to be in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Cache,
    Network,
}

/// What all downloads of a pull share.
#[derive(Clone, Copy)]
pub(super) struct Downloads<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) store: &'a Store,
    pub(super) policy: RetryPolicy,
    pub(super) offline: bool,
}

/// Pieces between the network and the disk.
const QUEUE: usize = 32;
/// A connection that brought so many bytes before it broke was no failure.
const PROGRESS: u64 = 1 << 20;

impl Downloads<'_> {
    /// Makes sure that a blob is in the cache. `progress` gets the bytes that are there.
    pub(super) async fn fetch(&self, blob: &Blob, progress: &mut dyn FnMut(u64)) -> Result<Origin, Failure> {
        if self.store.get(blob)?.is_some() {
            return Ok(Origin::Cache);
        }
        if self.offline {
            return Err(OciError::Offline.into());
        }
        let mut unfinished = Unfinished {
            partial: Some(self.lock(blob).await?),
            full: &self.session.full,
        };
        // Whoever had the lock before may have fetched it.
        if self.store.get(blob)?.is_some() {
            unfinished.discard();
            return Ok(Origin::Network);
        }
        let mut download = Download {
            shared: self,
            blob,
            what: format!("layer {}", blob.digest.short()),
            ranges: true,
            resumed: false,
        };
        if let Some(partial) = &unfinished.partial
            && let Err(failure) = download.run(partial, progress).await
        {
            if matches!(failure, Failure::Other(Error::NoSpace { .. })) {
                self.session.full.store(true, Ordering::SeqCst);
            }
            // What broke off is kept for the next time; what is wrong or too much is not.
            if !matches!(&failure, Failure::Oci(error) if error.may_go_on()) {
                unfinished.discard();
            }
            return Err(failure);
        }
        unfinished.partial.take().map_or(Ok(()), Partial::publish)?;
        Ok(Origin::Network)
    }

    /// Two pulls of one blob share one download.
    async fn lock(&self, blob: &Blob) -> Result<Partial, Failure> {
        let target = self.store.path(&blob.digest);
        if let Some(partial) = Partial::try_lock(&target)? {
            return Ok(partial);
        }
        let waiting = spawn_blocking(move || Partial::lock(&target));
        Ok(waiting.await.map_err(|_| Error::Cancelled)??)
    }
}

/// A download that may end at any await: what it has stays for the next one, but on a full
/// disk.
struct Unfinished<'a> {
    partial: Option<Partial>,
    full: &'a AtomicBool,
}

impl Unfinished<'_> {
    fn discard(&mut self) {
        if let Some(partial) = self.partial.take()
            && let Err(error) = partial.discard()
        {
            // The next prune tries again.
            tracing::warn!(%error, "Cannot remove an unfinished download");
        }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.full.load(Ordering::SeqCst) {
            self.discard();
        }
    }
}

struct Download<'a> {
    shared: &'a Downloads<'a>,
    blob: &'a Blob,
    what: String,
    /// Whether parts of a blob are asked for.
    ranges: bool,
    /// Not all bytes came in one piece.
    resumed: bool,
}

impl Download<'_> {
    async fn run(&mut self, partial: &Partial, progress: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let mut second = false;
        loop {
            let mut sink = Sink::start(partial, self.blob.size)?;
            self.resumed = sink.received > 0;
            progress(sink.received);
            self.fill(&mut sink, progress).await?;
            let found = sink.finish().await?;
            if found == self.blob.digest {
                return Ok(());
            }
            let empty = partial.file.set_len(0);
            empty.map_err(Error::io("write", partial.path()))?;
            // Pieces of several connections, or of another day, get one more chance as a whole.
            if second || !self.resumed {
                return Err(OciError::DigestMismatch {
                    what: self.what.clone(),
                    expected: self.blob.digest,
                    found,
                }
                .into());
            }
            second = true;
        }
    }

    /// Asks until all bytes are there.
    async fn fill(&mut self, sink: &mut Sink, progress: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let mut failed = 0;
        while sink.received < self.blob.size {
            let before = sink.received;
            let error = match self.attempt(sink, progress).await {
                Ok(()) => continue,
                Err(Failure::Oci(error)) => error,
                Err(other) => return Err(other),
            };
            if before > 0 && self.ranges && matches!(error, OciError::Status { status: 416, .. }) {
                self.ranges = false;
                continue;
            }
            failed = if sink.received - before >= PROGRESS {
                1
            } else {
                failed + 1
            };
            let pause = self.shared.policy.next(failed, &error).ok_or(error)?;
            self.resumed |= sink.received > 0;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    async fn attempt(&self, sink: &mut Sink, progress: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let session = self.shared.session;
        let mut request = Request::get(session.url("blobs", &self.blob.digest.to_string())?);
        request.small = false;
        request.from = if self.ranges { sink.received } else { 0 };
        let mut response = session.send(request, &self.what).await?;
        let mut skip = self.check(&response, sink.received)?;
        let host = host_of(response.url());
        loop {
            let mut piece = match response.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) if sink.received == self.blob.size => return Ok(()),
                Ok(None) | Err(_) => return Err(OciError::BrokenOff { host }.into()),
            };
            let known = piece.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= known as u64;
            let piece = piece.split_off(known);
            if piece.len() as u64 > self.blob.size - sink.received {
                return Err(self.wrong_size("it goes on").into());
            }
            if !piece.is_empty() {
                sink.write(piece).await?;
                progress(sink.received);
            }
        }
    }

    /// How many bytes of an answer are here already.
    fn check(&self, response: &Response, received: u64) -> Result<u64, OciError> {
        let (start, skip) = if response.status() == StatusCode::PARTIAL_CONTENT {
            if range_start(response.headers()) != Some(received) {
                return Err(OciError::malformed(
                    self.what.clone(),
                    "another part of it came than was asked for",
                ));
            }
            (received, 0)
        } else {
            (0, received)
        };
        match response.content_length() {
            Some(bytes) if bytes != self.blob.size - start => {
                Err(self.wrong_size(&format!("received {}", start.saturating_add(bytes))))
            }
            _ => Ok(skip),
        }
    }

    fn wrong_size(&self, found: &str) -> OciError {
        OciError::SizeMismatch {
            what: self.what.clone(),
            expected: self.blob.size,
            found: found.to_owned(),
        }
    }
}

/// The first byte that an answer has (RFC 9110, 14.4): `bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = text.strip_prefix("bytes ")?.split_once('-')?;
    start.parse().ok()
}

/// The end of a file that grows, in a thread of its own: the network does not wait for hashing
/// and writing.
struct Sink {
    pieces: Option<mpsc::Sender<Bytes>>,
    writer: JoinHandle<Result<Digest, Error>>,
    received: u64,
}

impl Sink {
    /// Goes on at the end of what is there, which is read once.
    fn start(partial: &Partial, size: u64) -> Result<Self, Error> {
        let path = partial.path().to_owned();
        let file = partial.file.try_clone().map_err(Error::io("open", &path))?;
        let mut received = partial.len()?;
        if received > size {
            file.set_len(0).map_err(Error::io("write", &path))?;
            received = 0;
        }
        let (pieces, queue) = mpsc::channel(QUEUE);
        Ok(Self {
            pieces: Some(pieces),
            writer: spawn_blocking(move || write_all(file, &path, received, size, queue)),
            received,
        })
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Error> {
        let bytes = piece.len() as u64;
        match &self.pieces {
            Some(pieces) if pieces.send(piece).await.is_ok() => {
                self.received += bytes;
                Ok(())
            }
            // The writer has ended, and knows why.
            _ => Err(self.finish().await.err().unwrap_or(Error::Cancelled)),
        }
    }

    /// The digest of the whole file.
    async fn finish(&mut self) -> Result<Digest, Error> {
        self.pieces = None;
        match (&mut self.writer).await {
            Ok(written) => written,
            Err(_) => Err(Error::Cancelled),
        }
    }
}

fn write_all(
    mut file: File,
    path: &Path,
    start: u64,
    size: u64,
    mut queue: mpsc::Receiver<Bytes>,
) -> Result<Digest, Error> {
    let mut hasher = Hasher::default();
    hash_start(&mut file, start, &mut hasher).map_err(Error::io("read", path))?;
    let mut written = start;
    while let Some(piece) = queue.blocking_recv() {
        hasher.update(&piece);
        file.write_all(&piece)
            .map_err(|error| Error::io_needing("write", path, size - written, error))?;
        written += piece.len() as u64;
    }
    Ok(hasher.finish())
}

fn hash_start(file: &mut File, bytes: u64, hasher: &mut Hasher) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut rest = bytes;
    let mut piece = vec![0; 1 << 18];
    while rest > 0 {
        let part = piece.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        file.read_exact(&mut piece[..part])?;
        hasher.update(&piece[..part]);
        rest -= part as u64;
    }
    Ok(())
}
