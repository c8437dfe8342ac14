//! Archives of GNU tar in all its forms, read as GNU tar reads them.

mod support;

use std::fs::{self, File, Permissions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use banger_image::ext4::{Seed, WriteError, Writer, apply_layer, unpack};
use support::layer::{Head, Layer};
use support::listing::{Listing, of_directory};
use support::{check, reader, run, tool, writer};

/// A tree with most of what a user who is not root can make.
fn make_tree(root: &Path) {
    let long = root
        .join("directory-with-a-long-name-".repeat(4))
        .join("another-".repeat(12));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("file"), "long").unwrap();
    fs::write(root.join("small"), "small\n").unwrap();
    fs::write(root.join("large"), vec![7; 3_000_001]).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::hard_link(root.join("small"), root.join("z-hard")).unwrap();
    symlink("small", root.join("link")).unwrap();
    symlink("t/".repeat(90), root.join("long-link")).unwrap();
    fs::set_permissions(root.join("small"), Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(&long, Permissions::from_mode(0o2700)).unwrap();
    sparse_file(&root.join("sparse"));
}

/// Data at odd places, more of it than a header has room for, and a hole at the end.
fn sparse_file(path: &Path) {
    let file = File::create(path).unwrap();
    for i in 0..40 {
        file.write_all_at(&[i as u8 + 1; 5000], i * 300_000 + 7).unwrap();
    }
    file.set_len(20_000_000).unwrap();
}

fn image(archive: &mut dyn Read) -> (Listing, u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.ext4");
    let mut writer = writer(&path);
    unpack(archive, &mut writer, |_| Ok(())).unwrap();
    let summary = writer.finish().unwrap();
    check(&path);
    (reader::list(&path), summary.content)
}

#[test]
fn every_form_of_gnu_tar_is_read() {
    let Some(tar) = tool("tar") else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    make_tree(&root);
    let root_only = |listing: &mut Listing| {
        for node in listing.values_mut() {
            // Only POSIX's form has parts of seconds.
            node.mtime = node.mtime.map(|(seconds, _)| (seconds, 0));
        }
    };
    let mut theirs = of_directory(&root);
    root_only(&mut theirs);
    let archive = dir.path().join("x.tar");
    for options in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        let status = Command::new(&tar)
            .args(["--create", "--hole-detection=raw", "--directory"])
            .arg(&root)
            .arg(format!("--file={}", archive.display()))
            .args(options)
            .arg(".")
            .status()
            .unwrap();
        assert!(status.success());
        let (mut ours, _) = image(&mut File::open(&archive).unwrap());
        root_only(&mut ours);
        assert!(ours.keys().eq(theirs.keys()), "{options:?}");
        for (path, node) in &ours {
            assert_eq!(*node, theirs[path], "{options:?}: {}", path.escape_ascii());
        }
    }
}

#[test]
fn attributes_are_read_as_gnu_tar_writes_them() {
    let Some(tar) = tool("tar") else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let file = root.join("file");
    fs::write(&file, "x").unwrap();
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty()).is_ok()
    };
    if !set("user.plain", b"a\nb=\0c") || !set("user.empty", b"") {
        support::skip("no attributes on this file system");
        return;
    }
    let archive = dir.path().join("x.tar");
    let options = [
        "--create",
        "--xattrs",
        "--directory",
        root.to_str().unwrap(),
        ".",
        "--file",
    ];
    run(&tar, &options, &archive);
    let (ours, _) = image(&mut File::open(&archive).unwrap());
    assert_eq!(
        ours[&b"file"[..]].xattrs,
        of_directory(&root)[&b"file"[..]].xattrs
    );
}

#[test]
fn holes_take_no_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.ext4");
    let mut writer = writer(&path);
    let before = writer.written();
    // 30 GiB with one byte at the end.
    let size = (30u64 << 30).to_string();
    let map = format!("{},1", (30u64 << 30) - 1);
    let records: [(&str, &[u8]); 3] = [
        ("GNU.sparse.size", size.as_bytes()),
        ("GNU.sparse.numblocks", b"1"),
        ("GNU.sparse.map", map.as_bytes()),
    ];
    let layer = Layer::new().pax(&records).file("f", "x").end();
    apply_layer(&layer[..], &mut writer, |_| Ok(())).unwrap();
    assert_eq!(writer.written() - before, 4096);
    writer.finish().unwrap();
    check(&path);
}

