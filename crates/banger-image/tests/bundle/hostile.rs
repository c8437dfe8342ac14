//! Bundles that are not what they say: each has its error, and none leaves anything behind.

use std::io::Write;

use banger_image::bundle::{self, BundleError, Limits};
use banger_image::{Digest, Error};
use tar::EntryType;

use crate::fixture::{Machine, catalog, catalog_of, noise, write};
use crate::parts::{Parts, Raw, pack, tar};

type Expected = fn(&BundleError) -> bool;

macro_rules! is {
    ($pattern:pat $(if $guard:expr)?) => {
        |error| matches!(error, $pattern $(if $guard)?)
    };
}

/// Each row: what it is, the bundle, and the error of whoever reads it.
fn rows(parts: &Parts) -> Vec<(&'static str, Vec<u8>, Expected)> {
    let good = pack(&tar(&parts.all()));
    let mut rows = containers(parts, &good);
    rows.extend(members(parts));
    rows.extend(manifests(parts));
    rows.extend(maps(parts));
    rows
}

fn containers(parts: &Parts, good: &[u8]) -> Vec<(&'static str, Vec<u8>, Expected)> {
    let archive = tar(&parts.all());
    let middle = good.len() / 2;
    let mut flipped = good.to_vec();
    flipped[middle] ^= 0x10;
    let mut window = zstd::Encoder::new(Vec::new(), 1).unwrap();
    window.window_log(30).unwrap();
    window.write_all(&archive).unwrap();
    let zeros = vec![0; 400 << 20];
    vec![
        (
            "nothing",
            Vec::new(),
            is!(BundleError::Read(_) | BundleError::Missing(_)),
        ),
        ("no zstd", noise(5000), is!(BundleError::Read(_))),
        (
            "gzip",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(),
            is!(BundleError::Read(_)),
        ),
        ("a plain tar", archive.clone(), is!(BundleError::Read(_))),
        ("cut in half", good[..middle].to_vec(), is!(BundleError::Read(_))),
        (
            "cut at its end",
            good[..good.len() - 1].to_vec(),
            is!(BundleError::Read(_)),
        ),
        ("a flipped bit", flipped, is!(_)),
        (
            "a window of 1 GiB",
            window.finish().unwrap(),
            is!(BundleError::Read(_)),
        ),
        ("no tar in it", pack(&noise(5000)), is!(BundleError::Read(_))),
        (
            "an archive without members",
            pack(&[0; 1024]),
            is!(BundleError::Missing("manifest.json")),
        ),
        (
            "an archive cut in its data",
            pack(&archive[..archive.len() / 2]),
            is!(BundleError::Read(_)),
        ),
        (
            "a second archive after it",
            [good, good].concat(),
            is!(BundleError::Trailing),
        ),
        (
            "something after the end",
            pack(&[&archive[..], b"hidden"].concat()),
            is!(BundleError::Trailing),
        ),
        (
            "more padding than any program makes",
            pack(&[&archive[..], &vec![0; 2 << 20]].concat()),
            is!(BundleError::Trailing),
        ),
        (
            "a bomb after the end",
            pack(&[&archive[..], &zeros].concat()),
            is!(BundleError::Trailing | BundleError::Ratio(_)),
        ),
        (
            "a bomb as the file system",
            pack(&tar(&[
                Raw::file(
                    "manifest.json",
                    parts
                        .manifest()
                        .replace(&parts.size().to_string(), &zeros.len().to_string())
                        .as_bytes(),
                ),
                Raw::file("rootfs.ext4", &zeros),
            ])),
            is!(BundleError::Ratio(200)),
        ),
    ]
}

