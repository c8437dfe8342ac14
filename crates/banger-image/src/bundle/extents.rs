//! Where the data of a sparse file is, and the text in which GNU tar's format 1.0 says it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::error::BundleError;
use super::{BLOCK, PIECE};

/// Pieces of data of one file. One with a hole after each 68 KiB would need 1 TiB for more.
const MAX_EXTENTS: u64 = 1 << 20;
/// What is looked at as a whole: a block of the file systems that are made here.
const GRAIN: usize = 4096;
/// A shorter run of zeros is data. It depends on the content alone, so that the same content
/// gives the same bundle whatever the host's file system has allocated for it.
const MIN_HOLE: u64 = 64 << 10;

/// A piece of data: where it starts, and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// Finds the data in the first `size` bytes of a file. `check` is called with the bytes that
/// were looked at, and may stop it.
pub(super) fn find(
    file: &File,
    size: u64,
    mut check: impl FnMut(u64) -> io::Result<()>,
) -> Result<Vec<Extent>, BundleError> {
    let mut found: Vec<Extent> = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while let Some((start, end)) = allocated(file, at, size).map_err(BundleError::Read)? {
        // In whole grains, wherever the host's file system has its borders.
        at = start - start % GRAIN as u64;
        while at < end {
            check(at).map_err(BundleError::reading)?;
            let whole = end.next_multiple_of(GRAIN as u64).min(size);
            let len = (whole - at).min(PIECE as u64) as usize;
            file.read_exact_at(&mut piece[..len], at)
                .map_err(BundleError::Read)?;
            for grain in piece[..len].chunks(GRAIN) {
                if grain != &[0; GRAIN][..grain.len()] {
                    add(&mut found, at, grain.len() as u64);
                }
                at += grain.len() as u64;
            }
        }
    }
    if found.len() as u64 >= MAX_EXTENTS {
        return Err(BundleError::Map("too many pieces"));
    }
    Ok(found)
}

fn add(found: &mut Vec<Extent>, start: u64, len: u64) {
    match found.last_mut() {
        Some(last) if start - (last.start + last.len) < MIN_HOLE => last.len = start + len - last.start,
        _ => found.push(Extent { start, len }),
    }
}

/// The next run from `at` on that is no hole on the host, as start and end.
fn allocated(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not know holes.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    if start >= size {
        return Ok(None);
    }
    Ok(Some((start, seek(file, SeekFrom::Hole(start))?.min(size))))
}