#[test]
fn many_parts_make_a_tree_of_extents() {
    let count = 20_000;
    let mut records = Vec::new();
    let map: Vec<String> = (0..count).map(|i| format!("{},1", i * 8192 + 5)).collect();
    let (size, numbers, map) = ((count * 8192).to_string(), count.to_string(), map.join(","));
    records.push(("GNU.sparse.size", size.as_bytes()));
    records.push(("GNU.sparse.numblocks", numbers.as_bytes()));
    records.push(("GNU.sparse.map", map.as_bytes()));
    let content: Vec<u8> = (0..count).map(|i| i as u8).collect();
    let layer = Layer::new().pax(&records).file("f", &content).end();
    let (ours, _) = image(&mut &layer[..]);
    let mut whole = vec![0; count * 8192];
    for (i, byte) in content.iter().enumerate() {
        whole[i * 8192 + 5] = *byte;
    }
    let node = &ours[&b"f"[..]];
    assert_eq!(node.size, whole.len() as u64);
    assert_eq!(node.content, support::listing::digest(&whole));
}

#[test]
fn a_file_of_more_than_8_gib_is_read() {
    let size = (8u64 << 30) + 5;
    for layer in [
        Layer::new()
            .pax(&[("size", size.to_string().as_bytes())])
            .raw(&Head::new(b'0', "large").bytes(), ""),
        Layer::new().raw(
            &Head::new(b'0', "large")
                .patch(124, [&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat())
                .bytes(),
            "",
        ),
    ] {
        let rest = Layer::new().raw(b"12345", "").file("next", "n").end();
        let content = io::repeat(0).take(8 << 30);
        let archive = Cursor::new(layer.0).chain(content).chain(Cursor::new(rest));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ext4");
        let mut writer = writer(&path);
        unpack(archive, &mut writer, |_| Ok(())).unwrap();
        assert_eq!(writer.finish().unwrap().content, size + 1);
        check(&path);
        let Some(debugfs) = tool("debugfs") else { return };
        let text = run(&debugfs, &["-R", "stat /large"], &path);
        assert!(text.contains(&format!("Size: {size}")), "{text}");
        assert_eq!(run(&debugfs, &["-R", "cat /next"], &path), "n");
    }
}

#[test]
fn two_runs_give_the_same_bytes() {
    let archive = Layer::new()
        .dir("d")
        .file("d/a", vec![1; 100_000])
        .pax(&[("SCHILY.xattr.user.a", &[b'x'; 500])])
        .file("d/b", "b")
        .hard("c", "d/a")
        .end();
    let over = Layer::new().file("d/a", "new").file("d/.wh.b", "").end();
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = dir.path().join(name);
        support::build(&path, &[archive.clone(), over.clone()]).unwrap();
        check(&path);
        fs::read(path).unwrap()
    };
    assert!(make("a") == make("b"));
}

#[test]
fn any_time_of_the_seed_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    for time in [i64::MIN, -1, 0, 4_100_000_000, 5_000_000_000, i64::MAX] {
        let path = dir.path().join(time.to_string());
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let seed = Seed::from_digest(&[1; 32], time);
        Writer::new(file.unwrap(), seed).unwrap().finish().unwrap();
        check(&path);
    }
}

#[test]
fn a_file_with_content_is_not_written() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"x").unwrap();
    let error = Writer::new(file, Seed::from_digest(&[1; 32], 0)).unwrap_err();
    assert!(matches!(error, WriteError::NotEmpty));
}

#[test]
fn what_was_removed_is_not_in_the_image() {
    let secret = b"a secret that a later layer removes; ".repeat(4000);
    let layers = [
        Layer::new()
            .file("a", "1")
            .file("secret", &secret)
            .file("b", "2")
            .end(),
        Layer::new()
            .file(".wh.secret", "")
            .file("c", &secret[..100])
            .end(),
        // The last blocks of all.
        Layer::new().file("other", &secret).end(),
        Layer::new().file("other", "").file("c", "").end(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.ext4");
    support::build(&path, &layers).unwrap();
    check(&path);
    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(20).any(|window| window == &secret[..20]));
}

#[test]
fn a_reader_that_fails_is_named() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let archive = Layer::new().file("a", "12345").0;
    for cut in [0, 100, 514] {
        let mut writer = writer(&dir.path().join(cut.to_string()));
        let broken = archive[..cut].chain(Failing);
        let error = apply_layer(broken, &mut writer, |_| Ok(())).unwrap_err();
        assert!(matches!(error, WriteError::Read(_)), "{cut}: {error}");
    }
}
