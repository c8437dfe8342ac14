//! Tar archives into a file system: ustar, the old form of V7, GNU's long names and sparse
//! files, and POSIX extended headers.
//!
//! Where tar programs understand an archive in different ways, so that one would check what
//! another does not see, it is refused: two names for one entry, content of what is no file,
//! zeros in the middle, a global header with a size.

mod field;
mod frame;
mod pax;
mod sparse;

use std::io::Read;

use tar::{EntryType, Header};

use self::field::{c_string, number};
use self::frame::Frames;
use self::pax::Extended;
use super::entry::{Kind, Metadata, Segment};
use super::error::{WriteError, show};
use super::whiteout;
use super::writer::Writer;

/// Adds the entries of an archive of a whole root file system. Before each one `check` is
/// asked whether to go on. What follows the end of the archive is not read to its end.
///
/// # Errors
/// What the archive or the writer says; the writer is of no use afterwards.
pub fn unpack(
    archive: impl Read,
    writer: &mut Writer,
    check: impl FnMut(&Writer) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    read(archive, writer, check, false)
}

/// Adds the entries of a layer's archive by the rules of the OCI image specification's
/// layer.md, after [`Writer::begin_layer`]. As [`unpack`], and:
///
/// - `.wh.NAME` hides NAME of lower layers, `.wh..wh..opq` everything of lower layers in its
///   directory; neither hides what the same layer has, before or after it. Such an entry's
///   type and content mean nothing. A whiteout below what is missing hides nothing.
/// - A directory of a lower layer that is hidden while this layer has something in it stays
///   for that, as if it had been missing.
/// - Parents of a path are what the tree has when the entry comes: an entry below a lower
///   layer's link goes where the link points to inside the tree, unless the link's whiteout
///   came first.
///
/// # Errors
/// As [`unpack`], and [`WriteError::BadWhiteout`].
pub fn apply_layer(
    archive: impl Read,
    writer: &mut Writer,
    check: impl FnMut(&Writer) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    read(archive, writer, check, true)
}

fn read(
    archive: impl Read,
    writer: &mut Writer,
    mut check: impl FnMut(&Writer) -> Result<(), WriteError>,
    whiteouts: bool,
) -> Result<(), WriteError> {
    let mut frames = Frames::new(archive);
    let mut global = Extended::default();
    let mut extended = Extended::default();
    while let Some(header) = frames.next()? {
        check(writer)?;
        match header.entry_type() {
            EntryType::GNULongName => {
                let name = extended.read(&mut frames, &header)?;
                extended.long_name(c_string(&name))?;
            }
            EntryType::GNULongLink => {
                let name = extended.read(&mut frames, &header)?;
                extended.long_link(c_string(&name))?;
            }
            EntryType::XHeader => {
                let text = extended.read(&mut frames, &header)?;
                extended.parse(&text)?;
            }
            EntryType::XGlobalHeader => {
                let text = extended.read(&mut frames, &header)?;
                global.parse_global(&text)?;
            }
            _ => {
                writer.count_entry()?;
                let described = std::mem::take(&mut extended).over(&global);
                let member = Member::read(&mut frames, header, described)?;
                member.apply(&mut frames, writer, whiteouts)?;
            }
        }
    }
    if extended.is_begun() {
        return Err(WriteError::ArchiveTruncated);
    }
    Ok(())
}

/// An entry whose content comes next.
struct Member {
    header: Header,
    path: Vec<u8>,
    link: Vec<u8>,
    /// Of the whole file.
    size: u64,
    /// The parts of a sparse file.
    segments: Option<Vec<Segment>>,
    metadata: Metadata,
}

impl Member {
    fn read(
        frames: &mut Frames<impl Read>,
        header: Header,
        mut extended: Extended,
    ) -> Result<Self, WriteError> {
        let path = match extended.take_path() {
            Some(path) => path,
            None => header.path_bytes().into_owned(),
        };
        if path.is_empty() {
            return Err(WriteError::Damaged("an entry without a name"));
        }
        let stored = match extended.size {
            Some(size) => size,
            None => frame::size(&header)?,
        };
        let link = match extended.link.take() {
            Some(link) => link,
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let is_file = matches!(
            header.entry_type(),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
        );
        let (mut size, mut segments) = (stored, None);
        if is_file {
            frames.begin(stored);
            if let Some((whole, parts)) = sparse::map(frames, &header, &mut extended)? {
                size = whole;
                segments = Some(parts);
            }
        } else if extended.is_sparse() {
            return Err(unsupported("a sparse file that is no file", &path));
        } else if header.entry_type() != EntryType::Link && stored != 0 {
            // A link may say the size of what it links to, without its content.
            return Err(unsupported("content of what is no file", &path));
        }
        Ok(Self {
            metadata: extended.metadata(&header)?,
            header,
            path,
            link,
            size,
            segments,
        })
    }

    fn apply(
        self,
        frames: &mut Frames<impl Read>,
        writer: &mut Writer,
        whiteouts: bool,
    ) -> Result<(), WriteError> {
        if whiteouts && let Some(whiteout) = whiteout::parse(&self.path)? {
            return writer.hide(whiteout);
        }
        let kind = self.kind(frames)?;
        writer.add(&self.path, kind, &self.metadata)
    }

    fn kind<'a>(&'a self, content: &'a mut Frames<impl Read>) -> Result<Kind<'a>, WriteError> {
        let size = self.size;
        let slash = self.path.ends_with(b"/");
        Ok(match (self.header.entry_type(), &self.segments) {
            // So said V7 that something is a directory.
            (EntryType::Regular, _) if slash && self.header.as_old().linkflag == [0] && size == 0 => {
                Kind::Directory
            }
            (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, _) if slash => {
                return Err(unsupported("a file with the name of a directory", &self.path));
            }
            (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, Some(segments)) => {
                Kind::Sparse {
                    size,
                    segments,
                    content,
                }
            }
            (EntryType::Regular | EntryType::Continuous, None) => Kind::File { size, content },
            (EntryType::Directory, _) => Kind::Directory,
            (EntryType::Symlink, _) => Kind::Symlink { target: &self.link },
            (EntryType::Link, _) => Kind::HardLink { target: &self.link },
            (EntryType::Fifo, _) => Kind::Fifo,
            (EntryType::Char, _) => {
                let (major, minor) = self.device()?;
                Kind::CharDevice { major, minor }
            }
            (EntryType::Block, _) => {
                let (major, minor) = self.device()?;
                Kind::BlockDevice { major, minor }
            }
            _ => return Err(unsupported("an unknown type", &self.path)),
        })
    }

    /// A device's numbers, as far as Linux has them.
    fn device(&self) -> Result<(u32, u32), WriteError> {
        let bytes = self.header.as_bytes();
        let part = |field: &[u8], bits: u32| u32::try_from(number(field)?).ok().filter(|n| n >> bits == 0);
        let numbers = part(&bytes[329..337], 12).zip(part(&bytes[337..345], 20));
        numbers.ok_or_else(|| unsupported("a device", &self.path))
    }
}

fn unsupported(what: &str, path: &[u8]) -> WriteError {
    WriteError::Unsupported(format!("{what} ({})", show(path)))
}
