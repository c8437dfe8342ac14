//! Headers that describe the entry that follows them: GNU's long names, POSIX's records.

use std::io::Read;

use tar::Header;

use super::super::entry::{Metadata, Segment};
use super::super::error::WriteError;
use super::super::limits::{MAX_ATTRIBUTES, MAX_EXTENDED, MAX_HEADERS, MAX_SEGMENTS};
use super::field::{decimal, number, time};
use super::frame::{self, Frames};

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What headers say about the entry that follows them.
#[derive(Default)]
pub(super) struct Extended {
    headers: u32,
    bytes: u64,
    /// There was a header of records.
    records: bool,
    path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    pub(super) size: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// GNU's records of sparse files, versions 0.0, 0.1 and 1.0.
#[derive(Default)]
pub(super) struct Sparse {
    pub(super) given: bool,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    name: Option<Vec<u8>>,
    /// Of the whole file.
    pub(super) size: Option<u64>,
    pub(super) count: Option<u64>,
    /// An offset whose length comes next.
    offset: Option<u64>,
    pub(super) segments: Vec<Segment>,
}

impl Extended {
    /// Reads the content of a header that describes the next entry.
    pub(super) fn read(
        &mut self,
        frames: &mut Frames<impl Read>,
        header: &Header,
    ) -> Result<Vec<u8>, WriteError> {
        let size = frame::size(header)?;
        self.headers += 1;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MAX_EXTENDED || self.headers > MAX_HEADERS {
            return Err(unsupported(
                "more than 1 MiB of headers for one entry, or more than 16",
            ));
        }
        frames.begin(size);
        let mut content = Vec::new();
        frames.read_to_end(&mut content).map_err(WriteError::Read)?;
        if content.len() as u64 != size {
            return Err(WriteError::ArchiveTruncated);
        }
        Ok(content)
    }

    /// Whether an entry must follow.
    pub(super) fn is_begun(&self) -> bool {
        self.records || self.path.is_some() || self.link.is_some()
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.sparse.given
    }

    /// GNU's name of the next entry.
    pub(super) fn long_name(&mut self, name: &[u8]) -> Result<(), WriteError> {
        once(&mut self.path, name)
    }

    /// GNU's target of the next entry.
    pub(super) fn long_link(&mut self, name: &[u8]) -> Result<(), WriteError> {
        once(&mut self.link, name)
    }

    /// The name of a sparse file is its own: `path` is then for programs that know none.
    pub(super) fn take_path(&mut self) -> Option<Vec<u8>> {
        self.sparse.name.take().or_else(|| self.path.take())
    }

    /// Records of POSIX.1-2001: "LENGTH KEY=VALUE\n", the length counting itself.
    pub(super) fn parse(&mut self, text: &[u8]) -> Result<(), WriteError> {
        let mut own = Self::default();
        own.records(text)?;
        if std::mem::replace(&mut self.records, true)
            || own.path.is_some() && self.path.is_some()
            || own.link.is_some() && self.link.is_some()
        {
            return Err(unsupported("two descriptions of one entry"));
        }
        *self = Self {
            headers: self.headers,
            bytes: self.bytes,
            records: true,
            path: own.path.or_else(|| self.path.take()),
            link: own.link.or_else(|| self.link.take()),
            ..own
        };
        Ok(())
    }

    /// Records for all entries that follow.
    pub(super) fn parse_global(&mut self, text: &[u8]) -> Result<(), WriteError> {
        self.records(text)?;
        if self.path.is_some() || self.link.is_some() || self.size.is_some() || self.is_sparse() {
            return Err(unsupported("a global header that names or measures files"));
        }
        Ok(())
    }

    /// Takes from a global header what is not said here.
    pub(super) fn over(mut self, global: &Self) -> Self {
        self.uid = self.uid.or(global.uid);
        self.gid = self.gid.or(global.gid);
        self.mtime = self.mtime.or(global.mtime);
        if !global.xattrs.is_empty() {
            // The last of two with one name counts.
            self.xattrs.splice(0..0, global.xattrs.iter().cloned());
        }
        self
    }

    pub(super) fn metadata(self, header: &Header) -> Result<Metadata, WriteError> {
        let old = header.as_old();
        let id = |extended: Option<u64>, plain: &[u8]| {
            let id = match extended {
                Some(id) => i128::from(id),
                None => i128::from(number(plain).ok_or(WriteError::Damaged("an owner is no number"))?),
            };
            // The last one is the kernel's "nobody at all".
            let id32 = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
            id32.ok_or_else(|| WriteError::Unsupported(format!("an owner with the number {id}")))
        };
        let (mtime, mtime_nanos) = match self.mtime {
            Some(time) => time,
            None => (
                number(&old.mtime).ok_or(WriteError::Damaged("a time is no number"))?,
                0,
            ),
        };
        let mode = number(&old.mode).ok_or(WriteError::Damaged("a mode is no number"))?;
        Ok(Metadata {
            mode: (mode & 0o7777) as u16,
            uid: id(self.uid, &old.uid)?,
            gid: id(self.gid, &old.gid)?,
            mtime,
            mtime_nanos,
            xattrs: self.xattrs,
        })
    }

