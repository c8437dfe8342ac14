//! The content of a layer on its way: from the thread that decompresses it, past the counters
//! and the digest, to who reads the archive.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use super::{Compression, LayerError, Limits};
use crate::digest::{Digest, Hasher};
use crate::error::full;
use crate::ext4::WriteError;

/// Bytes that are handed over at once.
const PIECE: usize = 1 << 20;
/// Pieces that wait; so many the slower side may be behind.
pub(super) const DEPTH: usize = 4;
/// Stored bytes that are read at once.
const READ: usize = 256 << 10;

/// Stored bytes, as many as announced, and how many of them were read.
pub(super) struct Counted<R> {
    inner: R,
    size: u64,
    read: Arc<AtomicU64>,
}

impl<R: Read> Counted<R> {
    pub(super) fn new(inner: R, size: u64, read: Arc<AtomicU64>) -> Self {
        Self { inner, size, read }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let before = self.read.load(Ordering::Relaxed);
        // One more than announced, to see that there is no more.
        let most = (self.size - before).saturating_add(1).min(buf.len() as u64) as usize;
        let len = self.inner.read(&mut buf[..most])?;
        if before + len as u64 > self.size || len == 0 && before < self.size && !buf.is_empty() {
            return Err(io::Error::other(WrongSize));
        }
        self.read.store(before + len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("Not of the announced size")]
struct WrongSize;

/// What the thread that decompresses has of one layer.
pub(super) struct Source {
    pub(super) full: SyncSender<Result<Vec<u8>, LayerError>>,
    /// Pieces that were used, to be filled again.
    pub(super) empty: Receiver<Vec<u8>>,
    pub(super) read: Arc<AtomicU64>,
    pub(super) limits: Limits,
}

impl Source {
    /// Sends the content until its end, until something is wrong with it, or until nobody
    /// listens any more.
    pub(super) fn run(self, blob: Counted<impl Read + Send>, compression: Compression) {
        let size = blob.size;
        let blob = BufReader::with_capacity(READ, blob);
        let mut decoder = match compression.decoder(blob, self.limits.window_log) {
            Ok(decoder) => decoder,
            Err(error) => {
                _ = self.full.send(Err(named(error, size)));
                return;
            }
        };
        let mut total = 0;
        loop {
            let mut piece = self.empty.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
            let next = fill(&mut decoder, &mut piece).map_err(|source| explain(source, compression, size));
            let next = next.and_then(|len| {
                piece.truncate(len);
                total += len as u64;
                self.check(total)?;
                Ok(piece)
            });
            let end = next.as_ref().map_or(true, Vec::is_empty);
            if self.full.send(next).is_err() || end {
                return;
            }
        }
    }

    fn check(&self, total: u64) -> Result<(), LayerError> {
        let Limits {
            bytes,
            ratio,
            ratio_from,
            ..
        } = self.limits;
        if total > bytes {
            return Err(LayerError::TooLarge { limit: bytes });
        }
        let stored = self.read.load(Ordering::Relaxed);
        if total > ratio_from && total > stored.saturating_mul(ratio) {
            return Err(LayerError::Bomb { ratio });
        }
        Ok(())
    }
}

/// Reads until the piece is full, or to the end.
fn fill(decoder: &mut impl Read, piece: &mut Vec<u8>) -> io::Result<usize> {
    piece.resize(PIECE, 0);
    let mut len = 0;
    while len < PIECE {
        match decoder.read(&mut piece[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn explain(source: io::Error, compression: Compression, announced: u64) -> LayerError {
    if source.get_ref().is_some_and(|inner| inner.is::<WrongSize>()) {
        LayerError::Size { announced }
    } else if source.raw_os_error().is_some() {
        LayerError::Read(source)
    } else {
        LayerError::Corrupt { compression, source }
    }
}

fn named(error: LayerError, announced: u64) -> LayerError {
    match error {
        LayerError::Read(source) => explain(source, Compression::None, announced),
        other => other,
    }
}

/// The content of a layer for who reads the archive.
pub(super) struct Stream<'a> {
    pieces: Receiver<Result<Vec<u8>, LayerError>>,
    used: Sender<Vec<u8>>,
    report: &'a mut dyn FnMut() -> Result<(), LayerError>,
    piece: Vec<u8>,
    at: usize,
    bytes: u64,
    hasher: Hasher,
    end: bool,
    /// Why reading failed: what reads this sees an I/O error without a reason.
    failure: Option<LayerError>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        pieces: Receiver<Result<Vec<u8>, LayerError>>,
        used: Sender<Vec<u8>>,
        report: &'a mut dyn FnMut() -> Result<(), LayerError>,
    ) -> Self {
        Self {
            pieces,
            used,
            report,
            piece: Vec::new(),
            at: 0,
            bytes: 0,
            hasher: Hasher::default(),
            end: false,
            failure: None,
        }
    }

    /// Reads what the archive's reader left, and says what became of the layer.
    pub(super) fn finish(
        mut self,
        applied: Result<(), WriteError>,
        announced: &Digest,
    ) -> Result<u64, LayerError> {
        let applied = applied.map_err(LayerError::from);
        let drained = match applied {
            Ok(()) => self.drain(),
            Err(_) => Ok(()),
        };
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        applied?;
        drained?;
        let found = self.hasher.finish();
        if found != *announced {
            return Err(LayerError::DiffId {
                announced: *announced,
                found,
            });
        }
        Ok(self.bytes)
    }

    fn drain(&mut self) -> Result<(), LayerError> {
        while !self.end {
            self.next()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(), LayerError> {
        (self.report)()?;
        // Who decompresses starts anew with it, or is at the end.
        _ = self.used.send(std::mem::take(&mut self.piece));
        self.at = 0;
        match self.pieces.recv() {
            Ok(Ok(piece)) => {
                self.hasher.update(&piece);
                self.bytes += piece.len() as u64;
                self.end = piece.is_empty();
                self.piece = piece;
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            // The other side says when it is at the end, so it did not get there.
            Err(_) => Err(LayerError::Read(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.end {
            if let Err(error) = self.next() {
                self.end = true;
                self.failure = Some(error);
                return Err(io::ErrorKind::Other.into());
            }
        }
        let len = buf.len().min(self.piece.len() - self.at);
        buf[..len].copy_from_slice(&self.piece[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// A full disk is not the layer's fault.
impl From<WriteError> for LayerError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Cancelled => Self::Cancelled,
            WriteError::Write(source) => match full(&source) {
                Some(quota) => Self::NoSpace { quota },
                None => Self::Archive(WriteError::Write(source)),
            },
            other => Self::Archive(other),
        }
    }
}