fn members(parts: &Parts) -> Vec<(&'static str, Vec<u8>, Expected)> {
    let manifest = || parts.manifest.clone();
    let named = |name: &str| parts.with(&[Raw::file(name, &parts.rootfs.content)]);
    let kind = |kind: EntryType| parts.with(&[Raw::of("rootfs.ext4", kind, b"")]);
    let mut link = Raw::of("rootfs.ext4", EntryType::Symlink, b"");
    link.header.set_link_name("/etc/passwd").unwrap();
    link.header.set_cksum();
    let mut rows: Vec<(&'static str, Vec<u8>, Expected)> = vec![
        (
            "the manifest last",
            pack(&tar(&[parts.pax.clone(), parts.rootfs.clone(), manifest()])),
            is!(BundleError::Member {
                expected: "manifest.json",
                ..
            }),
        ),
        (
            "no manifest",
            pack(&tar(&[Raw::file("rootfs.ext4", b"x")])),
            is!(BundleError::Member {
                expected: "manifest.json",
                ..
            }),
        ),
        (
            "two manifests",
            pack(&tar(&[
                manifest(),
                manifest(),
                parts.pax.clone(),
                parts.rootfs.clone(),
            ])),
            is!(BundleError::Member {
                expected: "rootfs.ext4",
                ..
            }),
        ),
        (
            "a second manifest at the end",
            parts.and(&[manifest()]),
            is!(BundleError::Trailing),
        ),
        (
            "a second file system",
            parts.and(&parts.all()[1..]),
            is!(BundleError::Trailing),
        ),
        (
            "another file",
            parts.and(&[Raw::file("run-me.sh", b"#!/bin/sh")]),
            is!(BundleError::Trailing),
        ),
        (
            "a lonely extended header",
            parts.and(std::slice::from_ref(&parts.pax)),
            is!(BundleError::Trailing),
        ),
        (
            "no file system",
            parts.with(&[]),
            is!(BundleError::Missing("rootfs.ext4")),
        ),
        (
            "a link as file system",
            parts.with(&[link]),
            is!(BundleError::NotAFile("rootfs.ext4")),
        ),
        (
            "a link as manifest",
            pack(&tar(&[Raw::of("manifest.json", EntryType::Symlink, b"")])),
            is!(BundleError::NotAFile("manifest.json")),
        ),
        (
            "a sparse manifest",
            pack(&tar(&[
                Raw::pax(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.name", "manifest.json"),
                    ("GNU.sparse.realsize", "1099511627776"),
                ]),
                Raw::file("x", b"0\n"),
            ])),
            is!(BundleError::NotAFile("manifest.json")),
        ),
        (
            "a long name of GNU tar",
            parts.with(&[
                Raw::of("././@LongLink", EntryType::GNULongName, b"rootfs.ext4\0"),
                parts.rootfs.clone(),
            ]),
            is!(BundleError::Member { .. }),
        ),
        (
            "headers for the whole archive",
            pack(&tar(&[
                Raw::of("g", EntryType::XGlobalHeader, b"12 path=/x\n\n"),
                manifest(),
            ])),
            is!(BundleError::Member { .. }),
        ),
    ];
    for name in [
        "../rootfs.ext4",
        "/rootfs.ext4",
        "x/rootfs.ext4",
        ".//rootfs.ext4",
        "rootfs.ext4/",
        "ROOTFS.EXT4",
        "\u{1b}[2J",
        "",
    ] {
        rows.push(("another name", named(name), is!(BundleError::Member { .. })));
    }
    for odd in [
        EntryType::Link,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Block,
        EntryType::GNUSparse,
        EntryType::new(b'?'),
    ] {
        rows.push((
            "another kind",
            kind(odd),
            is!(BundleError::NotAFile("rootfs.ext4")),
        ));
    }
    rows
}

