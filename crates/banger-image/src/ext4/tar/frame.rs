//! An archive as headers, each with its content: blocks of 512 bytes.

use std::io::{self, BufRead, BufReader, Read};

use tar::Header;

use super::super::error::WriteError;
use super::field::number;

pub(super) const FRAME: usize = 512;
/// Bytes that are read at a time; content in larger pieces is read past them.
const BUFFER: usize = 256 << 10;
/// Where a header has its checksum.
const SUM: std::ops::Range<usize> = 148..156;

/// Reads an archive from one header to the next. As a reader it gives the content of the
/// entry that is begun, and after that none.
pub(super) struct Frames<R> {
    input: BufReader<R>,
    /// Bytes of the entry's content that were not read, and of what fills its last block.
    left: u64,
    padding: u64,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            left: 0,
            padding: 0,
        }
    }

    /// The next header, with its checksum found right. `None` at the end: two blocks of zeros,
    /// or nothing more. What fills the last block may be missing: some programs that make
    /// layers leave it out, and those of containers forgive it.
    pub(super) fn next(&mut self) -> Result<Option<Header>, WriteError> {
        self.skip()?;
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block == [0; FRAME] {
            return match self.block()? {
                Some(next) if next != [0; FRAME] => {
                    Err(WriteError::Damaged("a block of zeros between entries"))
                }
                _ => Ok(None),
            };
        }
        if !sum_is_right(&block) {
            return Err(WriteError::Damaged("a header's checksum is wrong"));
        }
        Ok(Some(Header::from_byte_slice(&block).clone()))
    }

    /// Says how long the content of the entry is whose header was read last.
    pub(super) fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (FRAME as u64 - size % FRAME as u64) % FRAME as u64;
    }

    /// Bytes of the content that were not read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// A block behind the header that is not counted as content.
    pub(super) fn more_header(&mut self) -> Result<[u8; FRAME], WriteError> {
        self.block()?.ok_or(WriteError::ArchiveTruncated)
    }

    /// `None` when there is nothing more.
    fn block(&mut self) -> Result<Option<[u8; FRAME]>, WriteError> {
        let mut block = [0; FRAME];
        let mut filled = 0;
        while filled < FRAME {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(WriteError::ArchiveTruncated),
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(WriteError::Read(error)),
            }
        }
        Ok(Some(block))
    }

    fn skip(&mut self) -> Result<(), WriteError> {
        // At most 2^63, as sizes have a sign.
        let mut rest = self.left + self.padding;
        self.left = 0;
        let padding = std::mem::take(&mut self.padding);
        while rest > 0 {
            let have = match self.input.fill_buf() {
                Ok([]) if rest <= padding => return Ok(()),
                Ok([]) => return Err(WriteError::ArchiveTruncated),
                Ok(bytes) => bytes.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(WriteError::Read(error)),
            };
            let now = rest.min(have as u64);
            self.input.consume(now as usize);
            rest -= now;
        }
        Ok(())
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let len = self.input.read(&mut into[..most])?;
        self.left -= len as u64;
        Ok(len)
    }
}

/// The size that a header says.
pub(super) fn size(header: &Header) -> Result<u64, WriteError> {
    number(&header.as_old().size)
        .and_then(|size| u64::try_from(size).ok())
        .ok_or(WriteError::Damaged("a header's size is no number"))
}

/// The sum of all bytes, its own being blanks. Some old programs took bytes to have a sign.
fn sum_is_right(block: &[u8; FRAME]) -> bool {
    let mut plain = 8 * i64::from(b' ');
    let mut signed = plain;
    for part in [&block[..SUM.start], &block[SUM.end..]] {
        for &byte in part {
            plain += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
    }
    number(&block[SUM]).is_some_and(|sum| sum == plain || sum == signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(size: u64) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn walk(archive: &[u8]) -> Result<usize, WriteError> {
        let mut frames = Frames::new(archive);
        let mut count = 0;
        while let Some(header) = frames.next()? {
            frames.begin(size(&header)?);
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn archives_end_in_several_ways() {
        let one = [header(3), vec![1; FRAME]].concat();
        let zeros = vec![0; FRAME];
        assert_eq!(walk(b"").unwrap(), 0);
        assert_eq!(walk(&one).unwrap(), 1);
        assert_eq!(walk(&[&one[..], &zeros].concat()).unwrap(), 1);
        assert_eq!(walk(&[&one[..], &zeros, &zeros, b"garbage"].concat()).unwrap(), 1);
        let between = walk(&[&one[..], &zeros, &one].concat());
        assert!(matches!(between, Err(WriteError::Damaged(_))));
        for len in [515, 516, 1023] {
            assert_eq!(walk(&one[..len]).unwrap(), 1, "{len}");
        }
        for len in [1, 511, 513, 514] {
            let cut = walk(&one[..len]);
            assert!(matches!(cut, Err(WriteError::ArchiveTruncated)), "{len}");
        }
    }

    #[test]
    fn sums_are_checked() {
        let mut bad = header(0);
        bad[0] ^= 1;
        assert!(matches!(walk(&bad), Err(WriteError::Damaged(_))));
        let mut signed = Header::new_ustar();
        signed.as_old_mut().name[0] = 0xff;
        signed.set_cksum();
        let sum = number(&signed.as_old().cksum).unwrap();
        let text = format!("{:06o}\0 ", sum - 256);
        signed.as_old_mut().cksum.copy_from_slice(text.as_bytes());
        assert_eq!(walk(signed.as_bytes()).unwrap(), 1);
    }
}
