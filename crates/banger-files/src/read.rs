//! Reading a stream, entry by entry. Only what [`crate::Packer`] writes is taken: everything else
//! is another program's or a forger's.

use std::io::{self, BufRead, Read};

use lz4_flex::frame::FrameDecoder;
use tar::{EntryType, Header};

use crate::error::Error;
use crate::header::{Head, Type, padding, parse_time, records};
use crate::{BLOCK, MAX_PATH};

/// An extended header in bytes: two paths and a time fit.
const MAX_EXTENDED: u64 = 16 << 10;
/// What may follow the end of the archive within the frame, in bytes.
const MAX_REST: usize = 64 << 10;

pub(crate) struct Reader<R: Read> {
    input: FrameDecoder<R>,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input: FrameDecoder::new(input),
        }
    }

    /// The next entry, whose contents are to be taken before the one after it; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Head>, Error> {
        let first = self.block()?;
        if first.iter().all(|byte| *byte == 0) {
            self.rest()?;
            return Ok(None);
        }
        let header = checked(&first)?;
        if header.entry_type() != EntryType::XHeader {
            return Err(Error::Broken("an entry has no extended header"));
        }
        let extended = self.extended(number(header.size())?)?;
        let block = self.block()?;
        head(checked(&block)?, &extended).map(Some)
    }

    /// Gives the contents of an entry to `take`, piece by piece.
    pub(crate) fn contents(
        &mut self,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut left = size;
        while left > 0 {
            let piece = self.input.fill_buf().map_err(stream)?;
            if piece.is_empty() {
                return Err(ends_early());
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            take(&piece[..length])?;
            self.input.consume(length);
            left -= length as u64;
        }
        self.skip(padding(size))
    }

    fn block(&mut self) -> Result<[u8; BLOCK], Error> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(stream)?;
        Ok(block)
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_EXTENDED {
            return Err(Error::Broken("an extended header is too long"));
        }
        let mut bytes = vec![0; size as usize];
        self.input.read_exact(&mut bytes).map_err(stream)?;
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn skip(&mut self, length: usize) -> Result<(), Error> {
        let mut rest = [0; BLOCK];
        self.input.read_exact(&mut rest[..length]).map_err(stream)
    }

    /// To the end, so that the other side is never cut off.
    fn rest(&mut self) -> Result<(), Error> {
        let mut taken = 0;
        loop {
            let length = self.input.fill_buf().map_err(stream)?.len();
            if length == 0 {
                return Ok(());
            }
            self.input.consume(length);
            taken += length;
            if taken > MAX_REST {
                return Err(Error::Broken("something follows its end"));
            }
        }
    }
}

/// A header whose checksum is right.
fn checked(block: &[u8; BLOCK]) -> Result<&Header, Error> {
    let header = Header::from_byte_slice(block);
    // The sum counts its own field as spaces.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    if number(header.cksum())? == sum {
        Ok(header)
    } else {
        Err(Error::Broken("a header's checksum is wrong"))
    }
}

fn head(header: &Header, extended: &[u8]) -> Result<Head, Error> {
    let old = header.as_old();
    let mut head = Head {
        name: text(&old.name).to_vec(),
        kind: match header.entry_type() {
            EntryType::Regular => Type::File,
            EntryType::Directory => Type::Directory,
            EntryType::Symlink => Type::Symlink,
            EntryType::Link => return Err(Error::Broken("a hard link is in it")),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                return Err(Error::Broken("a device or FIFO is in it"));
            }
            _ => return Err(Error::Broken("an entry is of an unknown type")),
        },
        mode: number(header.mode())?,
        uid: narrow(number(header.uid())?)?,
        gid: narrow(number(header.gid())?)?,
        size: number(header.size())?,
        mtime_ns: 0,
        target: text(&old.linkname).to_vec(),
    };
    for (key, value) in records(extended).ok_or(Error::Broken("an extended header is malformed"))? {
        match key {
            b"mtime" => {
                head.mtime_ns = parse_time(value).ok_or(Error::Broken("a time is malformed"))?;
            }
            b"path" => head.name = value.to_vec(),
            b"linkpath" => head.target = value.to_vec(),
            _ => return Err(Error::Broken("an extended header has an unknown key")),
        }
    }
    if head.kind != Type::File && head.size != 0 {
        return Err(Error::Broken("an entry without contents has some"));
    }
    if (head.kind == Type::Symlink) == head.target.is_empty()
        || head.target.contains(&0)
        || head.target.len() > MAX_PATH
    {
        return Err(Error::Broken("a link's target cannot be one"));
    }
    Ok(head)
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

fn number<T>(parsed: io::Result<T>) -> Result<T, Error> {
    parsed.map_err(|_| Error::Broken("a header has what is no number"))
}

fn narrow(number: u64) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::Broken("an owner's number is too large"))
}

fn ends_early() -> Error {
    Error::Broken("it ends early")
}

/// What the decoder says of its input is about the stream; the rest is about the way it came.
fn stream(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ends_early(),
        io::ErrorKind::InvalidData | io::ErrorKind::Other if error.get_ref().is_some_and(is_lz4) => {
            Error::Broken("it is not what LZ4 makes")
        }
        _ => Error::Stream(error),
    }
}

fn is_lz4(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<lz4_flex::frame::Error>()
}
