//! Layers that are good, and those that are not.

use std::io::{self, Read};

use super::testing::{archive, gzip, seed, zstd};
use super::*;

/// What a small layer may be.
const SMALL: Limits = Limits {
    bytes: 256 << 20,
    ratio: 200,
    ratio_from: 16 << 20,
    window_log: 27,
};

fn layer(stored: &[u8], compression: Compression, diff_id: Digest) -> Layer {
    Layer {
        size: stored.len() as u64,
        compression,
        diff_id,
    }
}

fn writer() -> Writer {
    Writer::new(tempfile::tempfile().unwrap(), seed()).unwrap()
}

fn thread() -> Decompressor {
    Decompressor::start().unwrap()
}

fn apply_to(
    stored: Vec<u8>,
    layer: &Layer,
    limits: &Limits,
    progress: &mut dyn FnMut(u64) -> Result<(), LayerError>,
) -> Result<u64, LayerError> {
    let blob = io::Cursor::new(stored);
    apply(&thread(), blob, layer, &mut writer(), limits, progress)
}

fn apply_stored(stored: &[u8], compression: Compression, diff_id: Digest) -> Result<u64, LayerError> {
    let layer = layer(stored, compression, diff_id);
    apply_to(stored.to_vec(), &layer, &SMALL, &mut |_| Ok(()))
}

/// What is wrong with a layer whose content's digest is that of nothing.
fn refusal(stored: &[u8], compression: Compression) -> LayerError {
    apply_stored(stored, compression, Digest::of(b"")).unwrap_err()
}