/// The map in front of the data: numbers in lines, padded to a whole block.
pub(super) fn encode(extents: &[Extent], size: u64) -> Vec<u8> {
    // What ends in a hole needs an empty piece at its end, or it would come out too short.
    let end = extents.last().map_or(0, |last| last.start + last.len);
    let tail = (end < size).then_some(Extent { start: size, len: 0 });
    let mut text = format!("{}\n", extents.len() + usize::from(tail.is_some()));
    for extent in extents.iter().chain(&tail) {
        // Writing into a string cannot fail.
        _ = write!(text, "{}\n{}\n", extent.start, extent.len);
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Reads the map of a member that has `stored` bytes and unpacks to `size`.
pub(super) fn decode(member: impl Read, stored: u64, size: u64) -> Result<Vec<Extent>, BundleError> {
    let mut numbers = Numbers {
        member,
        left: stored,
        block: [0; BLOCK],
        at: BLOCK,
    };
    let count = numbers.next()?;
    if count > MAX_EXTENTS {
        return Err(BundleError::Map("too many pieces"));
    }
    let mut extents = Vec::new();
    let (mut end, mut data) = (0, 0);
    for _ in 0..count {
        let extent = Extent {
            start: numbers.next()?,
            len: numbers.next()?,
        };
        let next = extent.start.checked_add(extent.len).filter(|&next| next <= size);
        let (Some(next), true) = (next, extent.start >= end) else {
            return Err(BundleError::Map("pieces outside, or out of order"));
        };
        end = next;
        data += extent.len;
        extents.push(extent);
    }
    if numbers.block[numbers.at..].iter().any(|&byte| byte != 0) {
        return Err(BundleError::Map("something between it and the data"));
    }
    if numbers.left != data {
        return Err(BundleError::Map("pieces that are not the data"));
    }
    Ok(extents)
}

/// Decimal numbers in lines, read block by block.
struct Numbers<R> {
    member: R,
    /// Bytes of the member that were not read yet.
    left: u64,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Numbers<R> {
    fn next(&mut self) -> Result<u64, BundleError> {
        let mut value: Option<u64> = None;
        loop {
            let byte = self.byte()?;
            value = match (byte, value) {
                (b'\n', Some(value)) => return Ok(value),
                (b'0'..=b'9', value) => value
                    .unwrap_or(0)
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(u64::from(byte - b'0'))),
                _ => None,
            };
            if value.is_none() {
                return Err(BundleError::Map("not numbers in lines"));
            }
        }
    }

    fn byte(&mut self) -> Result<u8, BundleError> {
        if self.at == BLOCK {
            let left = self.left.checked_sub(BLOCK as u64);
            self.left = left.ok_or(BundleError::Map("cut off"))?;
            self.member
                .read_exact(&mut self.block)
                .map_err(BundleError::reading)?;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent { start, len }
    }

    #[test]
    fn holes_are_found_by_content() {
        let allocated = tempfile::tempfile().unwrap();
        let sparse = tempfile::tempfile().unwrap();
        let size = (4 << 20) + 100;
        allocated.write_all_at(&vec![0; size as usize], 0).unwrap();
        sparse.set_len(size).unwrap();
        for file in [&allocated, &sparse] {
            for at in [8192, 100_000, 3 << 20, size - 1] {
                file.write_all_at(&[1], at).unwrap();
            }
        }
        let expected = [
            extent(8192, 4096),
            extent(98_304, 4096),
            extent(3 << 20, 4096),
            extent(4 << 20, 100),
        ];
        for file in [&allocated, &sparse] {
            assert_eq!(find(file, size, |_| Ok(())).unwrap(), expected);
        }
        assert!(
            find(&tempfile::tempfile().unwrap(), 0, |_| Ok(()))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_map_is_read_as_it_is_written() {
        let many: Vec<Extent> = (0..1000).map(|i| extent(i << 20, 4096)).collect();
        for (extents, size) in [(&many[..], 1000 << 20), (&[][..], 5), (&[extent(0, 5)][..], 5)] {
            let map = encode(extents, size);
            assert_eq!(map.len() % BLOCK, 0);
            let data: u64 = extents.iter().map(|extent| extent.len).sum();
            let mut read = decode(&map[..], map.len() as u64 + data, size).unwrap();
            read.retain(|extent| extent.len > 0);
            assert_eq!(read, extents);
        }
    }

    #[test]
    fn maps_that_lie_are_refused() {
        let decode = |text: &str, data: u64| {
            let mut map = text.as_bytes().to_vec();
            map.resize(map.len().next_multiple_of(BLOCK), 0);
            decode(&map[..], map.len() as u64 + data, 1 << 20)
        };
        assert!(decode("1\n0\n5\n", 5).is_ok());
        for (text, data) in [
            ("", 0),
            ("1\n0\n5\n", 6),
            ("1\n0\n5\n", 4),
            ("1\n0\n5\nx", 5),
            ("1\n-1\n5\n", 5),
            ("1\n\n5\n", 5),
            ("1\n1048576\n5\n", 5),
            ("1\n18446744073709551615\n5\n", 5),
            ("1\n99999999999999999999\n5\n", 5),
            ("2\n10\n5\n0\n5\n", 10),
            ("2\n0\n5\n4\n5\n", 10),
            ("99999999\n", 0),
            ("3\n0\n5\n", 5),
        ] {
            let refused = decode(text, data);
            assert!(
                matches!(refused, Err(BundleError::Map(_))),
                "{text:?}: {refused:?}"
            );
        }
    }
}
