use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use lz4_flex::frame::FrameEncoder;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;
use crate::error::Kind;
use crate::{Meta, Packed, Packer};

/// A stream of entries, as a forger may make it.
fn forged(entries: &[Head]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for head in entries {
        head.encode(&mut bytes);
        let contents = vec![b'x'; head.size as usize];
        bytes.extend_from_slice(&contents);
        bytes.resize(bytes.len().next_multiple_of(crate::BLOCK), 0);
    }
    bytes.extend_from_slice(&[0; 1024]);
    compressed(&bytes)
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn head(name: &str, kind: Type) -> Head {
    Head {
        name: name.into(),
        kind,
        mode: 0o644,
        uid: 1,
        gid: 1,
        size: if kind == Type::File { 3 } else { 0 },
        mtime_ns: 5,
        target: Vec::new(),
    }
}

fn link(name: &str, target: &str) -> Head {
    Head {
        target: target.into(),
        ..head(name, Type::Symlink)
    }
}

fn take(stream: &[u8], to: &Path, rules: &Rules) -> Result<Unpacked, Error> {
    unpack(stream, &Root::open(to).unwrap(), rules, &mut |_| Ok(()))
}

/// Unpacks into a directory beside which something lies that must stay as it is.
fn attacked(entries: &[Head]) -> (TempDir, Result<Unpacked, Error>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/file"), "mine").unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let top = entries[0].name.starts_with(b"top").then(|| "top".into());
    let rules = Rules {
        top,
        ..Rules::hostile()
    };
    let result = take(&forged(entries), &dir.path().join("in"), &rules);
    let outside: Vec<_> = fs::read_dir(dir.path().join("outside")).unwrap().collect();
    assert_eq!(outside.len(), 1);
    assert_eq!(fs::read(dir.path().join("outside/file")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    (dir, result)
}

fn pack_tree(from: &Path, name: &str) -> (Vec<u8>, Packed) {
    let mut packer = Packer::new(Vec::new(), |_| Ok(()));
    packer
        .tree(&Root::open(from).unwrap(), Path::new(""), Path::new(name))
        .unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let from = tempfile::tempdir().unwrap();
    let path = from.path();
    let long = "n".repeat(255);
    let odd = OsStr::from_bytes(b"odd\xff\nname");
    fs::create_dir_all(path.join("d").join(&long).join(&long)).unwrap();
    fs::write(path.join("d").join(&long).join(&long).join("deep"), "deep").unwrap();
    fs::write(path.join(odd), "odd").unwrap();
    fs::write(path.join("empty"), "").unwrap();
    let big: Vec<u8> = (0..700_001u32).map(|n| (n / 7) as u8).collect();
    fs::write(path.join("big"), &big).unwrap();
    fs::write(path.join("script"), "#!").unwrap();
    fs::set_permissions(path.join("script"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink(format!("/{}", "t".repeat(300)), path.join("link")).unwrap();
    fs::set_permissions(path.join("d"), fs::Permissions::from_mode(0o550)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();

    let (stream, packed) = pack_tree(path, "top");
    assert_eq!(packed.skipped, [Path::new("top/fifo")]);
    assert!(packed.changed.is_empty() && packed.vanished.is_empty());
    let to = tempfile::tempdir().unwrap();
    let done = take(&stream, to.path(), &Rules::trusted(Owner::Process)).unwrap();
    assert_eq!((done.files, done.bytes), (packed.files, packed.bytes));
    let top = to.path().join("top");
    assert_eq!(fs::read(top.join("big")).unwrap(), big);
    assert_eq!(fs::read(top.join(odd)).unwrap(), b"odd");
    assert_eq!(
        fs::read(top.join("d").join(&long).join(&long).join("deep")).unwrap(),
        b"deep"
    );
    assert_eq!(
        fs::read_link(top.join("link")).unwrap(),
        fs::read_link(path.join("link")).unwrap()
    );
    for name in ["", "d", "big", "empty", "script", "link"] {
        let (was, is) = (path.join(name), top.join(name));
        let (was, is) = (was.symlink_metadata().unwrap(), is.symlink_metadata().unwrap());
        assert_eq!(
            (was.mtime(), was.mtime_nsec()),
            (is.mtime(), is.mtime_nsec()),
            "{name}"
        );
        assert_eq!(was.mode() & 0o1777, is.mode() & 0o1777, "{name}");
        assert_eq!(is.mode() & 0o6000, 0, "{name}");
    }
    // So that it can be removed.
    for dir in [path.join("d"), top.join("d")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn paths_that_lead_out_are_refused() {
    for name in [
        "../outside/file",
        "a/../../outside/file",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a//b",
        "a/",
        "./a",
        "a/./b",
    ] {
        for kind in [Type::File, Type::Directory] {
            let (_dir, result) = attacked(&[head(name, kind)]);
            assert_eq!(result.unwrap_err().kind(), Kind::BadStream, "{name}");
        }
    }
    let deep = "a/".repeat(MAX_DEPTH) + "b";
    let (_dir, result) = attacked(&[head(&deep, Type::File)]);
    assert_eq!(result.unwrap_err().kind(), Kind::BadStream);
    let (_dir, result) = attacked(&[head(&"n".repeat(256), Type::File)]);
    assert_eq!(result.unwrap_err().kind(), Kind::BadStream);
}

#[test]
fn nothing_is_written_over_a_link() {
    // Links that are there already, so that none is left out.
    for (name, target) in [("up", "../outside"), ("file", "../outside/file")] {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "mine").unwrap();
        symlink(target, inside.join(name)).unwrap();
        for replace in [false, true] {
            let rules = Rules {
                replace,
                ..Rules::hostile()
            };
            let entry = if name == "up" { "up/file" } else { "file" };
            let result = take(&forged(&[head(entry, Type::File)]), &inside, &rules);
            if name == "up" && !replace {
                assert_eq!(result.unwrap_err().kind(), Kind::Conflict);
            } else {
                result.unwrap();
                assert_eq!(fs::read(inside.join(entry)).unwrap(), b"xxx");
            }
            assert_eq!(fs::read(outside.join("file")).unwrap(), b"mine");
        }
    }
    let (_dir, result) = attacked(&[
        head("top", Type::Directory),
        link("top/a", "b"),
        head("top/a/x", Type::File),
    ]);
    assert_eq!(result.unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn links_that_lead_out_are_left_out() {
    let (dir, result) = attacked(&[
        head("top", Type::Directory),
        head("top/d", Type::Directory),
        link("top/good", "d/file"),
        link("top/d/up", "../good"),
        link("top/bad", "../outside"),
        link("top/absolute", "/etc/passwd"),
        link("top/d/tricky", "up/../../../outside"),
    ]);
    let left: Vec<_> = result.unwrap().left_out;
    assert_eq!(
        left,
        ["top/bad", "top/absolute", "top/d/tricky"].map(PathBuf::from)
    );
    let top = dir.path().join("in/top");
    assert!(top.join("good").is_symlink() && top.join("d/up").is_symlink());
    assert!(!top.join("bad").is_symlink());
}

#[test]
fn other_types_and_forged_headers_are_refused() {
    let entry = |kind: EntryType, change: fn(&mut Header)| {
        let mut bytes = Vec::new();
        head("a", Type::File).encode(&mut bytes);
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.as_old_mut().name[0] = b'a';
        header.as_old_mut().linkname[0] = b'b';
        header.set_cksum();
        change(&mut header);
        bytes.truncate(1024);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 1024]);
        compressed(&bytes)
    };
    let to = tempfile::tempdir().unwrap();
    for kind in [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::GNULongName,
        EntryType::XGlobalHeader,
        EntryType::XHeader,
    ] {
        let error = take(&entry(kind, |_| {}), to.path(), &Rules::hostile()).unwrap_err();
        assert_eq!(error.kind(), Kind::BadStream, "{kind:?}");
    }
    for change in [
        (|header| header.as_old_mut().cksum[0] = b'7') as fn(&mut Header),
        |header| header.as_old_mut().size = *b"zzzzzzzzzzzz",
        |header| {
            header.as_old_mut().size = [0xff; 12];
            header.set_cksum();
        },
        |header| {
            header.set_uid(1 << 40);
            header.set_cksum();
        },
    ] {
        let error = take(&entry(EntryType::Regular, change), to.path(), &Rules::hostile()).unwrap_err();
        assert_eq!(error.kind(), Kind::BadStream);
    }
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}

#[test]
fn a_stream_that_is_cut_or_changed_leaves_no_half_file() {
    let mut packer = Packer::new(Vec::new(), |_| Ok(()));
    let meta = Meta {
        mode: 0o600,
        mtime_ns: 0,
    };
    let noise: Vec<u8> = (0..3000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    packer.bytes(Path::new("a"), meta, &noise).unwrap();
    let (stream, _) = packer.finish().unwrap();
    for length in (0..stream.len() - 4).step_by(5) {
        let to = tempfile::tempdir().unwrap();
        let error = take(&stream[..length], to.path(), &Rules::hostile()).unwrap_err();
        assert_eq!(error.kind(), Kind::BadStream, "{length}: {error:?}");
        for left in fs::read_dir(to.path()).unwrap() {
            assert_eq!(left.unwrap().metadata().unwrap().len(), 3000);
        }
    }
    for at in (0..stream.len()).step_by(3) {
        let mut changed = stream.clone();
        changed[at] ^= 0x55;
        let to = tempfile::tempdir().unwrap();
        // It may be taken, or not: it must only not panic.
        let _ = take(&changed, to.path(), &Rules::hostile());
    }
}

#[test]
fn bombs_are_stopped() {
    let bomb = Head {
        size: 4 << 20,
        ..head("zeros", Type::File)
    };
    let to = tempfile::tempdir().unwrap();
    let rules = Rules {
        max_bytes: 1 << 20,
        max_entries: 10,
        ..Rules::hostile()
    };
    let error = take(&forged(&[bomb]), to.path(), &rules).unwrap_err();
    assert!(matches!(error, Error::TooMuch { what: "bytes", .. }), "{error:?}");
    let many: Vec<_> = (0..11).map(|n| head(&format!("{n}"), Type::Directory)).collect();
    let error = take(&forged(&many), to.path(), &rules).unwrap_err();
    assert!(matches!(error, Error::TooMuch { what: "files", .. }), "{error:?}");
    // And the one who waits can stop it.
    let stream = forged(&[head("a", Type::File)]);
    let root = Root::open(to.path()).unwrap();
    let mut stop = |_| Err(io::ErrorKind::Interrupted.into());
    let error = unpack(&stream[..], &root, &rules, &mut stop).unwrap_err();
    assert_eq!(error.kind(), Kind::Stream);
    assert!(!to.path().join("a").exists());
}

#[test]
fn another_type_is_replaced_only_where_that_is_wanted() {
    let trusted = Rules::trusted(Owner::Process);
    let replacing = Rules {
        replace: true,
        ..trusted.clone()
    };
    let cases = [
        (head("a", Type::File), "dir"),
        (link("a", "b"), "dir"),
        (head("a", Type::Directory), "file"),
        (head("a/b", Type::File), "file"),
    ];
    for (entry, there) in cases {
        let to = tempfile::tempdir().unwrap();
        let at = to.path().join("a");
        if there == "dir" {
            fs::create_dir_all(at.join("x/y")).unwrap();
            fs::write(at.join("x/z"), "z").unwrap();
        } else {
            fs::write(&at, "a").unwrap();
        }
        let stream = forged(std::slice::from_ref(&entry));
        let error = take(&stream, to.path(), &trusted).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{entry:?}");
        take(&stream, to.path(), &replacing).unwrap();
        let made = to.path().join(OsStr::from_bytes(&entry.name));
        let made = made.symlink_metadata().unwrap();
        assert_eq!(made.is_file(), entry.kind == Type::File);
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
    }
    // Files and links replace one another, and what a file is goes with it.
    let to = tempfile::tempdir().unwrap();
    fs::write(to.path().join("a"), "old").unwrap();
    take(&forged(&[link("a", "b")]), to.path(), &trusted).unwrap();
    take(&forged(&[head("a", Type::File)]), to.path(), &trusted).unwrap();
    assert_eq!(fs::read(to.path().join("a")).unwrap(), b"xxx");
    assert!(!to.path().join("b").exists());
}

#[test]
fn only_the_name_that_was_asked_for_comes() {
    let rules = Rules {
        top: Some("a".into()),
        ..Rules::hostile()
    };
    let to = tempfile::tempdir().unwrap();
    take(&forged(&[head("a", Type::File)]), to.path(), &rules).unwrap();
    let error = take(&forged(&[head(".bashrc", Type::File)]), to.path(), &rules).unwrap_err();
    assert_eq!(error.kind(), Kind::BadStream);
}

#[test]
fn files_that_change_or_vanish_meanwhile_are_told_of() {
    let from = tempfile::tempdir().unwrap();
    let file = from.path().join("a");
    fs::write(&file, vec![b'a'; 600_000]).unwrap();
    let shrinking = file.clone();
    let mut packer = Packer::new(Vec::new(), move |done| {
        if done > 0 {
            fs::File::options().write(true).open(&shrinking)?.set_len(10)?;
        }
        Ok(())
    });
    let root = Root::open(from.path()).unwrap();
    for name in ["a", "b", "none/c"] {
        packer.entry(&root, Path::new(name), Path::new(name)).unwrap();
    }
    let (stream, packed) = packer.finish().unwrap();
    assert_eq!(packed.changed, [Path::new("a")]);
    assert_eq!(packed.vanished, [Path::new("b"), Path::new("none/c")]);
    let to = tempfile::tempdir().unwrap();
    take(&stream, to.path(), &Rules::trusted(Owner::Process)).unwrap();
    assert_eq!(fs::metadata(to.path().join("a")).unwrap().len(), 600_000);
}