#[test]
fn each_compression_gives_the_content() {
    let content = archive(&[("a", b"text"), ("dir/", b""), ("dir/b", &[1; 3 << 20])]);
    let digest = Digest::of(&content);
    for (stored, compression) in [
        (content.clone(), Compression::None),
        (gzip(&content), Compression::Gzip),
        (zstd(&content), Compression::Zstd),
    ] {
        let bytes = apply_stored(&stored, compression, digest).unwrap();
        assert_eq!(bytes, content.len() as u64, "{compression}");
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    let content = archive(&[("a", &[3; 100_000]), ("b", b"b")]);
    let digest = Digest::of(&content);
    let (start, end) = content.split_at(70_000);
    let members = [gzip(start), gzip(b""), gzip(end)].concat();
    apply_stored(&members, Compression::Gzip, digest).unwrap();
    // A frame to be skipped (RFC 8878, 3.1.2) begins some.
    let skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd";
    let frames = [&skipped[..], &zstd(start), &zstd(end), skipped].concat();
    apply_stored(&frames, Compression::Zstd, digest).unwrap();
}

#[test]
fn empty_layers_are_layers() {
    let nothing = [0; 1024];
    for content in [&[][..], &nothing] {
        let digest = Digest::of(content);
        apply_stored(content, Compression::None, digest).unwrap();
        apply_stored(&gzip(content), Compression::Gzip, digest).unwrap();
        apply_stored(&zstd(content), Compression::Zstd, digest).unwrap();
    }
    // No gzip member at all is not an empty layer.
    assert!(matches!(
        refusal(b"", Compression::Gzip),
        LayerError::Compression { .. }
    ));
}

#[test]
fn the_media_type_must_be_true() {
    let content = archive(&[("a", b"x")]);
    let stored = |compression| match compression {
        Compression::None => content.clone(),
        Compression::Gzip => gzip(&content),
        Compression::Zstd => zstd(&content),
    };
    let all = [Compression::None, Compression::Gzip, Compression::Zstd];
    for announced in all {
        for real in all.into_iter().filter(|&real| real != announced) {
            let error = refusal(&stored(real), announced);
            assert!(
                matches!(error, LayerError::Compression { announced: a, found } if a == announced && found == real),
                "{error}"
            );
        }
    }
    let text = refusal(&stored(Compression::Zstd), Compression::Gzip).to_string();
    assert_eq!(text, "The layer is zstd, its media type says gzip");
}

#[test]
fn every_cut_and_everything_after_the_end_is_refused() {
    let content = archive(&[("a", &(0..=255).cycle().take(5000).collect::<Vec<u8>>())]);
    let digest = Digest::of(&content);
    for (stored, compression) in [
        (gzip(&content), Compression::Gzip),
        (zstd(&content), Compression::Zstd),
    ] {
        for len in 0..stored.len() {
            assert!(
                apply_stored(&stored[..len], compression, digest).is_err(),
                "{len}"
            );
        }
        for garbage in [&b"garbage"[..], &[0; 600], b"\x1f\x8b"] {
            let more = [&stored, garbage].concat();
            let error = apply_stored(&more, compression, digest).unwrap_err();
            assert!(matches!(error, LayerError::Corrupt { .. }), "{error}");
        }
        let mut flipped = stored.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        assert!(apply_stored(&flipped, compression, digest).is_err());
    }
    // Without compression the digest is what sees it.
    let cut = &content[..content.len() - 512];
    let error = apply_stored(cut, Compression::None, digest).unwrap_err();
    assert!(matches!(error, LayerError::DiffId { .. }), "{error}");
}

#[test]
fn what_follows_the_archive_counts_for_the_digest() {
    let mut content = archive(&[("a", b"x")]);
    content.extend_from_slice(&[9; 3 << 20]);
    apply_stored(&content, Compression::None, Digest::of(&content)).unwrap();
}

#[test]
fn the_size_is_that_of_the_manifest() {
    let content = archive(&[("a", b"x")]);
    let diff_id = Digest::of(&content);
    for compression in [Compression::None, Compression::Gzip] {
        let stored = match compression {
            Compression::None => content.clone(),
            _ => gzip(&content),
        };
        let real = stored.len() as u64;
        for size in [0, 1, real - 1, real + 1, u64::MAX] {
            let layer = Layer {
                size,
                compression,
                diff_id,
            };
            let error = apply_to(stored.clone(), &layer, &SMALL, &mut |_| Ok(())).unwrap_err();
            assert!(
                matches!(error, LayerError::Size { announced } if announced == size),
                "{size}: {error}"
            );
        }
    }
}

#[test]
fn bombs_end_early() {
    // What 32 GiB of zeros would be.
    let zeros = vec![0; 16 << 20];
    let file = header("zeros", 32 << 30);
    for (start, stored, compression) in [
        (gzip(&file), gzip(&zeros), Compression::Gzip),
        (zstd(&file), zstd(&zeros), Compression::Zstd),
    ] {
        let stored = stored.repeat(2 << 10);
        let error = refusal(&[&start[..], &stored].concat(), compression);
        assert!(matches!(error, LayerError::Bomb { ratio: 200 }), "{error}");
        // Behind the end of the archive it is one too.
        let error = refusal(&stored, compression);
        assert!(matches!(error, LayerError::Bomb { ratio: 200 }), "{error}");
    }
}

#[test]
fn all_layers_together_are_bounded() {
    let content = archive(&[("a", &[1; 5 << 20])]);
    let limits = Limits {
        bytes: 4 << 20,
        ..SMALL
    };
    let layer = layer(&content, Compression::None, Digest::of(&content));
    let error = apply_to(content, &layer, &limits, &mut |_| Ok(())).unwrap_err();
    assert!(
        matches!(error, LayerError::TooLarge { limit } if limit == 4 << 20),
        "{error}"
    );
}

#[test]
fn a_huge_window_is_refused() {
    // RFC 8878: a frame of one raw block that wants a window of 2^30 bytes.
    let mut frame = b"\x28\xb5\x2f\xfd\x00".to_vec();
    frame.push((30 - 10) << 3);
    frame.extend_from_slice(&[0x01, 0x00, 0x00]);
    let error = refusal(&frame, Compression::Zstd);
    assert!(matches!(error, LayerError::Corrupt { .. }), "{error}");
    frame[5] = (27 - 10) << 3;
    apply_stored(&frame, Compression::Zstd, Digest::of(b"")).unwrap();
}

#[test]
fn an_archive_inside_stays_a_file() {
    let inner = gzip(&archive(&[("x", &[0; 2 << 20])]));
    let content = archive(&[("inner.tar.gz", &inner)]);
    let stored = gzip(&content);
    let bytes = apply_stored(&stored, Compression::Gzip, Digest::of(&content)).unwrap();
    assert_eq!(bytes, content.len() as u64);
}

#[test]
fn progress_may_end_it() {
    let content = archive(&[("a", &[1; 8 << 20])]);
    let layer = layer(&content, Compression::None, Digest::of(&content));
    let mut seen = Vec::new();
    let error = apply_to(content, &layer, &SMALL, &mut |read| {
        seen.push(read);
        if read > 4 << 20 {
            return Err(LayerError::NoSpace { quota: false });
        }
        Ok(())
    })
    .unwrap_err();
    assert!(matches!(error, LayerError::NoSpace { quota: false }), "{error}");
    assert!(seen.is_sorted(), "{seen:?}");
}

#[test]
fn a_blob_that_cannot_be_read_says_so() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    let blob = io::Cursor::new(gzip(&archive(&[("a", b"x")]))).chain(Broken);
    let layer = layer(&[0; 4000], Compression::Gzip, Digest::of(b""));
    let error = apply(&thread(), blob, &layer, &mut writer(), &SMALL, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, LayerError::Read(_)), "{error}");
}

#[test]
fn an_error_of_the_archive_comes_through() {
    let content = archive(&[("a", b"x"), ("a/b", b"x")]);
    let error = apply_stored(&content, Compression::None, Digest::of(&content)).unwrap_err();
    assert!(matches!(error, LayerError::Archive(_)), "{error}");
}

/// A file's header whose content follows elsewhere.
fn header(name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    header.as_bytes().to_vec()
}
