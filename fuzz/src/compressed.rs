//! Compressed layers: frames and members of zstd and gzip, of which the first byte says which
//! one it is announced as.

use std::fs::File;
use std::io::{Cursor, Write};
use std::sync::LazyLock;

use banger_image::Digest;
use banger_image::ext4::{Seed, Writer};
use banger_image::layer::{Compression, Decompressor, Layer, LayerError, Limits, apply};
use flate2::write::GzEncoder;
use rustix::fs::MemfdFlags;

use crate::archive::{self, Part};

const LIMITS: Limits = Limits {
    bytes: 8 << 20,
    ratio: 200,
    ratio_from: 1 << 20,
    window_log: 20,
};
static THREAD: LazyLock<Decompressor> = LazyLock::new(|| Decompressor::start().expect("a thread"));
const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    let Some((&first, stored)) = data.split_first() else {
        return;
    };
    let compression = ALL[usize::from(first) % ALL.len()];
    // What it is told is not the content's digest: nothing that is not looked at gets through.
    let error = unpack(stored, compression, Digest::of(b"another")).expect_err("another digest");
    assert!(
        !matches!(
            error,
            LayerError::Start(_) | LayerError::NoSpace { .. } | LayerError::Cancelled
        ),
        "{error:?}"
    );
    let LayerError::DiffId { found, .. } = error else {
        return;
    };
    // Read to its end, and an archive: with the right digest it is a layer.
    let bytes = unpack(stored, compression, found).expect("only the digest was wrong");
    assert!(bytes <= LIMITS.bytes);
    let ratio = stored.len() as u64 * LIMITS.ratio;
    assert!(
        bytes <= LIMITS.ratio_from.max(ratio),
        "{bytes} of {}",
        stored.len()
    );
}

fn unpack(stored: &[u8], compression: Compression, diff_id: Digest) -> Result<u64, LayerError> {
    let target =
        File::from(rustix::fs::memfd_create("layer", MemfdFlags::empty()).expect("a file in memory"));
    let seed = Seed::from_digest(&[7; 32], 0);
    let mut writer = Writer::new(target, seed).expect("an empty file");
    let layer = Layer {
        size: stored.len() as u64,
        compression,
        diff_id,
    };
    let blob = Cursor::new(stored.to_vec());
    apply(&THREAD, blob, &layer, &mut writer, &LIMITS, &mut |_| Ok(()))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let content = archive::build(&[
        Part::new(b'0', "a", &[7; 1000]),
        Part::new(b'5', "b", b""),
        Part::End,
    ]);
    let gzip = |content: &[u8]| {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(content).expect("memory takes it");
        gzip.finish().expect("memory takes it")
    };
    let zstd = |content: &[u8]| zstd::encode_all(content, 1).expect("memory takes it");
    let (start, end) = content.split_at(600);
    let skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd";
    let zeros = vec![0; 3 << 20];
    vec![
        [&[0], &content[..]].concat(),
        [&[1], &gzip(&content)[..]].concat(),
        [&[2], &zstd(&content)[..]].concat(),
        [&[1], &gzip(start)[..], &gzip(end)].concat(),
        [&[2], &zstd(start)[..], skipped, &zstd(end)].concat(),
        [&[1], &gzip(&zeros)[..]].concat(),
        [&[2], &zstd(&zeros)[..]].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_layers_and_bombs() {
        for (number, seed) in seeds().iter().enumerate() {
            run(seed);
            let compression = ALL[usize::from(seed[0])];
            let error = unpack(&seed[1..], compression, Digest::of(b"")).unwrap_err();
            match number {
                0..5 => assert!(matches!(error, LayerError::DiffId { .. }), "{number}: {error:?}"),
                _ => assert!(matches!(error, LayerError::Bomb { .. }), "{number}: {error:?}"),
            }
        }
    }
}
