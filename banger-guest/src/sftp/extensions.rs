//! OpenSSH's extensions of the protocol (its `PROTOCOL` file, section 4), of which a request is
//! a few strings one after the other.

use std::fs;
use std::io;
use std::path::Path;

use russh_sftp::protocol::FileAttributes;

use super::attributes;
use super::files::{Handles, MAX_HANDLES, MAX_READ};

/// The longest packet that this server takes, the library's own limit.
const MAX_PACKET: u64 = 256 << 10;

/// What is offered, with the version of each.
pub(super) const OFFERED: [(&str, &str); 7] = [
    ("posix-rename@openssh.com", "1"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
];

/// What an extension gives back.
pub(super) enum Answer {
    Done,
    Data(Vec<u8>),
    Name(String),
}

/// Does what the request names. None when it is not offered.
pub(super) fn answer(request: &str, data: &[u8], handles: &Handles) -> Option<io::Result<Answer>> {
    let mut input = Input { rest: data };
    Some(match request {
        "posix-rename@openssh.com" => pair(&mut input)
            .and_then(|(from, to)| fs::rename(from, to))
            .map(|()| Answer::Done),
        "hardlink@openssh.com" => pair(&mut input)
            .and_then(|(from, to)| fs::hard_link(from, to))
            .map(|()| Answer::Done),
        "fsync@openssh.com" => input
            .string()
            .and_then(|handle| handles.file(&handle)?.sync_all())
            .map(|()| Answer::Done),
        "lsetstat@openssh.com" => set_attributes(&mut input).map(|()| Answer::Done),
        "limits@openssh.com" => {
            let read = u64::from(MAX_READ);
            Ok(numbers(&[MAX_PACKET, read, read, MAX_HANDLES as u64]))
        }
        "expand-path@openssh.com" => input.string().map(|path| Answer::Name(expand(&path))),
        "statvfs@openssh.com" => input.string().and_then(|path| file_system(&path)),
        _ => return None,
    })
}

fn pair(input: &mut Input<'_>) -> io::Result<(String, String)> {
    Ok((input.string()?, input.string()?))
}

fn numbers(values: &[u64]) -> Answer {
    Answer::Data(values.iter().flat_map(|value| value.to_be_bytes()).collect())
}

/// The user's own home for `~`; another user's is not looked up.
fn expand(path: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
    match path.strip_prefix('~') {
        Some("") => home,
        Some(rest) if rest.starts_with('/') => home + rest,
        _ => path.to_owned(),
    }
}

fn set_attributes(input: &mut Input<'_>) -> io::Result<()> {
    let path = input.string()?;
    let flags = input.number()?;
    let mut wanted = FileAttributes::default();
    if flags & 1 != 0 {
        // The size of a link is not set.
        input.number()?;
        input.number()?;
    }
    if flags & 2 != 0 {
        (wanted.uid, wanted.gid) = (Some(input.number()?), Some(input.number()?));
    }
    if flags & 4 != 0 {
        wanted.permissions = Some(input.number()?);
    }
    if flags & 8 != 0 {
        (wanted.atime, wanted.mtime) = (Some(input.number()?), Some(input.number()?));
    }
    attributes::apply_to_path(Path::new(&path), &wanted, true)
}

fn file_system(path: &str) -> io::Result<Answer> {
    let found = rustix::fs::statvfs(path)?;
    Ok(numbers(&[
        found.f_bsize,
        found.f_frsize,
        found.f_blocks,
        found.f_bfree,
        found.f_bavail,
        found.f_files,
        found.f_ffree,
        found.f_favail,
        found.f_fsid,
        found.f_flag.bits() & 3,
        found.f_namemax,
    ]))
}

/// SSH's encoding (RFC 4251, section 5).
struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn number(&mut self) -> io::Result<u32> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(cut)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn string(&mut self) -> io::Result<String> {
        let length = self.number()? as usize;
        let (text, rest) = self.rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).map_err(io::Error::other)
    }
}

fn cut() -> io::Error {
    io::Error::other("The request is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<u8> {
        let encode = |value: &&str| {
            let length = (value.len() as u32).to_be_bytes();
            [&length[..], value.as_bytes()].concat()
        };
        values.iter().flat_map(encode).collect()
    }

    #[test]
    fn files_are_renamed_over_and_linked() {
        let directory = tempfile::tempdir().unwrap();
        let name = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        fs::write(name("a"), b"new").unwrap();
        fs::write(name("b"), b"old").unwrap();
        let handles = Handles::default();
        let data = strings(&[&name("a"), &name("b")]);
        assert!(
            answer("posix-rename@openssh.com", &data, &handles)
                .unwrap()
                .is_ok()
        );
        assert_eq!(fs::read(name("b")).unwrap(), b"new");
        let data = strings(&[&name("b"), &name("c")]);
        assert!(answer("hardlink@openssh.com", &data, &handles).unwrap().is_ok());
        assert_eq!(fs::read(name("c")).unwrap(), b"new");
    }

    #[test]
    fn what_is_cut_is_an_error_and_what_is_unknown_is_none() {
        let handles = Handles::default();
        let whole = strings(&["/a", "/b"]);
        for (name, _) in OFFERED {
            if name == "limits@openssh.com" {
                continue;
            }
            for length in 0..4 {
                assert!(
                    answer(name, &whole[..length], &handles).unwrap().is_err(),
                    "{name}"
                );
            }
        }
        let huge = u32::MAX.to_be_bytes();
        assert!(answer("statvfs@openssh.com", &huge, &handles).unwrap().is_err());
        assert!(answer("copy-data", b"", &handles).is_none());
    }
}
