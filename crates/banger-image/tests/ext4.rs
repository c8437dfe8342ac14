//! What the ext4 writer makes, judged by e2fsprogs.

mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use banger_image::ext4::{Kind, Metadata, Superblock, WriteError, Writer, unpack};
use support::{check, run, tool};

fn metadata(mode: u16) -> Metadata {
    Metadata {
        mode,
        uid: 70_000,
        gid: 5,
        mtime: 1_700_000_000,
        mtime_nanos: 5,
        xattrs: Vec::new(),
    }
}

fn image(fill: impl FnOnce(&mut Writer)) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.ext4");
    let mut writer = Writer::create(&path).unwrap();
    fill(&mut writer);
    let summary = writer.finish().unwrap();
    let read = Superblock::read(&File::open(&path).unwrap()).unwrap();
    assert_eq!(read.size(), summary.size);
    assert!(read.has_journal && !read.needs_recovery);
    (dir, path)
}

fn add(writer: &mut Writer, path: &str, kind: Kind<'_>, mode: u16) {
    writer.add(path.as_bytes(), kind, &metadata(mode)).unwrap();
}

fn add_file(writer: &mut Writer, path: &str, mut content: &[u8]) {
    let size = content.len() as u64;
    let content: &mut dyn Read = &mut content;
    add(writer, path, Kind::File { size, content }, 0o640);
}

/// Bytes that differ from block to block.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 4096 + i % 251) as u8 ^ seed).collect()
}

#[test]
fn an_empty_file_system_is_clean() {
    let (_dir, path) = image(|_| {});
    check(&path);
}

#[test]
fn every_kind_of_entry_is_clean_and_read_back() {
    let big = pattern(9 << 20, 3);
    let long = "t/".repeat(100) + "target";
    let (dir, path) = image(|writer| {
        add(writer, "/", Kind::Directory, 0o755);
        add_file(writer, "a/b/small", b"hello\n");
        add_file(writer, "a/empty", b"");
        add_file(writer, "a/big", &big);
        let target = b"small";
        add(writer, "a/b/link", Kind::Symlink { target }, 0o777);
        let target = long.as_bytes();
        add(writer, "a/b/long", Kind::Symlink { target }, 0o777);
        let target = b"a/b/small";
        add(writer, "hard", Kind::HardLink { target }, 0);
        add(writer, "dev/null", Kind::CharDevice { major: 1, minor: 3 }, 0o666);
        add(
            writer,
            "dev/nvme",
            Kind::BlockDevice {
                major: 259,
                minor: 70_000,
            },
            0o660,
        );
        add(writer, "run/fifo", Kind::Fifo, 0o600);
        add(writer, "run/socket", Kind::Socket, 0o600);
        // Replaced: its blocks are free again, and the other name stays.
        add_file(writer, "a/b/small", b"new\n");
        add_file(writer, "a/big2", &big);
        add_file(writer, "a/big2", b"short");
        add(writer, "a", Kind::Directory, 0o2750);
    });
    check(&path);
    let Some(debugfs) = tool("debugfs") else {
        return;
    };
    let ask = |request: &str| run(&debugfs, &["-R", request], &path);
    assert_eq!(ask("cat /hard"), "hello\n");
    assert_eq!(ask("cat /a/b/small"), "new\n");
    let out = dir.path().join("big");
    ask(&format!("dump /a/big {}", out.display()));
    assert!(fs::read(&out).unwrap() == big);
    for (file, words) in [
        (
            "/a",
            &["Type: directory", "Mode:  02750", "User: 70000", "Group:     5"][..],
        ),
        ("/a/b", &["Mode:  0755", "User:     0"]),
        ("/a/b/link", &["Type: symlink", "Fast link dest: \"small\""]),
        ("/a/b/long", &["Type: symlink", "Size: 206"]),
        ("/dev/null", &["Type: character special", "01:03"]),
        ("/dev/nvme", &["Type: block special", "259:70000"]),
        ("/run/fifo", &["Type: FIFO"]),
        ("/run/socket", &["Type: socket"]),
    ] {
        let text = ask(&format!("stat {file}"));
        for word in words {
            assert!(text.contains(word), "{file}: {word} not in {text}");
        }
    }
}

