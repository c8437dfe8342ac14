//! Layers of images as a test wants them: tar archives that need no privilege to be made,
//! whatever owners, devices and attributes they have.

use tar::{Builder, EntryType, Header};

/// The longest path or target that a ustar header holds.
const SHORT: usize = 100;
/// The largest owner that a ustar header holds, in seven octal digits.
const MAX_OWNER: u64 = 0o7_777_777;
/// When everything was changed, unless an entry says otherwise: 2023-11-14T22:13:20Z.
pub const TIME: i64 = 1_700_000_000;

/// One entry of a layer.
#[derive(Debug, Clone)]
pub struct Entry {
    path: Vec<u8>,
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    time: (i64, u32),
    xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Hard(Vec<u8>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl Entry {
    pub fn directory(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Directory, 0o755)
    }

    pub fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::File(content.as_ref().to_vec()), 0o644)
    }

    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Symlink(target.as_ref().to_vec()), 0o777)
    }

    pub fn hard(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Hard(target.as_ref().to_vec()), 0o644)
    }

    pub fn character(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::Character(major, minor), 0o600)
    }

    pub fn block(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::Block(major, minor), 0o600)
    }

    pub fn fifo(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Fifo, 0o600)
    }

    /// The whiteout of a file, or of a directory with everything below it.
    pub fn whiteout(path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let slash = if parent.is_empty() { "" } else { "/" };
        Self::file(format!("{parent}{slash}.wh.{name}"), "")
    }

    /// Hides what the layers below have in a directory.
    pub fn opaque(directory: &str) -> Self {
        Self::file(format!("{directory}/.wh..wh..opq"), "")
    }

    fn new(path: impl AsRef<[u8]>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            kind,
            mode,
            owner: (0, 0),
            time: (TIME, 0),
            xattrs: Vec::new(),
        }
    }

    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Seconds since 1970, and nanoseconds after them.
    #[must_use]
    pub fn time(mut self, seconds: i64, nanoseconds: u32) -> Self {
        self.time = (seconds, nanoseconds);
        self
    }

    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn target(&self) -> &[u8] {
        match &self.kind {
            Kind::Symlink(target) | Kind::Hard(target) => target,
            _ => b"",
        }
    }

    /// What a ustar header has no room for and a POSIX extended header says.
    fn extended(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut put = |key: &str, value: Vec<u8>| found.push((key.to_owned(), value));
        for (key, owner) in [("uid", self.owner.0), ("gid", self.owner.1)] {
            if owner > MAX_OWNER {
                put(key, owner.to_string().into_bytes());
            }
        }
        if self.time.1 > 0 || self.time.0 < 0 {
            put("mtime", pax_time(self.time).into_bytes());
        }
        for (key, value) in [("path", self.path.as_slice()), ("linkpath", self.target())] {
            if value.len() > SHORT && !gnu(value) {
                put(key, value.to_vec());
            }
        }
        for (name, value) in &self.xattrs {
            put(&format!("SCHILY.xattr.{name}"), value.clone());
        }
        found
    }

    fn header(&self) -> Header {
        let mut header = Header::new_gnu();
        let (kind, size) = match &self.kind {
            Kind::Directory => (EntryType::Directory, 0),
            Kind::File(content) => (EntryType::Regular, content.len()),
            Kind::Symlink(_) => (EntryType::Symlink, 0),
            Kind::Hard(_) => (EntryType::Link, 0),
            Kind::Character(..) => (EntryType::Char, 0),
            Kind::Block(..) => (EntryType::Block, 0),
            Kind::Fifo => (EntryType::Fifo, 0),
        };
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0.min(MAX_OWNER));
        header.set_gid(self.owner.1.min(MAX_OWNER));
        header.set_mtime(u64::try_from(self.time.0).unwrap_or(0));
        if let Kind::Character(major, minor) | Kind::Block(major, minor) = self.kind {
            header.set_device_major(major).expect("it is a GNU header");
            header.set_device_minor(minor).expect("it is a GNU header");
        }
        // As they are: tar's own setters refuse what a hostile archive would have.
        let bytes = header.as_mut_bytes();
        copy(&mut bytes[..SHORT], &self.path);
        copy(&mut bytes[157..157 + SHORT], self.target());
        header.set_cksum();
        header
    }
}

/// A layer in the making.
pub struct Layer(Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Layer {
    /// A layer of these entries, in this order: the tar archive.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
        let mut layer = Self::default();
        for entry in entries {
            layer.add(&entry);
        }
        layer.finish()
    }

    /// # Panics
    /// Never: it is written to memory.
    pub fn add(&mut self, entry: &Entry) {
        let extended = entry.extended();
        let pairs = extended
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        self.0.append_pax_extensions(pairs).expect("memory takes it");
        for (kind, value) in [
            (EntryType::GNULongName, entry.path.as_slice()),
            (EntryType::GNULongLink, entry.target()),
        ] {
            if value.len() > SHORT && gnu(value) {
                self.long_name(kind, value);
            }
        }
        let content: &[u8] = match &entry.kind {
            Kind::File(content) => content,
            _ => b"",
        };
        self.0.append(&entry.header(), content).expect("memory takes it");
    }

    /// # Panics
    /// Never: it is written to memory.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("memory takes it")
    }

    fn long_name(&mut self, kind: EntryType, value: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(value.len() as u64 + 1);
        copy(&mut header.as_mut_bytes()[..SHORT], b"././@LongLink");
        header.set_cksum();
        let value = [value, b"\0"].concat();
        self.0.append(&header, value.as_slice()).expect("memory takes it");
    }
}

/// Long names come in both forms: GNU's for what is not UTF-8 and for every other length.
fn gnu(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_err() || value.len() % 2 == 1
}

fn copy(field: &mut [u8], value: &[u8]) {
    let n = value.len().min(field.len());
    field[..n].copy_from_slice(&value[..n]);
}

/// A time before 1970 counts down: half a second before it is -0.5.
fn pax_time((seconds, nanoseconds): (i64, u32)) -> String {
    let all = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if all < 0 { "-" } else { "" };
    let all = all.unsigned_abs();
    format!("{sign}{}.{:09}", all / 1_000_000_000, all % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let long = "d/".repeat(90) + "name";
        let layer = Layer::of([
            Entry::directory("a").mode(0o1777).owner(4_294_967_294, 5),
            Entry::file(&long, "content")
                .time(-1, 500_000_000)
                .xattr("user.x", [0, 10, 255]),
            Entry::symlink("b", "t".repeat(301)),
            Entry::character("c", 5, 1),
            Entry::whiteout("a/b"),
            Entry::whiteout("top"),
        ]);
        let mut archive = tar::Archive::new(layer.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut next = || entries.next().unwrap().unwrap();
        let mut directory = next();
        let uid = directory
            .pax_extensions()
            .unwrap()
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!((uid.key().unwrap(), uid.value().unwrap()), ("uid", "4294967294"));
        let mut file = next();
        assert_eq!(file.path_bytes(), long.as_bytes());
        let mtime = file.pax_extensions().unwrap().unwrap().find_map(|e| {
            e.ok()
                .filter(|e| e.key() == Ok("mtime"))
                .map(|e| e.value().unwrap().to_owned())
        });
        assert_eq!(mtime.unwrap(), "-0.500000000");
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        assert_eq!(next().link_name_bytes().unwrap().len(), 301);
        assert_eq!(next().header().device_major().unwrap(), Some(5));
        assert_eq!(next().path_bytes(), &b"a/.wh.b"[..]);
        assert_eq!(next().path_bytes(), &b".wh.top"[..]);
    }
}