fn manifests(parts: &Parts) -> Vec<(&'static str, Vec<u8>, Expected)> {
    let size = parts.size();
    let says = |value: String| parts.changed(&format!("\"size\": {size}"), &format!("\"size\": {value}"));
    vec![
        ("no JSON", parts.saying("hello"), is!(BundleError::Manifest(_))),
        ("JSON of something else", parts.saying("[1, 2]"), is!(BundleError::Manifest(_))),
        ("deep JSON", parts.saying(&"[".repeat(500_000)), is!(BundleError::Manifest(_))),
        ("an empty manifest", parts.saying(""), is!(BundleError::Manifest(_))),
        (
            "a manifest of 2 MiB",
            parts.saying(&format!("{}{}", parts.manifest(), " ".repeat(2 << 20))),
            is!(BundleError::TooLarge { member: "manifest.json", .. }),
        ),
        ("a later version", parts.changed("\"version\": 1", "\"version\": 2"), is!(BundleError::Version(2))),
        ("an unknown kind", parts.changed("\"image\"", "\"disk\""), is!(BundleError::Manifest(_))),
        ("an unknown key", parts.changed("\"origin\"", "\"run\""), is!(BundleError::Manifest(_))),
        ("a name that is a path", parts.changed("\"a\"", "\"../a\""), is!(BundleError::Manifest(_))),
        ("a bad variable", parts.changed("\"PATH\"", "\"PATH=x\""), is!(BundleError::Manifest(_))),
        ("no size", says("0".into()), is!(BundleError::Manifest(_))),
        ("a size that nothing has", says(u64::MAX.to_string()), is!(BundleError::Manifest(_))),
        ("a negative size", says("-1".into()), is!(BundleError::Manifest(_))),
        (
            "a size that is too small",
            says((size - 4096).to_string()),
            is!(BundleError::Size { member: "rootfs.ext4", .. }),
        ),
        (
            "a size that is too large",
            says((size + 1).to_string()),
            is!(BundleError::Size { member: "rootfs.ext4", .. }),
        ),
        (
            "a manifest of a kernel",
            parts.saying(r#"{"kind":"kernel","version":1,"name":"k","release":"6.1","vmlinux":1,"created":0,"origin":""}"#),
            is!(BundleError::Member { expected: "vmlinux", .. }),
        ),
    ]
}

fn maps(parts: &Parts) -> Vec<(&'static str, Vec<u8>, Expected)> {
    let size = parts.size();
    let text = size.to_string();
    let good = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "rootfs.ext4"),
        ("GNU.sparse.realsize", &text),
    ];
    let with = |at: usize, value: &'static str| {
        let mut records = good;
        records[at].1 = value;
        parts.sparse(&records)
    };
    let and = |key, value| parts.sparse(&[&good[..], &[(key, value)]].concat());
    let many: String = (0..2_000_000).map(|at| format!("{at}\n0\n")).collect();
    let long = "x".repeat(100_000);
    let cut = Raw {
        header: parts.rootfs.header.clone(),
        content: parts.rootfs.content[..parts.rootfs.content.len() / 2].to_vec(),
    };
    vec![
        (
            "overlapping pieces",
            parts.mapped("2\n0\n8\n4\n8\n", &[1; 16]),
            is!(BundleError::Map(_)),
        ),
        (
            "pieces out of order",
            parts.mapped("2\n8\n8\n0\n8\n", &[1; 16]),
            is!(BundleError::Map(_)),
        ),
        (
            "a piece outside",
            parts.mapped(&format!("1\n{size}\n8\n"), &[1; 8]),
            is!(BundleError::Map(_)),
        ),
        (
            "a piece beyond all numbers",
            parts.mapped("1\n18446744073709551615\n8\n", &[1; 8]),
            is!(BundleError::Map(_)),
        ),
        (
            "a number beyond all numbers",
            parts.mapped("1\n99999999999999999999999\n8\n", &[1; 8]),
            is!(BundleError::Map(_)),
        ),
        (
            "negative numbers",
            parts.mapped("1\n-8\n8\n", &[1; 8]),
            is!(BundleError::Map(_)),
        ),
        (
            "less data than pieces",
            parts.mapped("1\n0\n8\n", &[1; 7]),
            is!(BundleError::Map(_)),
        ),
        (
            "more data than pieces",
            parts.mapped("1\n0\n8\n", &[1; 9]),
            is!(BundleError::Map(_)),
        ),
        (
            "two million pieces",
            parts.mapped(&format!("2000000\n{many}"), &[]),
            is!(BundleError::Map(_)),
        ),
        (
            "a map without an end",
            parts.mapped(&"1".repeat(5000), &[]),
            is!(BundleError::Map(_)),
        ),
        (
            "no map",
            parts.with(&[parts.pax.clone(), Raw::file("x", b"")]),
            is!(BundleError::Map(_)),
        ),
        (
            "data that ends early",
            pack(&tar(&[parts.manifest.clone(), parts.pax.clone(), cut])),
            is!(_),
        ),
        (
            "another version of the format",
            with(0, "0"),
            is!(BundleError::Headers),
        ),
        ("another minor version", with(1, "1"), is!(BundleError::Headers)),
        (
            "another name of the sparse file",
            with(2, "../rootfs.ext4"),
            is!(BundleError::Member { .. }),
        ),
        (
            "another size of the sparse file",
            with(3, "4096"),
            is!(BundleError::Size { .. }),
        ),
        (
            "a size of 2^64",
            with(3, "18446744073709551616"),
            is!(BundleError::Headers),
        ),
        (
            "half of the headers",
            parts.sparse(&good[..2]),
            is!(BundleError::Headers),
        ),
        (
            "a path in the headers",
            and("path", "/etc/passwd"),
            is!(BundleError::Headers),
        ),
        (
            "a size in the headers",
            and("size", "1"),
            is!(BundleError::Headers),
        ),
        (
            "a link in the headers",
            and("linkpath", "/etc/passwd"),
            is!(BundleError::Headers),
        ),
        ("long headers", and("comment", &long), is!(BundleError::Headers)),
        (
            "headers that are none",
            parts.with(&[
                Raw::of("pax", EntryType::XHeader, b"99 x=\n"),
                parts.rootfs.clone(),
            ]),
            is!(BundleError::Headers),
        ),
        (
            "headers twice",
            parts.with(&[parts.pax.clone(), parts.pax.clone(), parts.rootfs.clone()]),
            is!(BundleError::NotAFile("rootfs.ext4")),
        ),
    ]
}

