//! A tar archive into a file system: ustar, GNU's long names, and POSIX extended headers.
//!
//! The archive is read entry by entry as it is, because the headers that describe the next
//! entry must be bounded here, and because values of attributes are binary.

use std::io::{self, Read};

use tar::{Archive, EntryType, Header};

use super::writer::{Kind, Metadata, WriteError, Writer};

/// Bytes of one header that describes the next entry.
const MAX_EXTENDED: u64 = 1 << 20;
/// Such headers before one entry.
const MAX_HEADERS: u32 = 16;
/// Attributes of one entry: Linux allows 64 KiB of names.
const MAX_ATTRIBUTES: usize = 256;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What headers say about the entry that follows them.
#[derive(Default)]
struct Extended {
    headers: u32,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Adds the entries of an archive. Before each one `check` is asked whether to go on.
///
/// # Errors
/// What the archive or the writer says; the writer is of no use afterwards.
pub fn unpack(
    archive: impl Read,
    writer: &mut Writer,
    mut check: impl FnMut(&Writer) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut archive = Archive::new(archive);
    let mut extended = Extended::default();
    for entry in archive.entries().map_err(WriteError::Read)?.raw(true) {
        let mut entry = entry.map_err(WriteError::Read)?;
        check(writer)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                extended.path = Some(c_string(extended.read(&mut entry)?));
            }
            EntryType::GNULongLink => {
                extended.link = Some(c_string(extended.read(&mut entry)?));
            }
            EntryType::XHeader => {
                let text = extended.read(&mut entry)?;
                extended.parse(&text)?;
            }
            // Comments for the whole archive.
            EntryType::XGlobalHeader => {
                extended.read(&mut entry)?;
            }
            _ => {
                let described = std::mem::take(&mut extended);
                add(&mut entry, described, writer)?;
            }
        }
    }
    if extended.headers > 0 {
        return Err(WriteError::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}

fn add(
    entry: &mut tar::Entry<'_, impl Read>,
    extended: Extended,
    writer: &mut Writer,
) -> Result<(), WriteError> {
    let header = entry.header().clone();
    let size = header.entry_size().map_err(WriteError::Read)?;
    let path = extended
        .path
        .clone()
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let unsupported = |what: &str| WriteError::Unsupported(format!("{what} ({})", path.escape_ascii()));
    if extended.size.is_some_and(|real| real != size) {
        return Err(unsupported("a file of more than 8 GiB"));
    }
    let link = match &extended.link {
        Some(link) => link.clone(),
        None => header.link_name_bytes().unwrap_or_default().into_owned(),
    };
    let metadata = extended.metadata(&header)?;
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => Kind::File { size, content: entry },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink { target: &link },
        EntryType::Link => Kind::HardLink { target: &link },
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => {
            let (major, minor) = numbers(&header).ok_or_else(|| unsupported("a device"))?;
            Kind::CharDevice { major, minor }
        }
        EntryType::Block => {
            let (major, minor) = numbers(&header).ok_or_else(|| unsupported("a device"))?;
            Kind::BlockDevice { major, minor }
        }
        EntryType::GNUSparse => return Err(unsupported("a sparse file")),
        _ => return Err(unsupported("an unknown type")),
    };
    writer.add(&path, kind, &metadata)
}

