//! Layers of an image: decompressed within limits, checked against the digest of their content,
//! and applied to a file system in the making.
//!
//! A layer is bytes of a stranger. Nothing here opens a file: these are plain functions, which
//! the confined process of [`crate::unpack`] calls.

mod compression;
mod error;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread;

pub use compression::Compression;
pub use error::LayerError;

use crate::digest::Digest;
use crate::ext4::{self, Writer};
use stream::{Counted, DEPTH, Source, Stream};

/// What an image says about one of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Bytes as they are stored.
    pub size: u64,
    pub compression: Compression,
    /// Of the content (image-spec, config.md, rootfs.diff_ids).
    pub diff_id: Digest,
}

/// How much a layer may make of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of content.
    pub bytes: u64,
    /// Content by stored bytes, once there are [`Limits::ratio_from`] bytes of content.
    pub ratio: u64,
    pub ratio_from: u64,
    /// The base 2 logarithm of what a zstd decoder has to remember.
    pub window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            ratio: 200,
            ratio_from: 64 << 20,
            window_log: 27,
        }
    }
}

/// A thread that decompresses one layer after the other. It is made once: who reads layers can
/// then be forbidden to make any.
#[derive(Debug)]
pub struct Decompressor(Sender<Job>);

struct Job {
    source: Source,
    blob: Counted<Box<dyn Read + Send>>,
    compression: Compression,
}

impl Decompressor {
    /// # Errors
    /// When there can be no more threads.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        thread::Builder::new()
            .name("decompress".to_owned())
            .spawn(move || {
                for job in queue {
                    job.source.run(job.blob, job.compression);
                }
            })?;
        Ok(Self(jobs))
    }
}

/// Applies one layer on top of those before it, and returns the bytes of its content. `blob`
/// is read in the decompressor's thread. `progress` gets the stored bytes that were read so far, at
/// least once for each MiB of content, and may end the work.
///
/// # Errors
/// Everything that is wrong with the layer; the writer is of no use afterwards.
pub fn apply(
    decompressor: &Decompressor,
    blob: impl Read + Send + 'static,
    layer: &Layer,
    writer: &mut Writer,
    limits: &Limits,
    progress: &mut dyn FnMut(u64) -> Result<(), LayerError>,
) -> Result<u64, LayerError> {
    let read = Arc::new(AtomicU64::new(0));
    let blob: Box<dyn Read + Send> = Box::new(blob);
    let (full, pieces) = sync_channel(DEPTH);
    let (used, empty) = channel();
    let job = Job {
        source: Source {
            full,
            empty,
            read: read.clone(),
            limits: *limits,
        },
        blob: Counted::new(blob, layer.size, read.clone()),
        compression: layer.compression,
    };
    let gone = |_| LayerError::Start(io::ErrorKind::BrokenPipe.into());
    decompressor.0.send(job).map_err(gone)?;
    let mut report = || progress(read.load(Ordering::Relaxed));
    let mut stream = Stream::new(pieces, used, &mut report);
    writer.begin_layer();
    let applied = ext4::apply_layer(&mut stream, writer, |_| Ok(()));
    stream.finish(applied, &layer.diff_id)
}
