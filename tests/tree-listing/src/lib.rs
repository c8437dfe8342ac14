//! Everything that a file system knows about the files of a tree, as text that two sides can
//! compare: one line for each path, `path<TAB>field=value<TAB>field=value…`.
//!
//! Bytes of names, targets and attributes that are not printable ASCII, and backslashes, are
//! written as `\xNN`. Fields: `type`, `mode` (octal, with the special bits), `uid`, `gid`,
//! `mtime` (seconds and nanoseconds), `size`, `sha256`, `target`, `device`, `links` (the number
//! and the first path of the same file), and `xattr:NAME` (hexadecimal).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A tree: paths (escaped, without a leading slash; `.` is the root) and their fields.
pub type Listing = BTreeMap<String, BTreeMap<String, String>>;

/// Lists a tree. Does not follow links, and does not enter other file systems.
///
/// # Errors
/// When a file cannot be read, with its name.
pub fn list(root: &Path) -> io::Result<Listing> {
    let device = fs::symlink_metadata(root)?.dev();
    let mut found = Listing::new();
    let mut files = BTreeMap::new();
    let mut todo = vec![PathBuf::from(".")];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let fields = describe(&full).map_err(|error| named(&full, &error))?;
        let meta = fs::symlink_metadata(&full)?;
        let name = name_of(&path);
        if !meta.is_dir() && meta.nlink() > 1 {
            let names: &mut Vec<String> = files.entry(meta.ino()).or_default();
            names.push(name.clone());
        }
        if meta.is_dir() && meta.dev() == device {
            for entry in fs::read_dir(&full).map_err(|error| named(&full, &error))? {
                todo.push(path.join(entry?.file_name()));
            }
        }
        found.insert(name, fields);
    }
    for names in files.values() {
        let first = names.iter().min().cloned().unwrap_or_default();
        for name in names {
            if let Some(fields) = found.get_mut(name) {
                fields.insert("links".to_owned(), format!("{} {first}", names.len()));
            }
        }
    }
    Ok(found)
}

/// Writes a listing as text.
pub fn print(listing: &Listing) -> String {
    let mut text = String::new();
    for (path, fields) in listing {
        text.push_str(path);
        for (key, value) in fields {
            _ = write!(text, "\t{key}={value}");
        }
        text.push('\n');
    }
    text
}

/// Reads what [`print()`] wrote; lines of another form are left out.
pub fn parse(text: &str) -> Listing {
    let line = |line: &str| {
        let mut parts = line.split('\t');
        let path = parts.next()?.to_owned();
        let fields = parts.map(|part| part.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())));
        Some((path, fields.collect::<Option<_>>()?))
    };
    text.lines().filter_map(line).collect()
}

/// Bytes as a listing has them.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte != b'\\' && matches!(byte, b' '..=b'~') {
            text.push(char::from(byte));
        } else {
            _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn name_of(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    escaped(bytes.strip_prefix(b"./").unwrap_or(bytes))
}

fn describe(path: &Path) -> io::Result<BTreeMap<String, String>> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let mut fields = BTreeMap::new();
    let mut put = |key: &str, value: String| fields.insert(key.to_owned(), value);
    put("mode", format!("{:04o}", meta.mode() & 0o7777));
    put("uid", meta.uid().to_string());
    put("gid", meta.gid().to_string());
    put("mtime", format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()));
    let name = if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        put("target", escaped(fs::read_link(path)?.as_os_str().as_bytes()));
        "link"
    } else if kind.is_file() {
        put("size", meta.size().to_string());
        put("sha256", hash(path)?);
        "file"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else {
        let device = meta.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        put("device", format!("{major}:{minor}"));
        if kind.is_char_device() {
            "character"
        } else {
            "block"
        }
    };
    put("type", name.to_owned());
    for (key, value) in attributes(path)? {
        fields.insert(format!("xattr:{key}"), value);
    }
    Ok(fields)
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

/// The extended attributes, their values in hexadecimal.
fn attributes(path: &Path) -> io::Result<Vec<(String, String)>> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
        found.push((escaped(name), hex(&value[..length])));
    }
    Ok(found)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_listing_tells_everything_and_survives_being_text() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("dir/a\tb\\"), "content").unwrap();
        fs::hard_link(at("dir/a\tb\\"), at("also")).unwrap();
        symlink("no/where", at("link")).unwrap();
        let listing = list(root.path()).unwrap();
        assert_eq!(parse(&print(&listing)), listing);
        assert_eq!(
            listing.keys().collect::<Vec<_>>(),
            [".", "also", "dir", "dir/a\\x09b\\x5c", "link"]
        );
        let file = &listing["dir/a\\x09b\\x5c"];
        assert_eq!(file["links"], "2 also");
        assert_eq!(
            file["sha256"],
            "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
        );
        assert_eq!(listing["link"]["target"], "no/where");
        assert_eq!(listing["dir"]["type"], "directory");
    }
}