impl Extended {
    /// Reads the content of a header that describes the next entry.
    fn read(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, WriteError> {
        self.headers += 1;
        let size = entry.header().entry_size().map_err(WriteError::Read)?;
        if size > MAX_EXTENDED || self.headers > MAX_HEADERS {
            return Err(WriteError::Unsupported(
                "more than 1 MiB of headers for one entry".to_owned(),
            ));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(WriteError::Read)?;
        if content.len() as u64 != size {
            return Err(WriteError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(content)
    }

    /// Records of POSIX.1-2001: "LENGTH KEY=VALUE\n", the length counting itself.
    fn parse(&mut self, mut text: &[u8]) -> Result<(), WriteError> {
        while !text.is_empty() {
            let malformed = || WriteError::Unsupported("a malformed extended header".to_owned());
            let space = text.iter().take(20).position(|&b| b == b' ');
            let space = space.ok_or_else(malformed)?;
            let len: usize = number(&text[..space]).ok_or_else(malformed)?;
            let record = text
                .get(space + 1..len)
                .and_then(|record| record.strip_suffix(b"\n"))
                .ok_or_else(malformed)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(malformed)?;
            self.record(&record[..equals], &record[equals + 1..])
                .ok_or_else(malformed)?;
            text = &text[len..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"size" => self.size = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => return None,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR)
                    && self.xattrs.len() < MAX_ATTRIBUTES
                {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }

    fn metadata(self, header: &Header) -> Result<Metadata, WriteError> {
        let id = |extended: Option<u64>, plain: io::Result<u64>| {
            let id = extended.map_or(plain, Ok).map_err(WriteError::Read)?;
            // The last one is the kernel's "nobody at all".
            let id32 = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
            id32.ok_or_else(|| WriteError::Unsupported(format!("an owner with the number {id}")))
        };
        let (mtime, mtime_nanos) = match self.mtime {
            Some(time) => time,
            None => (header.mtime().map_err(WriteError::Read)?.cast_signed(), 0),
        };
        Ok(Metadata {
            mode: (header.mode().map_err(WriteError::Read)? & 0o7777) as u16,
            uid: id(self.uid, header.uid())?,
            gid: id(self.gid, header.gid())?,
            mtime,
            mtime_nanos,
            xattrs: self.xattrs,
        })
    }
}

/// A device's numbers, as far as Linux has them.
fn numbers(header: &Header) -> Option<(u32, u32)> {
    let major = header.device_major().ok()??;
    let minor = header.device_minor().ok()??;
    (major < 1 << 12 && minor < 1 << 20).then_some((major, minor))
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// Seconds, with a sign and a fraction where they have one.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|&b| b == b'.').unwrap_or(text.len());
    let seconds: i64 = number(&text[..dot])?;
    let mut nanos = 0u32;
    for i in 1..=9 {
        let digit = text.get(dot + i).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Option<Extended> {
        let mut extended = Extended::default();
        extended.parse(text).ok()?;
        Some(extended)
    }

    #[test]
    fn values_may_have_newlines() {
        let extended = parse(b"34 SCHILY.xattr.security.x=a\nb=c\0\n12 path=a/b\n").unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(extended.xattrs, [(b"security.x".to_vec(), b"a\nb=c\0".to_vec())]);
    }

    #[test]
    fn malformed_headers_are_refused() {
        for text in [
            &b"12"[..],
            b"99 path=a\n",
            b"0 path=a\n",
            b"2 a=b\n",
            b"-5 a=b\n",
            b"18446744073709551616 a=b\n",
            b"7 path \n",
            b"13 uid=-123\n",
            b"25 GNU.sparse.realsize=5\n",
        ] {
            assert!(parse(text).is_none(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn owners_are_those_of_linux() {
        let mut header = Header::new_ustar();
        header.set_mode(0o644);
        header.set_gid(0);
        header.set_mtime(0);
        for (uid, good) in [("4294967294", true), ("4294967295", false), ("4294967296", false)] {
            let extended = parse(format!("18 uid={uid}\n").as_bytes());
            let metadata = extended.map(|extended| extended.metadata(&header));
            assert_eq!(metadata.is_some_and(|metadata| metadata.is_ok()), good, "{uid}");
        }
    }

    #[test]
    fn times_have_signs_and_fractions() {
        assert_eq!(time(b"1700000000.5"), Some((1_700_000_000, 500_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1.1234567891"), Some((1, 123_456_789)));
        for bad in [&b""[..], b"-", b"x", b"1.x", b"99999999999999999999"] {
            assert_eq!(time(bad), None);
        }
    }
}