#[test]
fn holes_stay_holes_and_many_extents_are_kept() {
    let (dir, path) = image(|writer| {
        // 40 pieces of data between holes of 1 MiB: more extents than an inode has room for.
        let mut content = vec![0; 80 << 20];
        for i in 0..40 {
            content[i << 21] = 1 + i as u8;
        }
        add_file(writer, "sparse", &content);
    });
    check(&path);
    let taken = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap()) * 512;
    assert!(taken < 60 << 20, "{taken}");
    if let Some(debugfs) = tool("debugfs") {
        let out = dir.path().join("sparse");
        run(
            &debugfs,
            &["-R", &format!("dump /sparse {}", out.display())],
            &path,
        );
        let file = File::open(out).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 80 << 20);
        for i in 0..40u64 {
            let mut bytes = [0; 2];
            file.read_exact_at(&mut bytes, i << 21).unwrap();
            assert_eq!(bytes, [1 + i as u8, 0]);
        }
    }
}

#[test]
fn large_directories_and_many_files_are_clean() {
    let (_dir, path) = image(|writer| {
        for i in 0..12_000 {
            add_file(writer, &format!("many/a-rather-long-file-name-{i}"), b"");
        }
    });
    check(&path);
    if let Some(debugfs) = tool("debugfs") {
        let text = run(
            &debugfs,
            &["-R", "stat /many/a-rather-long-file-name-11999"],
            &path,
        );
        assert!(text.contains("Type: regular"), "{text}");
    }
}

#[test]
fn attributes_are_kept() {
    let capability = vec![1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    let (_dir, path) = image(|writer| {
        let mut small = metadata(0o755);
        small.xattrs = vec![(b"security.capability".to_vec(), capability.clone())];
        let mut large = small.clone();
        large.xattrs.push((b"user.large".to_vec(), vec![7; 3000]));
        large.xattrs.push((b"user.b".to_vec(), b"2".to_vec()));
        large.xattrs.push((b"user.a".to_vec(), b"1".to_vec()));
        writer.add(b"d", Kind::Directory, &large).unwrap();
        // Once more, with fewer: the old block is free again.
        writer.add(b"d2", Kind::Directory, &large).unwrap();
        writer.add(b"d2", Kind::Directory, &small).unwrap();
        for (name, metadata) in [("small", &small), ("large", &large)] {
            let content: &mut dyn Read = &mut &b"x"[..];
            let kind = Kind::File { size: 1, content };
            writer.add(name.as_bytes(), kind, metadata).unwrap();
        }
        let mut huge = metadata(0o644);
        huge.xattrs = vec![(b"user.huge".to_vec(), vec![0; 5000])];
        assert!(matches!(
            writer.add(b"dir", Kind::Directory, &huge),
            Err(WriteError::Attributes(_))
        ));
    });
    check(&path);
    if let Some(debugfs) = tool("debugfs") {
        for file in ["/small", "/large", "/d", "/d2"] {
            let text = run(
                &debugfs,
                &["-R", &format!("ea_get -x {file} security.capability")],
                &path,
            );
            assert!(
                text.contains("01 00 00 02 00 20 00 00 00 00 00 0a"),
                "{file}: {text}"
            );
        }
    }
}

#[test]
fn it_spans_groups_and_grows() {
    let (_dir, path) = image(|writer| {
        for i in 0..6 {
            add_file(writer, &format!("f{i}"), &pattern(50 << 20, i));
        }
    });
    check(&path);
    let Some(resize2fs) = tool("resize2fs") else {
        return;
    };
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(20 << 30)
        .unwrap();
    run(&resize2fs, &["-f"], &path);
    check(&path);
    let read = Superblock::read(&File::open(&path).unwrap()).unwrap();
    assert_eq!(read.size(), 20 << 30);
}

/// An archive with what tar programs write.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, size, mode| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_700_000_000);
        header
    };
    let long = format!("{}/file", "long-directory-name".repeat(8));
    let mut directory = header(tar::EntryType::Directory, 0, 0o755);
    archive.append_data(&mut directory, "./etc/", &b""[..]).unwrap();
    archive
        .append_pax_extensions([
            ("SCHILY.xattr.security.capability", &b"a\nb=\0"[..]),
            ("mtime", b"1700000000.25"),
        ])
        .unwrap();
    let mut file = header(tar::EntryType::Regular, 5, 0o4755);
    archive.append_data(&mut file, "etc/file", &b"hello"[..]).unwrap();
    let mut gnu = tar::Header::new_gnu();
    gnu.set_size(4);
    gnu.set_mode(0o600);
    gnu.set_uid(0);
    gnu.set_gid(0);
    gnu.set_mtime(0);
    archive.append_data(&mut gnu, &long, &b"long"[..]).unwrap();
    let mut link = header(tar::EntryType::Link, 0, 0o644);
    archive.append_link(&mut link, "etc/hard", "etc/file").unwrap();
    archive.into_inner().unwrap()
}

