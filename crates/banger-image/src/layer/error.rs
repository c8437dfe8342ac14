//! What can be wrong with a layer.

use std::io;

use banger_model::Size;

use super::Compression;
use crate::digest::Digest;
use crate::ext4::WriteError;

/// Why a layer was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    #[error("Cannot read the layer")]
    Read(#[source] io::Error),
    #[error("Cannot start decompressing")]
    Start(#[source] io::Error),
    #[error("The layer is {found}, its media type says {announced}")]
    Compression {
        announced: Compression,
        found: Compression,
    },
    #[error("Not whole or not valid {compression} data")]
    Corrupt {
        compression: Compression,
        source: io::Error,
    },
    #[error("The layer has not the {announced} bytes that its manifest says")]
    Size { announced: u64 },
    #[error("The layers have more than {} of content", Size::from_bytes(*.limit))]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    #[error("The layer's content is more than {ratio} times as large as the layer: not unpacked")]
    Bomb { ratio: u64 },
    #[error("The layer's content is {found}, the image's configuration says {announced}")]
    DiffId { announced: Digest, found: Digest },
    #[error("Not a usable layer")]
    Archive(#[source] WriteError),
    #[error("No space left")]
    NoSpace {
        /// The user's quota was exceeded, not the file system's size.
        quota: bool,
    },
    #[error("Cancelled")]
    Cancelled,
}
