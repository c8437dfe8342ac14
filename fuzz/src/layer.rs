//! Layers: archives that stand one behind the other, each applied on top of those before it,
//! and the file system that comes of them.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::Command;

use banger_image::ext4::{Seed, Superblock, WriteError, Writer, apply_layer};
use rustix::fs::MemfdFlags;

use crate::archive::{self, Part};

/// Bytes of a file system: it is in memory here.
const MAX_WRITTEN: u64 = 64 << 20;
/// The path of e2fsck: what comes of the input is given to it.
const FSCK: &str = "BANGER_FUZZ_FSCK";

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    thread_local! { static FSCK_PATH: OnceCell<Option<OsString>> = const { OnceCell::new() } }
    let layers = archive::split(data);
    let Some(made) = make(&layers) else {
        return;
    };
    let fsck = FSCK_PATH.with(|path| path.get_or_init(|| std::env::var_os(FSCK)).clone());
    if let Some(fsck) = fsck {
        let again = make(&layers).expect("what could be applied once can be again");
        assert!(same(&made, &again), "Not the same file system twice");
        check(fsck, &made);
    }
}

/// The file system of some layers, unless one of them is refused.
fn make(layers: &[Vec<u8>]) -> Option<File> {
    let file = File::from(rustix::fs::memfd_create("layer", MemfdFlags::empty()).expect("a file in memory"));
    let seed = Seed::from_digest(&[7; 32], 1_700_000_000);
    let mut writer = Writer::new(file.try_clone().expect("a descriptor"), seed).expect("an empty file");
    for layer in layers {
        writer.begin_layer();
        let applied = apply_layer(&layer[..], &mut writer, |writer| {
            if writer.written() > MAX_WRITTEN {
                return Err(WriteError::Cancelled);
            }
            Ok(())
        });
        if let Err(error) = applied {
            accept(&error);
            return None;
        }
    }
    match writer.finish() {
        Ok(summary) => {
            let found = Superblock::read(&file).expect("what was written is a file system");
            assert_eq!(found.size(), summary.size);
            assert!(found.has_journal && !found.needs_recovery);
            Some(file)
        }
        Err(error) => {
            accept(&error);
            None
        }
    }
}

/// An archive that is refused is never the fault of the file that is written, and the reason
/// fits on a screen.
fn accept(error: &WriteError) {
    assert!(!matches!(error, WriteError::Write(_)), "{error:?}");
    assert!(
        error.to_string().len() < 64 << 10,
        "A reason of {} bytes",
        error.to_string().len()
    );
}

fn check(fsck: OsString, file: &File) {
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let output = Command::new(fsck)
        .args(["-fn", &path])
        .output()
        .expect("e2fsck runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains('?'), "{text}");
    #[allow(clippy::print_stderr, reason = "scripts/fuzz counts them")]
    {
        eprintln!("e2fsck: clean");
    }
}

fn same(left: &File, right: &File) -> bool {
    let read = |file: &File| -> io::Result<Vec<u8>> {
        // What is a hole in both is the same.
        let mut all = Vec::new();
        let mut at = 0;
        while let Ok(data) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            at = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data))?;
            let start = all.len();
            all.extend_from_slice(&data.to_le_bytes());
            all.resize(start + 8 + (at - data) as usize, 0);
            file.read_exact_at(&mut all[start + 8..], data)?;
        }
        Ok(all)
    };
    read(left).expect("it can be read") == read(right).expect("it can be read")
}

pub fn seeds() -> Vec<Vec<u8>> {
    let file = |name: &str, content: &[u8]| Part::new(b'0', name, content);
    let files = [
        Part::new(b'5', "dir/", b""),
        file("dir/a", b"text"),
        file("b", &[1; 5000]),
        Part::link(b'1', "hard", "dir/a"),
        Part::link(b'2', "soft", "/dir/../b"),
        Part::link(b'2', "sub", "dir/../dir"),
        Part::new(b'6', "fifo", b""),
        Part::new(b'3', "null", b"").with(329, b"0000001\x000000003\x00"),
        Part::new(b'4', "disk", b"").with(329, b"0000010\x000000000\x00"),
    ];
    let whiteouts = [
        file("dir/.wh.a", b""),
        file(".wh.hard", b""),
        Part::new(b'5', "other", b""),
        file("other/.wh..wh..opq", b""),
        file("sub/new", b"x"),
    ];
    let long = "long/".repeat(40);
    let extended = [
        Part::records(&[
            ("path", b"dir/\xc3\xa4"),
            ("uid", b"70000"),
            ("mtime", b"1700000000.5"),
            ("SCHILY.xattr.user.x", &[9; 300]),
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
        ]),
        file("a", b"1"),
        Part::new(b'L', "././@LongLink", &[long.as_bytes(), b"x\0"].concat()),
        file("x", b"2"),
        Part::new(b'K', "././@LongLink", &[long.as_bytes(), b"x\0"].concat()),
        Part::link(b'2', "y", ""),
        Part::new(b'g', "g", b"9 uid=12\n"),
        file("z", b""),
    ];
    let map = [&b"2\n0\n3\n1000000\n4\n"[..], &[0; 512 - 16], b"abcdefg"].concat();
    let sparse = [
        Part::records(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"2000000"),
        ]),
        file("GNUSparseFile.0/sparse", &map),
        Part::records(&[
            ("GNU.sparse.size", b"9000"),
            ("GNU.sparse.numblocks", b"1"),
            ("GNU.sparse.map", b"4096,5"),
        ]),
        file("older", b"12345"),
        Part::new(b'S', "oldest", b"12345")
            .with(257, b"ustar  \x00")
            .with(386, b"00000010000\x0000000000005\x00")
            .with(483, b"00000100000\x00"),
    ];
    let with = |layers: &[&[Part]]| {
        let parts: Vec<Part> = layers
            .iter()
            .flat_map(|layer| [*layer, &[Part::End]].concat())
            .collect();
        archive::build(&parts)
    };
    vec![
        with(&[&files]),
        with(&[&files, &whiteouts]),
        with(&[&extended]),
        with(&[&sparse]),
        with(&[&files, &extended, &whiteouts, &sparse]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test of this file needs a program that not every machine has.
    fn fsck() -> Option<OsString> {
        let found = ["/usr/sbin/e2fsck", "/sbin/e2fsck"]
            .into_iter()
            .find(|path| std::path::Path::new(path).is_file());
        found.map(OsString::from)
    }

    #[test]
    fn seeds_are_layers() {
        for (number, seed) in seeds().iter().enumerate() {
            run(seed);
            let made = make(&archive::split(seed)).unwrap_or_else(|| panic!("seed {number} is refused"));
            if let Some(fsck) = fsck() {
                check(fsck, &made);
            }
        }
    }
}
