//! Where the content of a sparse file belongs: four forms of GNU tar's.

use std::io::Read;

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::super::entry::Segment;
use super::super::error::WriteError;
use super::super::limits::MAX_SEGMENTS;
use super::field::{decimal, number};
use super::frame::{FRAME, Frames};
use super::pax::Extended;

/// The size of the whole file, and its parts that have content; `None` for other files.
/// Reads what the map takes of the content.
pub(super) fn map(
    frames: &mut Frames<impl Read>,
    header: &Header,
    extended: &mut Extended,
) -> Result<Option<(u64, Vec<Segment>)>, WriteError> {
    let (size, segments) = if header.entry_type() == EntryType::GNUSparse {
        if extended.is_sparse() {
            return Err(bad("two maps of a sparse file"));
        }
        old_gnu(frames, header)?
    } else if extended.is_sparse() {
        records(frames, extended)?
    } else {
        return Ok(None);
    };
    let stored = segments
        .iter()
        .try_fold(0u64, |sum, segment| sum.checked_add(segment.len));
    if stored != Some(frames.left()) {
        return Err(bad("the parts of a sparse file are not what is stored"));
    }
    Ok(Some((size, segments)))
}

/// The map of the first form is in the header, and in more blocks behind it.
fn old_gnu(frames: &mut Frames<impl Read>, header: &Header) -> Result<(u64, Vec<Segment>), WriteError> {
    let header = header
        .as_gnu()
        .ok_or(bad("a sparse file in an archive that is not GNU's"))?;
    let size = unsigned(&header.realsize)?;
    let mut segments = Vec::new();
    add(&mut segments, &header.sparse)?;
    let mut more = header.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        block.as_mut_bytes().copy_from_slice(&frames.more_header()?);
        add(&mut segments, block.sparse())?;
        more = block.is_extended();
    }
    Ok((size, segments))
}

fn add(segments: &mut Vec<Segment>, parts: &[GnuSparseHeader]) -> Result<(), WriteError> {
    for part in parts.iter().take_while(|part| !part.is_empty()) {
        segments.push(Segment {
            offset: unsigned(&part.offset)?,
            len: unsigned(&part.numbytes)?,
        });
    }
    check_count(segments.len())
}

fn records(
    frames: &mut Frames<impl Read>,
    extended: &mut Extended,
) -> Result<(u64, Vec<Segment>), WriteError> {
    let sparse = &mut extended.sparse;
    let size = sparse.size.ok_or(bad("a sparse file without a size"))?;
    let segments = match (sparse.major, sparse.minor) {
        (Some(1), Some(0)) if sparse.segments.is_empty() => in_content(frames)?,
        (None, None) | (Some(0), Some(0 | 1)) => {
            let segments = std::mem::take(&mut sparse.segments);
            if sparse.count != Some(segments.len() as u64) {
                return Err(bad("the number of parts of a sparse file is wrong"));
            }
            segments
        }
        _ => return Err(bad("an unknown version of sparse files")),
    };
    Ok((size, segments))
}

/// The map of version 1.0 comes before the content: decimal numbers, a line for each, first
/// the number of parts. It fills whole blocks.
fn in_content(frames: &mut Frames<impl Read>) -> Result<Vec<Segment>, WriteError> {
    let mut lines = Lines {
        frames,
        block: [0; FRAME],
        at: FRAME,
    };
    let count = lines.next()?;
    check_count(usize::try_from(count).unwrap_or(usize::MAX))?;
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(Segment {
            offset: lines.next()?,
            len: lines.next()?,
        });
    }
    Ok(segments)
}

struct Lines<'a, R> {
    frames: &'a mut Frames<R>,
    block: [u8; FRAME],
    at: usize,
}

impl<R: Read> Lines<'_, R> {
    fn next(&mut self) -> Result<u64, WriteError> {
        let mut line = Vec::new();
        loop {
            if self.at == FRAME {
                self.frames
                    .read_exact(&mut self.block)
                    .map_err(|_| bad("the map of a sparse file is cut off"))?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => break,
                _ if line.len() < 20 => line.push(byte),
                _ => return Err(bad("the map of a sparse file is malformed")),
            }
        }
        let value = decimal::<i64>(&line).ok_or(bad("the map of a sparse file is malformed"))?;
        Ok(value.cast_unsigned())
    }
}

fn check_count(count: usize) -> Result<(), WriteError> {
    if count > MAX_SEGMENTS {
        return Err(WriteError::TooManySegments);
    }
    Ok(())
}

fn unsigned(field: &[u8]) -> Result<u64, WriteError> {
    number(field)
        .and_then(|value| u64::try_from(value).ok())
        .ok_or(bad("the map of a sparse file is malformed"))
}

fn bad(what: &'static str) -> WriteError {
    WriteError::Damaged(what)
}
