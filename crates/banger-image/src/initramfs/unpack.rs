//! A kernel module as the distribution packs it, and as the kernel's loader takes it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::Error;

/// More than twice the largest module of any distribution's kernel that a guest needs.
const MAX_MODULE: u64 = 64 << 20;
/// What an xz decoder may take, in KiB: far above the 1 MiB of the kernel's own build.
const XZ_MEMORY: u32 = 64 << 10;

/// The endings of a module file, packed or not.
pub(super) const ENDINGS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// Reads a module and unpacks it by the ending of its name.
pub(super) fn read_module(path: &Path) -> Result<Vec<u8>, Error> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = io::BufReader::new(File::open(path).map_err(read)?);
    let name = path.to_string_lossy();
    let mut reader: Box<dyn Read> = if name.ends_with(".xz") {
        Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY))
    } else if name.ends_with(".zst") {
        Box::new(zstd::Decoder::new(file).map_err(read)?)
    } else if name.ends_with(".gz") {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut content = Vec::new();
    reader
        .by_ref()
        .take(MAX_MODULE + 1)
        .read_to_end(&mut content)
        .map_err(read)?;
    if content.len() as u64 > MAX_MODULE {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            limit: MAX_MODULE,
        });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_packing_gives_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let content = b"module".repeat(1000);
        let plain = directory.path().join("a.ko");
        std::fs::write(&plain, &content).unwrap();
        let zst = directory.path().join("a.ko.zst");
        std::fs::write(&zst, zstd::encode_all(&content[..], 3).unwrap()).unwrap();
        let gz = directory.path().join("a.ko.gz");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::fast());
        encoder.write_all(&content).unwrap();
        encoder.finish().unwrap();
        for path in [plain, zst, gz] {
            assert_eq!(read_module(&path).unwrap(), content, "{path:?}");
        }
    }

    #[test]
    fn a_dictionary_of_4_gib_is_refused() {
        // `xz -9 < /dev/null` has no block, so this is one of a byte: its header names LZMA2
        // (0x21) with the largest dictionary (40), and ends with its CRC-32.
        let mut file = b"\xfd7zXZ\0\0\x00\xff\x12\xd9\x41".to_vec();
        let mut header = vec![2, 0, 0x21, 1, 40, 0, 0, 0];
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        header.extend_from_slice(&crc.sum().to_le_bytes());
        file.extend_from_slice(&header);
        file.extend_from_slice(&[1, 0, 0, b'x', 0, 0, 0, 0]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.ko.xz");
        std::fs::write(&path, file).unwrap();
        let Err(Error::Read { source, .. }) = read_module(&path) else {
            panic!("it was read");
        };
        assert!(source.to_string().contains("memory"), "{source}");
    }

    #[test]
    fn a_file_that_is_not_what_it_says_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        for ending in &ENDINGS[1..] {
            let path = directory.path().join(format!("a{ending}"));
            std::fs::write(&path, b"nothing packed").unwrap();
            assert!(matches!(read_module(&path), Err(Error::Read { .. })));
        }
    }
}
