//! The file, with writes that follow each other put together.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use super::error::WriteError;
use super::layout::{BLOCK, BLOCK_U64, Run};

/// Bytes that are put together, and from which on they are written as they are.
const PENDING: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Output {
    file: File,
    pending: Vec<u8>,
    at: u64,
}

impl Output {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            pending: Vec::with_capacity(PENDING),
            at: 0,
        }
    }

    /// Writes bytes from the start of a block; the rest of the last block stays zero.
    pub(super) fn write(&mut self, block: u32, bytes: &[u8]) -> Result<(), WriteError> {
        let at = u64::from(block) * BLOCK_U64;
        let follows = self.at + self.pending.len() as u64 == at;
        let direct = bytes.len() >= PENDING;
        if !follows || direct || self.pending.len() + bytes.len().next_multiple_of(BLOCK) > PENDING {
            self.flush()?;
            self.at = at;
        }
        if direct {
            self.file.write_all_at(bytes, at).map_err(WriteError::Write)?;
            self.at = at + bytes.len().next_multiple_of(BLOCK) as u64;
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len().next_multiple_of(BLOCK);
        self.pending.resize(whole, 0);
        Ok(())
    }

    /// Makes blocks zeros again that were written: what a layer removed is not given away
    /// with the image, and takes no room.
    pub(super) fn clear(&mut self, run: Run) -> Result<(), WriteError> {
        if run.len == 0 {
            return Ok(());
        }
        self.flush()?;
        let (at, len) = (u64::from(run.start) * BLOCK_U64, u64::from(run.len) * BLOCK_U64);
        let punched = rustix::fs::fallocate(
            &self.file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            at,
            len,
        );
        if punched.is_ok() {
            return Ok(());
        }
        // No holes on this file system: the bytes are what counts.
        let zeros = vec![0; PENDING.min(len as usize)];
        let mut done = 0;
        while done < len {
            let now = (len - done).min(zeros.len() as u64);
            self.file
                .write_all_at(&zeros[..now as usize], at + done)
                .map_err(WriteError::Write)?;
            done += now;
        }
        Ok(())
    }

    /// Writes what is pending, and gives the file its length.
    pub(super) fn finish(mut self, len: u64) -> Result<(), WriteError> {
        self.flush()?;
        self.file.set_len(len).map_err(WriteError::Write)
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.file
            .write_all_at(&self.pending, self.at)
            .map_err(WriteError::Write)?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &File, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn writes_land_where_they_belong() {
        let file = tempfile::tempfile().unwrap();
        let mut output = Output::new(file.try_clone().unwrap());
        let large = vec![7; PENDING + 5];
        output.write(1, b"one").unwrap();
        output.write(2, b"two").unwrap();
        output.write(4, &large).unwrap();
        let after = 4 + large.len().div_ceil(BLOCK) as u32;
        output.write(after, b"after").unwrap();
        output.write(0, b"zero").unwrap();
        output.finish(u64::from(after + 1) * BLOCK_U64).unwrap();
        let bytes = read(&file, (after as usize + 1) * BLOCK);
        for (block, text) in [
            (0, &b"zero"[..]),
            (1, b"one"),
            (2, b"two"),
            (3, b"\0"),
            (after, b"after"),
        ] {
            let at = block as usize * BLOCK;
            assert_eq!(&bytes[at..at + text.len()], text);
            assert_eq!(bytes[at + text.len()], 0);
        }
        assert_eq!(bytes[4 * BLOCK..][..large.len()], large);
    }

    #[test]
    fn cleared_blocks_are_zeros() {
        let file = tempfile::tempfile().unwrap();
        let mut output = Output::new(file.try_clone().unwrap());
        output.write(0, &[1; 4 * BLOCK]).unwrap();
        output.clear(Run { start: 1, len: 2 }).unwrap();
        output.finish(4 * BLOCK_U64).unwrap();
        let bytes = read(&file, 4 * BLOCK);
        assert!(bytes[..BLOCK].iter().all(|&b| b == 1));
        assert!(bytes[BLOCK..3 * BLOCK].iter().all(|&b| b == 0));
        assert!(bytes[3 * BLOCK..].iter().all(|&b| b == 1));
    }
}