#[test]
fn an_archive_becomes_a_file_system() {
    let (_dir, path) = image(|writer| unpack(&archive()[..], writer, |_| Ok(())).unwrap());
    check(&path);
    let Some(debugfs) = tool("debugfs") else {
        return;
    };
    let ask = |request: &str| run(&debugfs, &["-R", request], &path);
    assert_eq!(ask("cat /etc/hard"), "hello");
    let long = format!("/{}/file", "long-directory-name".repeat(8));
    assert_eq!(ask(&format!("cat {long}")), "long");
    let text = ask("stat /etc/file");
    for word in [
        "Mode:  04755",
        "Links: 2",
        "User:  1000",
        "security.capability (5)",
    ] {
        assert!(text.contains(word), "{word} not in {text}");
    }
}

#[test]
fn damaged_archives_are_refused_without_a_panic() {
    let good = archive();
    let dir = tempfile::tempdir().unwrap();
    let mut outcomes = HashMap::new();
    let mut attempt = |archive: &[u8]| {
        let path = dir.path().join("x");
        let mut writer = Writer::create(&path).unwrap();
        let done = unpack(archive, &mut writer, |_| Ok(())).is_ok();
        *outcomes.entry(done).or_insert(0) += 1;
        drop(writer);
        fs::remove_file(path).unwrap();
        done
    };
    for len in (1..good.len() - 1024).step_by(61) {
        // At the end of an entry an archive without its own end is one, too.
        attempt(&good[..len]);
    }
    for at in (0..good.len()).step_by(5) {
        let mut bad = good.clone();
        bad[at] ^= 0x15;
        // With the sum made right again it is what the header says that counts.
        let header = &mut bad[at / 512 * 512..][..512];
        let sum: u32 = header[..148]
            .iter()
            .chain(&header[156..])
            .map(|&byte| u32::from(byte))
            .sum::<u32>()
            + 8 * 32;
        if header.iter().any(|&byte| byte != 0) {
            write!(&mut header[148..156], "{sum:06o}\0 ").unwrap();
        }
        attempt(&bad);
    }
    assert!(attempt(&good));
    assert!(outcomes[&false] > 100, "{outcomes:?}");
}

#[test]
fn what_leads_out_or_is_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    let mut refused = |path: &[u8], kind: Kind<'_>| {
        count += 1;
        let mut writer = Writer::create(&dir.path().join(count.to_string())).unwrap();
        add_file(&mut writer, "file", b"x");
        writer.add(path, kind, &metadata(0o644)).unwrap_err()
    };
    assert!(matches!(
        refused(b"../../etc/passwd", Kind::Directory),
        WriteError::BadPath { .. }
    ));
    assert!(matches!(
        refused(b"file/below", Kind::Directory),
        WriteError::NotADirectory(_)
    ));
    assert!(matches!(
        refused(b"hard", Kind::HardLink { target: b"none" }),
        WriteError::BadLink(_)
    ));
    assert!(matches!(
        refused(b"hard", Kind::HardLink { target: b"/" }),
        WriteError::BadLink(_)
    ));
    let content: &mut dyn Read = &mut std::io::repeat(0);
    let size = u64::MAX;
    assert!(matches!(
        refused(b"huge", Kind::File { size, content }),
        WriteError::TooLarge
    ));
    let content: &mut dyn Read = &mut &b"x"[..];
    let size = 2;
    assert!(matches!(
        refused(b"short", Kind::File { size, content }),
        WriteError::Truncated(_)
    ));
    assert!(matches!(refused(b"/", Kind::Fifo), WriteError::IsADirectory(_)));
}