    fn records(&mut self, mut text: &[u8]) -> Result<(), WriteError> {
        while !text.is_empty() {
            let malformed = || unsupported("a malformed extended header");
            let space = text.iter().take(20).position(|&b| b == b' ');
            let space = space.ok_or_else(malformed)?;
            let len: usize = decimal(&text[..space]).ok_or_else(malformed)?;
            let record = text
                .get(space + 1..len)
                .and_then(|record| record.strip_suffix(b"\n"))
                .ok_or_else(malformed)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(malformed)?;
            self.record(&record[..equals], &record[equals + 1..])
                .ok_or_else(malformed)?;
            if self.xattrs.len() > MAX_ATTRIBUTES {
                return Err(unsupported("more than 256 attributes of one entry"));
            }
            text = &text[len..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // Without a value: what an earlier header says does not count.
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| value.to_vec()),
            b"linkpath" => self.link = given.then(|| value.to_vec()),
            b"uid" => self.uid = some(value, decimal)?,
            b"gid" => self.gid = some(value, decimal)?,
            b"size" => self.size = some(value, size)?,
            b"mtime" => self.mtime = some(value, time)?,
            _ => {
                if let Some(name) = key.strip_prefix(SPARSE) {
                    return self.sparse.record(name, value);
                }
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

impl Sparse {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.given = true;
        match key {
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(size(value)?),
            b"numblocks" => self.count = Some(decimal(value)?),
            b"offset" if self.offset.is_none() => self.offset = Some(size(value)?),
            b"numbytes" => {
                let segment = Segment {
                    offset: self.offset.take()?,
                    len: size(value)?,
                };
                self.add(segment)?;
            }
            b"map" => {
                let mut numbers = value.split(|&b| b == b',');
                while let Some(offset) = numbers.next() {
                    let segment = Segment {
                        offset: size(offset)?,
                        len: size(numbers.next()?)?,
                    };
                    self.add(segment)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn add(&mut self, segment: Segment) -> Option<()> {
        self.segments.push(segment);
        (self.segments.len() <= MAX_SEGMENTS).then_some(())
    }
}

/// Sizes have the range of `off_t`.
fn size(text: &[u8]) -> Option<u64> {
    decimal::<i64>(text).map(i64::cast_unsigned)
}

fn some<T>(value: &[u8], parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<Option<T>> {
    match value {
        [] => Some(None),
        _ => parse(value).map(Some),
    }
}

fn once(field: &mut Option<Vec<u8>>, value: &[u8]) -> Result<(), WriteError> {
    match field.replace(value.to_vec()) {
        Some(_) => Err(unsupported("two descriptions of one entry")),
        None => Ok(()),
    }
}

fn unsupported(what: &str) -> WriteError {
    WriteError::Unsupported(what.to_owned())
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
            b"28 size=9223372036854775808\n",
            b"22 GNU.sparse.map=1,\n",
            b"24 GNU.sparse.map=1,2,3\n",
            b"26 GNU.sparse.numbytes=12\n",
            b"22 GNU.sparse.other=1\n",
        ] {
            assert!(parse(text).is_none(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn an_entry_has_one_description() {
        let mut extended = Extended::default();
        extended.long_name(b"a").unwrap();
        assert!(extended.long_name(b"a").is_err());
        assert!(extended.parse(b"12 path=a/b\n").is_err());
        let mut extended = parse(b"12 path=a/b\n").unwrap();
        extended.long_link(b"c").unwrap();
        assert!(extended.long_name(b"b").is_err());
        let mut extended = parse(b"12 path=a/b\n").unwrap();
        assert!(extended.parse(b"9 uid=12\n").is_err());
    }

    #[test]
    fn empty_values_say_nothing() {
        let extended = parse(b"12 path=a/b\n8 path=\n7 uid=\n").unwrap();
        assert!(extended.path.is_none() && extended.uid.is_none());
    }

    #[test]
    fn global_records_are_for_all_that_say_nothing_else() {
        let mut global = Extended::default();
        global.parse_global(b"9 uid=12\n9 gid=12\n").unwrap();
        let own = parse(b"9 uid=77\n").unwrap().over(&global);
        assert_eq!((own.uid, own.gid), (Some(77), Some(12)));
        assert!(global.parse_global(b"9 size=1\n").is_err());
        assert!(Extended::default().parse_global(b"10 size=1\n").is_err());
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
}
