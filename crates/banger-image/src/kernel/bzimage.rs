//! A kernel file to the ELF file inside it.
//!
//! A bzImage has the compressed vmlinux as its payload; the boot protocol's header says where
//! (the kernel's Documentation/arch/x86/boot.rst). An ELF file is taken as it is.

use std::io::{self, Read};

/// A kernel file, and what comes out of it, in bytes.
pub(crate) const MAX_KERNEL: u64 = 512 << 20;
/// The header's magic is there since protocol 2.00, the payload's place since 2.08.
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8; 4] = b"HdrS";
const VERSION_AT: usize = 0x206;
const MIN_VERSION: u16 = 0x208;
const SETUP_SECTORS_AT: usize = 0x1f1;
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;
/// lz4's legacy frame: blocks of up to 8 MiB, each after its compressed length.
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_BLOCK: usize = 8 << 20;
/// What an xz decoder may take, in KiB: kernels use dictionaries of up to 128 MiB.
const XZ_MEMORY: u32 = 256 << 10;

/// Why a file is no kernel for a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    #[error("Neither a bzImage nor an ELF file")]
    Unknown,
    /// With the limit in bytes.
    #[error("Larger than {} MiB", .0 >> 20)]
    TooLarge(u64),
    #[error("Cut off, or damaged: {0}")]
    Malformed(&'static str),
    #[error("An old boot protocol ({}.{:02}): Linux 2.6.26 or newer is needed", .0 >> 8, .0 & 0xff)]
    Protocol(u16),
    #[error("Compressed in a way that is not known here ({:02x?}): give its vmlinux", .0)]
    Compression([u8; 4]),
    #[error("Cannot decompress the payload")]
    Payload(#[source] io::Error),
    #[error("Not for x86-64")]
    Machine,
    #[error("Not an executable: a module, or an object file")]
    NotExecutable,
    #[error("Missing what a guest cannot do without: {}", .0.join("; "))]
    Lacks(Vec<String>),
    #[error("The version cannot be told: no \"Linux version\" in it")]
    NoVersion,
    #[error("A version that cannot be a file name: {0:?}")]
    BadVersion(String),
}

/// The ELF file of a kernel: the content itself, or what a bzImage has as its payload.
///
/// # Errors
/// When the content is not a kernel for x86-64.
pub fn vmlinux(content: Vec<u8>) -> Result<Vec<u8>, KernelError> {
    if content.len() as u64 > MAX_KERNEL {
        return Err(KernelError::TooLarge(MAX_KERNEL));
    }
    let elf = if content.starts_with(b"\x7fELF") {
        content
    } else {
        unpack(payload(&content)?)?
    };
    check_elf(&elf)?;
    Ok(elf)
}

/// The release in a kernel's banner, "Linux version 6.1.0-30-cloud-amd64 (…".
pub(super) fn version(vmlinux: &[u8]) -> Result<String, KernelError> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = vmlinux;
    while let Some(at) = find(rest, BANNER) {
        rest = &rest[at + BANNER.len()..];
        let end = rest.iter().take(65).position(|&b| b == b' ');
        // The format string for it is there too, and comes first in some kernels.
        if let Some(end) = end
            && rest.first().is_some_and(u8::is_ascii_digit)
        {
            let version = String::from_utf8_lossy(&rest[..end]).into_owned();
            return if version.parse::<banger_model::KernelName>().is_ok() {
                Ok(version)
            } else {
                Err(KernelError::BadVersion(version))
            };
        }
    }
    Err(KernelError::NoVersion)
}

/// A search that is fast where the first byte is rare.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (&first, tail) = needle.split_first()?;
    let mut at = 0;
    loop {
        at += haystack[at..].iter().position(|&b| b == first)?;
        if haystack[at + 1..].starts_with(tail) {
            return Some(at);
        }
        at += 1;
    }
}

