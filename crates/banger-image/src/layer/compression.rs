//! How a layer is stored.

use std::fmt;
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::LayerError;

/// What was done to a layer's tar archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Bytes that tell one from the other.
const MAGIC: usize = 4;

impl Compression {
    /// What stored bytes begin with. An archive without compression is what neither of the
    /// others is.
    fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // RFC 8878: a frame, or one to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Undoes it. What the bytes begin with must be what was announced: programs that look at
    /// one of both only would see different images.
    ///
    /// # Errors
    /// [`LayerError::Compression`], [`LayerError::Read`].
    pub(super) fn decoder<'a>(
        self,
        mut blob: impl BufRead + Send + 'a,
        window_log: u32,
    ) -> Result<Box<dyn Read + Send + 'a>, LayerError> {
        let mut start = Vec::with_capacity(MAGIC);
        (&mut blob)
            .take(MAGIC as u64)
            .read_to_end(&mut start)
            .map_err(LayerError::Read)?;
        let found = Self::detect(&start);
        if found != self {
            return Err(LayerError::Compression {
                announced: self,
                found,
            });
        }
        let blob = io::Cursor::new(start).chain(blob);
        Ok(match self {
            Self::None => Box::new(blob),
            Self::Gzip => Box::new(MultiGzDecoder::new(blob)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(blob).map_err(LayerError::Start)?;
                decoder.window_log_max(window_log).map_err(LayerError::Start)?;
                Box::new(decoder)
            }
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "an archive without compression",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}
