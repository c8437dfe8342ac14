//! One entry's header: ustar, with a pax extended header (POSIX.1-2001) before it for the
//! nanoseconds of its time and for names that are too long.

use tar::{EntryType, Header};

use crate::BLOCK;

/// The bytes that ustar has for a name, and for a link's target.
const NAME: usize = 100;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    Directory,
    Symlink,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Type,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of the contents that follow, in bytes.
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    /// Of a symbolic link.
    pub(crate) target: Vec<u8>,
}

impl Head {
    /// Appends the blocks that stand before the contents.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut records = Vec::with_capacity(BLOCK);
        record(&mut records, b"mtime", time(self.mtime_ns).as_bytes());
        if self.name.len() > NAME {
            record(&mut records, b"path", &self.name);
        }
        if self.target.len() > NAME {
            record(&mut records, b"linkpath", &self.target);
        }
        let mut extended = Header::new_ustar();
        extended.set_entry_type(EntryType::XHeader);
        extended.set_size(records.len() as u64);
        extended.set_cksum();
        out.extend_from_slice(extended.as_bytes());
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64), 0);

        let mut header = Header::new_ustar();
        header.set_entry_type(match self.kind {
            Type::File => EntryType::Regular,
            Type::Directory => EntryType::Directory,
            Type::Symlink => EntryType::Symlink,
        });
        header.set_mode(self.mode);
        header.set_uid(self.uid.into());
        header.set_gid(self.gid.into());
        header.set_size(self.size);
        header.set_mtime(u64::try_from(self.mtime_ns).unwrap_or(0) / SECOND);
        let old = header.as_old_mut();
        fill(&mut old.name, &self.name);
        fill(&mut old.linkname, &self.target);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
    }
}

/// The zeros that fill the last block of so many bytes.
pub(crate) fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

/// What of a name fits; the rest is in the extended header.
fn fill(field: &mut [u8; NAME], bytes: &[u8]) {
    let length = bytes.len().min(NAME);
    field[..length].copy_from_slice(&bytes[..length]);
}

/// A record says how long it is itself, with the digits of that.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn time(ns: i64) -> String {
    let (sign, ns) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs());
    format!("{sign}{}.{:09}", ns / SECOND, ns % SECOND)
}

/// The records of an extended header; none where it is malformed.
pub(crate) fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(6).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let line = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = line.iter().position(|byte| *byte == b'=')?;
        found.push((&line[..equals], &line[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(found)
}

/// A time of an extended header in nanoseconds.
pub(crate) fn parse_time(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    let ns = seconds.checked_mul(SECOND.cast_signed())?.checked_add(fraction)?;
    Some(if negative { -ns } else { ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_how_long_they_are() {
        for length in 0..2000 {
            let mut out = Vec::new();
            let value = vec![b'x'; length];
            record(&mut out, b"path", &value);
            record(&mut out, b"k", b"a=b\nc");
            assert_eq!(
                records(&out).unwrap(),
                [(&b"path"[..], &value[..]), (&b"k"[..], &b"a=b\nc"[..])]
            );
        }
        for bad in [
            &b"3"[..],
            b"9 a=b\n",
            b"5 ab\n",
            b"-6 a=b\n",
            b"0 a=b\n",
            b"2 \n",
            b"99999999999999999999999 a=b\n",
            b"6 a=bc\n",
        ] {
            assert_eq!(records(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        for ns in [0, 1, -1, 1_700_000_000_123_456_789, -1_500_000_000, i64::MAX] {
            assert_eq!(parse_time(time(ns).as_bytes()), Some(ns));
        }
        assert_eq!(parse_time(b"5"), Some(5_000_000_000));
        for bad in [
            &b""[..],
            b".",
            b"x",
            b"1.0000000001",
            b"1e3",
            b"99999999999999",
            b"--1",
        ] {
            assert_eq!(parse_time(bad), None, "{bad:?}");
        }
    }
}