fn payload(image: &[u8]) -> Result<&[u8], KernelError> {
    let bytes = |at: usize, len: usize| image.get(at..at + len);
    if bytes(MAGIC_AT, 4) != Some(MAGIC) {
        return Err(KernelError::Unknown);
    }
    let cut = || KernelError::Malformed("its header");
    let u16_at = |at| Some(u16::from_le_bytes(bytes(at, 2)?.try_into().ok()?));
    let u32_at = |at| Some(u32::from_le_bytes(bytes(at, 4)?.try_into().ok()?) as usize);
    let version = u16_at(VERSION_AT).ok_or_else(cut)?;
    if version < MIN_VERSION {
        return Err(KernelError::Protocol(version));
    }
    let offset = u32_at(PAYLOAD_OFFSET_AT).ok_or_else(cut)?;
    let length = u32_at(PAYLOAD_LENGTH_AT).ok_or_else(cut)?;
    // Zero means four, for old boot loaders; the boot sector is not counted.
    let sectors = match image[SETUP_SECTORS_AT] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + offset;
    image
        .get(start..)
        .and_then(|rest| rest.get(..length))
        .filter(|payload| payload.len() > 8)
        .ok_or(KernelError::Malformed("its payload lies outside"))
}

/// The kernel's build appends the uncompressed length to all but gzip, which has it already.
fn unpack(payload: &[u8]) -> Result<Vec<u8>, KernelError> {
    let trailer_cut = &payload[..payload.len() - 4];
    match payload {
        [0x1f, 0x8b, ..] => drain(flate2::read::GzDecoder::new(payload)),
        [0xfd, b'7', b'z', b'X', ..] => {
            drain(lzma_rust2::XzReader::new_mem_limit(trailer_cut, false, XZ_MEMORY))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(trailer_cut).map_err(KernelError::Payload)?;
            // 128 MiB: what the kernel's own build uses at its highest level.
            decoder.window_log_max(27).map_err(KernelError::Payload)?;
            drain(decoder.single_frame())
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => unpack_lz4(&trailer_cut[LZ4_MAGIC.len()..], MAX_KERNEL),
        [0x7f, b'E', b'L', b'F', ..] => Ok(payload.to_vec()),
        [a, b, c, d, ..] => Err(KernelError::Compression([*a, *b, *c, *d])),
        _ => Err(KernelError::Malformed("its payload is empty")),
    }
}

fn drain(decoder: impl Read) -> Result<Vec<u8>, KernelError> {
    let mut out = Vec::new();
    decoder
        .take(MAX_KERNEL + 1)
        .read_to_end(&mut out)
        .map_err(KernelError::Payload)?;
    if out.len() as u64 > MAX_KERNEL {
        return Err(KernelError::TooLarge(MAX_KERNEL));
    }
    Ok(out)
}

fn unpack_lz4(mut blocks: &[u8], limit: u64) -> Result<Vec<u8>, KernelError> {
    let mut out = Vec::new();
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        // Frames may follow each other.
        if *length == LZ4_MAGIC {
            blocks = rest;
            continue;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let block = rest
            .get(..length)
            .filter(|block| !block.is_empty())
            .ok_or(KernelError::Malformed("a block of its payload"))?;
        let start = out.len();
        // A byte of a block stands for at most 255.
        let room = LZ4_BLOCK.min(block.len().saturating_mul(255) + 64);
        out.resize(start + room, 0);
        let written = lz4_flex::block::decompress_into(block, &mut out[start..])
            .map_err(|error| KernelError::Payload(io::Error::other(error)))?;
        out.truncate(start + written);
        if out.len() as u64 > limit {
            return Err(KernelError::TooLarge(limit));
        }
        blocks = &rest[length..];
    }
    Ok(out)
}

/// Whether an ELF file is a program for x86-64; kernels are linked to a fixed address.
fn check_elf(elf: &[u8]) -> Result<(), KernelError> {
    let header = elf
        .get(..64)
        .filter(|header| header.starts_with(b"\x7fELF"))
        .ok_or(KernelError::Malformed("its payload is no ELF file"))?;
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    // 64 bits, little-endian, x86-64.
    if header[4] != 2 || header[5] != 1 || half(18) != 62 {
        return Err(KernelError::Machine);
    }
    if half(16) != 2 {
        return Err(KernelError::NotExecutable);
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// The smallest ELF file that passes for a kernel.
    pub(in super::super) fn elf() -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[16] = 2;
        elf[18] = 62;
        elf.extend_from_slice(b"Linux version %s (%s)\0Linux version 6.1.0-test (builder)\0");
        elf
    }

    pub(in super::super) fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SETUP_SECTORS_AT] = 1;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
        image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x20fu16.to_le_bytes());
        image[PAYLOAD_OFFSET_AT..][..4].copy_from_slice(&16u32.to_le_bytes());
        image[PAYLOAD_LENGTH_AT..][..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend_from_slice(payload);
        image.extend_from_slice(&[0; 100]);
        image
    }

    fn with_size(mut packed: Vec<u8>) -> Vec<u8> {
        packed.extend_from_slice(&(elf().len() as u32).to_le_bytes());
        packed
    }

    fn lz4(content: &[u8]) -> Vec<u8> {
        let block = lz4_flex::block::compress(content);
        let mut packed = LZ4_MAGIC.to_vec();
        packed.extend_from_slice(&(block.len() as u32).to_le_bytes());
        packed.extend_from_slice(&block);
        packed
    }

    fn payloads() -> Vec<Vec<u8>> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&elf()).unwrap();
        vec![
            elf(),
            gzip.finish().unwrap(),
            with_size(lz4(&elf())),
            with_size(zstd::encode_all(&elf()[..], 1).unwrap()),
        ]
    }

    #[test]
    fn every_compression_is_unpacked() {
        for payload in payloads() {
            assert_eq!(vmlinux(bzimage(&payload)).unwrap(), elf());
        }
        assert_eq!(vmlinux(elf()).unwrap(), elf());
        assert_eq!(version(&elf()).unwrap(), "6.1.0-test");
    }

    #[test]
    fn cut_or_changed_images_are_refused() {
        for payload in payloads() {
            let image = bzimage(&payload);
            for len in (0..1040 + payload.len()).step_by(11) {
                assert!(vmlinux(image[..len].to_vec()).is_err(), "{len}");
            }
            // No panic, whatever it says.
            let header = SETUP_SECTORS_AT..PAYLOAD_LENGTH_AT + 4;
            for at in header.chain((1040..image.len()).step_by(3)) {
                for value in [0, 0xff] {
                    let mut image = image.clone();
                    image[at] = value;
                    _ = vmlinux(image);
                }
            }
        }
    }

    #[test]
    fn other_files_are_named() {
        assert!(matches!(vmlinux(vec![0; 4096]), Err(KernelError::Unknown)));
        assert!(matches!(vmlinux(Vec::new()), Err(KernelError::Unknown)));
        assert!(matches!(
            vmlinux(bzimage(b"BZh91AY&SY....")),
            Err(KernelError::Compression(_))
        ));
        let mut module = elf();
        module[16] = 1;
        assert!(matches!(vmlinux(module), Err(KernelError::NotExecutable)));
        let mut arm = elf();
        arm[18] = 183;
        assert!(matches!(vmlinux(arm), Err(KernelError::Machine)));
        let mut old = bzimage(&elf());
        old[VERSION_AT] = 3;
        assert!(matches!(vmlinux(old), Err(KernelError::Protocol(0x203))));
    }

    #[test]
    fn the_output_is_bounded() {
        let block = lz4_flex::block::compress(&vec![0; LZ4_BLOCK]);
        let mut packed = Vec::new();
        for _ in 0..3 {
            packed.extend_from_slice(&(block.len() as u32).to_le_bytes());
            packed.extend_from_slice(&block);
        }
        let unpack = |limit| unpack_lz4(&packed, limit);
        assert_eq!(unpack(24 << 20).unwrap().len(), 24 << 20);
        assert!(matches!(unpack(20 << 20), Err(KernelError::TooLarge(_))));
    }

    #[test]
    fn a_version_becomes_a_file_name() {
        let with = |version: &str| format!("Linux version {version} (").into_bytes();
        assert!(matches!(
            version(&with("6/../x")),
            Err(KernelError::BadVersion(_))
        ));
        assert!(matches!(version(&with("")), Err(KernelError::NoVersion)));
        assert!(matches!(version(b"nothing"), Err(KernelError::NoVersion)));
    }
}
