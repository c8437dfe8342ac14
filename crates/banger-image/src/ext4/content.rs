//! The content of files on its way to blocks, and the trees of extents that say where it is.

use std::io::{self, Read};

use super::encode::{BLOCK_EXTENTS, FLAG_EXTENTS, MAX_EXTENT, ROOT_EXTENTS, index, leaf, seal_extents};
use super::entry::Segment;
use super::error::WriteError;
use super::inode::{Blocks, Body, inode_seed};
use super::layout::{BLOCK, BLOCK_U64, Run};
use super::limits::{MAX_CONTENT, MAX_SEGMENTS};
use super::writer::Writer;

/// Content is read in pieces of this many bytes; one that is all zeros becomes a hole.
pub(super) const PIECE: usize = 1 << 20;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block, counted in the file.
    pub(super) logical: u32,
    pub(super) run: Run,
}

/// The blocks of a file in the making.
#[derive(Debug, Default)]
pub(super) struct Layout {
    extents: Vec<Extent>,
    owned: Vec<Run>,
}

impl Layout {
    pub(super) fn add(&mut self, logical: u32, run: Run) {
        own(&mut self.owned, run);
        extend(&mut self.extents, Extent { logical, run });
    }
}

/// A part of a file that is not yet written.
struct Piece {
    bytes: Vec<u8>,
    /// Its first block, counted in the file.
    first: u64,
    filled: usize,
}

impl Writer {
    /// Reads a file's segments into blocks; what lies between them, and pieces that are all
    /// zeros, are left out.
    pub(super) fn write_file(
        &mut self,
        number: u32,
        size: u64,
        segments: &[Segment],
        content: &mut dyn Read,
        path: &[u8],
    ) -> Result<Body, WriteError> {
        self.count_content(size)?;
        check_segments(size, segments)?;
        let mut piece = Piece {
            bytes: std::mem::take(&mut self.piece),
            first: 0,
            filled: 0,
        };
        let mut layout = Layout::default();
        for &Segment { offset, len } in segments {
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let mut within = (at - piece.first * BLOCK_U64) as usize;
                if within > piece.filled.next_multiple_of(BLOCK) || within >= PIECE {
                    self.write_piece(&mut layout, &piece)?;
                    piece.first = at / BLOCK_U64;
                    piece.filled = 0;
                    within = (at % BLOCK_U64) as usize;
                }
                let now = (end - at).min((PIECE - within) as u64) as usize;
                piece.bytes[piece.filled..within].fill(0);
                piece.filled = within + now;
                content
                    .read_exact(&mut piece.bytes[within..piece.filled])
                    .map_err(|error| read_error(error, path))?;
                at += now as u64;
            }
        }
        self.write_piece(&mut layout, &piece)?;
        self.piece = piece.bytes;
        self.write_extents(number, layout)
    }

    fn write_piece(&mut self, layout: &mut Layout, piece: &Piece) -> Result<(), WriteError> {
        let mut bytes = &piece.bytes[..piece.filled];
        if bytes == &ZEROS[..] {
            return Ok(());
        }
        let mut logical = piece.first as u32;
        while !bytes.is_empty() {
            let run = self.take(bytes.len().div_ceil(BLOCK) as u32)?;
            let (now, later) = bytes.split_at(bytes.len().min(run.len as usize * BLOCK));
            self.output.write(run.start, now)?;
            layout.add(logical, run);
            logical += run.len;
            bytes = later;
        }
        Ok(())
    }

    /// Stores where a file's blocks are: in the inode, or in a tree below it.
    pub(super) fn write_extents(&mut self, number: u32, layout: Layout) -> Result<Body, WriteError> {
        let Layout { extents, mut owned } = layout;
        if extents.is_empty() {
            return Ok(Body::None);
        }
        if let [run] = owned[..]
            && extents[0].logical == 0
            && extents.len() <= ROOT_EXTENTS
            && last_block(&extents) == run.len
        {
            return Ok(Body::Run(run));
        }
        let mut root = [0; 60];
        if extents.len() <= ROOT_EXTENTS {
            leaf(&mut root, ROOT_EXTENTS, &extents);
        } else {
            let mut nodes = Vec::new();
            for chunk in extents.chunks(BLOCK_EXTENTS) {
                let block = self.write_node(number, &mut owned, |area| leaf(area, BLOCK_EXTENTS, chunk))?;
                nodes.push((chunk[0].logical, block));
            }
            let mut depth = 1;
            while nodes.len() > ROOT_EXTENTS {
                let mut above = Vec::new();
                for chunk in nodes.chunks(BLOCK_EXTENTS) {
                    let block = self.write_node(number, &mut owned, |area| {
                        index(area, BLOCK_EXTENTS, depth, chunk);
                    })?;
                    above.push((chunk[0].0, block));
                }
                nodes = above;
                depth += 1;
            }
            index(&mut root, ROOT_EXTENTS, depth, &nodes);
        }
        owned.shrink_to_fit();
        Ok(Body::Blocks(Box::new(Blocks {
            flags: FLAG_EXTENTS,
            root,
            owned,
        })))
    }

    fn write_node(
        &mut self,
        number: u32,
        owned: &mut Vec<Run>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<u32, WriteError> {
        let run = self.take(1)?;
        let mut block = Box::new([0; BLOCK]);
        fill(&mut block[..]);
        seal_extents(&mut block, inode_seed(self.seed, number));
        self.output.write(run.start, &block[..])?;
        own(owned, run);
        Ok(run.start)
    }

    fn count_content(&mut self, size: u64) -> Result<(), WriteError> {
        self.content = self
            .content
            .checked_add(size)
            .filter(|&total| total <= MAX_CONTENT)
            .ok_or(WriteError::TooLarge)?;
        Ok(())
    }
}

fn check_segments(size: u64, segments: &[Segment]) -> Result<(), WriteError> {
    if segments.len() > MAX_SEGMENTS {
        return Err(WriteError::TooManySegments);
    }
    let mut at = 0;
    for segment in segments {
        let end = segment.offset.checked_add(segment.len);
        match end {
            Some(end) if segment.offset >= at && end <= size => at = end,
            _ => {
                return Err(WriteError::Damaged(
                    "the parts of a sparse file overlap or lie beyond its end",
                ));
            }
        }
    }
    Ok(())
}

fn read_error(error: io::Error, path: &[u8]) -> WriteError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WriteError::Truncated(path.into()),
        _ => WriteError::Read(error),
    }
}

fn last_block(extents: &[Extent]) -> u32 {
    extents.last().map_or(0, |last| last.logical + last.run.len)
}

/// Notes blocks; those that follow the last ones make them longer.
pub(super) fn own(owned: &mut Vec<Run>, run: Run) {
    match owned.last_mut() {
        Some(last) if last.end() == run.start => last.len += run.len,
        _ => owned.push(run),
    }
}

/// Adds blocks to a file; those that follow the last ones make its extent longer.
pub(super) fn extend(extents: &mut Vec<Extent>, mut more: Extent) {
    if let Some(last) = extents.last_mut()
        && last.run.end() == more.run.start
        && last.logical + last.run.len == more.logical
    {
        let room = (MAX_EXTENT - last.run.len).min(more.run.len);
        last.run.len += room;
        more.logical += room;
        more.run.start += room;
        more.run.len -= room;
    }
    while more.run.len > 0 {
        let len = more.run.len.min(MAX_EXTENT);
        let run = Run {
            start: more.run.start,
            len,
        };
        extents.push(Extent {
            logical: more.logical,
            run,
        });
        more.logical += len;
        more.run.start += len;
        more.run.len -= len;
    }
}