#[test]
fn each_has_its_error_and_leaves_nothing() {
    let parts = Parts::new();
    let target = || tempfile::tempfile().unwrap();
    let good = pack(&tar(&parts.all()));
    bundle::read(&good[..], &target(), &Limits::default(), |_| Ok(())).unwrap();
    let rows = rows(&parts);
    assert!(rows.len() >= 70, "{}", rows.len());
    let machine = Machine::new();
    for (what, bundle, expected) in rows {
        let Err(error) = bundle::read(&bundle[..], &target(), &Limits::default(), |_| Ok(())) else {
            panic!("{what} was read");
        };
        assert!(expected(&error), "{what}: {error:?}");
        assert!(error.to_string().len() < 400, "{what}: {error}");
        assert!(!error.to_string().contains('\u{1b}'), "{what}: {error}");
        // The same by a pull, whose child does the reading.
        write(&machine.path("b"), &bundle);
        let pulled = machine.pull_image(&catalog_of("image", "a", &machine.path("b")), "a");
        let Err(Error::Bundle {
            source: BundleError::Refused(text),
            ..
        }) = &pulled
        else {
            panic!("{what}: {pulled:?}");
        };
        assert!(text.starts_with(&error.to_string()), "{what}: {text}");
        assert!(machine.entries("images").is_empty(), "{what}");
    }
    assert_eq!(machine.entries("."), ["b", "images"]);
}

/// What only shows when the bundle was read: by what is asked for, and by the file system.
#[test]
fn what_is_not_asked_for_is_refused() {
    let parts = Parts::new();
    let good = pack(&tar(&parts.all()));
    let machine = Machine::new();
    let pull = |bundle: &[u8], name: &str| {
        write(&machine.path("b"), bundle);
        let pulled = machine.pull_image(&catalog_of("image", name, &machine.path("b")), name);
        assert!(machine.entries("images").is_empty());
        pulled
    };
    let other = pull(&good, "b");
    assert!(
        matches!(&other, Err(Error::Bundle { source: BundleError::Other { name, .. }, .. }) if name == "a"),
        "{other:?}"
    );
    let plain = |content: &[u8]| {
        let mut manifest: serde_json::Value = serde_json::from_str(&parts.manifest()).unwrap();
        manifest["size"] = content.len().into();
        manifest["content"] = 0.into();
        pack(&tar(&[
            Raw::file("manifest.json", manifest.to_string().as_bytes()),
            Raw::file("rootfs.ext4", content),
        ]))
    };
    for no_ext4 in [&noise(100_000)[..], &[0; 8192], b"x"] {
        let refused = pull(&plain(no_ext4), "a");
        assert!(matches!(refused, Err(Error::Superblock { .. })), "{refused:?}");
    }
    // A file that is larger than the file system in it.
    let (size, larger) = (parts.size().to_string(), (parts.size() + 4096).to_string());
    let bundle = pack(&tar(&[
        Raw::file(
            "manifest.json",
            parts.manifest().replace(&size, &larger).as_bytes(),
        ),
        Raw::pax(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "rootfs.ext4"),
            ("GNU.sparse.realsize", &larger),
        ]),
        parts.rootfs.clone(),
    ]));
    let refused = pull(&bundle, "a");
    assert!(
        matches!(&refused, Err(Error::Bundle { source: BundleError::Size { said, found, .. }, .. }) if said - found == 4096),
        "{refused:?}"
    );
}

#[test]
fn what_the_catalogue_does_not_say_is_not_even_read() {
    let machine = Machine::new();
    let file = machine.path("b");
    write(&file, b"some bytes");
    let url = format!("file://{}", file.display());
    let digest = Digest::of(b"some bytes");
    let pull = |url: &str, digest: Digest, size: u64| {
        let pulled = machine.pull_image(&catalog("image", "a", url, digest, size), "a");
        assert!(machine.entries("images").is_empty());
        pulled
    };
    for size in [0, 9, 11, u64::MAX >> 1] {
        let refused = pull(&url, digest, size);
        assert!(
            matches!(
                &refused,
                Err(Error::Bundle {
                    source: BundleError::Length { found: 10, .. },
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    let refused = pull(&url, Digest::of(b"other bytes"), 10);
    assert!(
        matches!(&refused, Err(Error::Bundle { source: BundleError::Digest { found, .. }, .. }) if *found == digest),
        "{refused:?}"
    );
    let none = pull(&format!("file://{}", machine.path("none").display()), digest, 10);
    assert!(matches!(none, Err(Error::Io { .. })), "{none:?}");
    let pipe = machine.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    assert!(matches!(
        pull(&format!("file://{}", pipe.display()), digest, 0),
        Err(Error::NotAFile(_))
    ));
    assert!(matches!(
        pull(&format!("file://{}", machine.dir.path().display()), digest, 0),
        Err(Error::NotAFile(_))
    ));
}
