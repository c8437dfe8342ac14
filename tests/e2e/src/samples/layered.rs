//! An image of many layers, with everything that layers can do to each other.

use serde_json::json;

use super::base;
use crate::layer::{Entry, Layer, TIME};
use crate::layout::Image;

/// vfs_cap_data of version 2 with CAP_NET_RAW, permitted and effective, as `setcap` writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Two dozen layers above a busybox.
///
/// # Errors
/// Why there is no busybox.
pub fn layered() -> Result<Image, String> {
    let mut layers = vec![base()?];
    layers.extend(whiteouts());
    layers.extend(links());
    layers.extend(types());
    layers.extend([
        owners_and_times(),
        attributes(),
        devices(),
        names(),
        sizes(),
        many_files(),
        deep(),
        duplicates(),
        // umoci takes the making of a file below for a change of `srv` itself.
        Layer::of([Entry::directory("srv").time(TIME + 1, 0)]),
        Layer::of([]),
    ]);
    Ok(Image::new(layers, json!({ "Env": ["PATH=/bin"] })))
}

fn whiteouts() -> Vec<Vec<u8>> {
    let file = |path: &str| Entry::file(path, format!("{path}, below\n")).owner(1000, 1000);
    vec![
        Layer::of([
            Entry::directory("srv/data"),
            file("srv/data/kept"),
            file("srv/data/gone"),
            file("srv/data/back"),
            Entry::directory("srv/data/tree"),
            Entry::directory("srv/data/tree/deeper"),
            file("srv/data/tree/deeper/file"),
            Entry::symlink("srv/data/link", "kept"),
            Entry::directory("srv/opaque"),
            Entry::directory("srv/opaque/sub"),
            file("srv/opaque/x"),
            file("srv/opaque/sub/y"),
            Entry::directory("srv/late"),
            file("srv/late/below"),
        ]),
        Layer::of([
            Entry::directory("srv/data"),
            Entry::whiteout("srv/data/gone"),
            Entry::whiteout("srv/data/back"),
            Entry::whiteout("srv/data/tree"),
            Entry::whiteout("srv/data/link"),
            Entry::whiteout("srv/data/never-was"),
        ]),
        Layer::of([
            Entry::file("srv/data/back", "back again\n"),
            Entry::directory("srv/opaque").mode(0o711),
            Entry::opaque("srv/opaque"),
            Entry::file("srv/opaque/z", "above\n"),
        ]),
        // The same with the whiteout behind what it must not hide.
        Layer::of([
            Entry::directory("srv/late"),
            Entry::file("srv/late/above", "above\n"),
            Entry::opaque("srv/late"),
        ]),
    ]
}

fn links() -> Vec<Vec<u8>> {
    vec![
        Layer::of([
            Entry::directory("srv/hard"),
            Entry::file("srv/hard/first", "one file\n")
                .mode(0o640)
                .owner(7, 8),
            Entry::hard("srv/hard/second", "srv/hard/first")
                .mode(0o640)
                .owner(7, 8),
            Entry::file("srv/hard/alone", "original\n"),
            Entry::symlink("srv/hard/soft", "first"),
        ]),
        // A link to a file of a layer below, and one to a link.
        Layer::of([
            Entry::hard("srv/hard/third", "srv/hard/first")
                .mode(0o640)
                .owner(7, 8),
            Entry::hard("srv/hard/also-alone", "/srv/hard/alone"),
            Entry::hard("srv/hard/soft-too", "srv/hard/soft").mode(0o777),
        ]),
        // One name goes, the file stays; one name is another file now, the others are not.
        Layer::of([
            Entry::whiteout("srv/hard/first"),
            Entry::file("srv/hard/alone", "another file\n"),
        ]),
        // Directories behind links, absolute and relative.
        Layer::of([
            Entry::directory("usr/lib"),
            Entry::symlink("lib", "usr/lib"),
            Entry::symlink("lib64", "/usr/lib"),
            Entry::file("usr/lib/there", "there\n"),
        ]),
        Layer::of([
            Entry::file("lib/through", "through a link\n"),
            Entry::file("lib64/through-absolute", "through an absolute link\n"),
        ]),
    ]
}

fn types() -> Vec<Vec<u8>> {
    vec![
        Layer::of([
            Entry::directory("srv/kind"),
            Entry::directory("srv/kind/directory-to-file"),
            Entry::file("srv/kind/directory-to-file/inside", "x"),
            Entry::file("srv/kind/file-to-directory", "x"),
            Entry::symlink("srv/kind/link-to-directory", "nowhere"),
            Entry::symlink("srv/kind/link-to-file", "/etc/passwd"),
            Entry::directory("srv/kind/directory-to-link"),
            Entry::directory("srv/kind/mode-changes").mode(0o700),
            Entry::file("srv/kind/mode-changes/kept", "kept\n"),
        ]),
        Layer::of([
            Entry::file("srv/kind/directory-to-file", "a file now\n"),
            Entry::directory("srv/kind/file-to-directory"),
            Entry::file("srv/kind/file-to-directory/inside", "y"),
            Entry::directory("srv/kind/link-to-directory"),
            Entry::file("srv/kind/link-to-directory/inside", "z"),
            Entry::file("srv/kind/link-to-file", "not passwd\n"),
            Entry::symlink("srv/kind/directory-to-link", "mode-changes"),
            Entry::directory("srv/kind/mode-changes")
                .mode(0o2750)
                .owner(0, 50),
        ]),
    ]
}

fn owners_and_times() -> Vec<u8> {
    let at = |name: &str| Entry::file(format!("srv/odd/{name}"), name);
    Layer::of([
        at("nobody").owner(65534, 65534),
        at("large-owner").owner(4_294_967_294, 4_000_000_000),
        at("large-group").owner(0, 2_097_152),
        at("setuid").mode(0o4755),
        at("setgid").mode(0o2755).owner(0, 50),
        at("no-mode").mode(0),
        at("all-modes").mode(0o7777),
        at("at-zero").time(0, 0),
        at("before-1970").time(-86_401, 0),
        at("just-before-1970").time(-1, 500_000_000),
        at("after-2038").time(4_294_967_301, 0),
        at("far-away").time(9_000_000_000, 0),
        at("fraction").time(TIME, 123_456_789),
        Entry::directory("srv/odd/sticky").mode(0o1777).owner(3, 4),
        // Last: what is made in a directory does not change when it was changed.
        Entry::directory("srv/odd").time(TIME - 5, 987_654_321),
    ])
}

fn attributes() -> Vec<u8> {
    Layer::of([
        Entry::directory("srv/attributes").xattr("user.directory", "of a directory"),
        Entry::file("srv/attributes/short", "x").xattr("user.short", "value"),
        Entry::file("srv/attributes/binary", "x").xattr("user.binary", [0, 10, 61, 255, 0]),
        Entry::file("srv/attributes/long", "x").xattr("user.long", [b'v'; 2000]),
        Entry::file("srv/attributes/several", "")
            .xattr("user.b", "2")
            .xattr("user.a", "1")
            .xattr("user.a-much-longer-name-than-the-others.with.parts", "3"),
        Entry::file("usr/bin/capable", "#!/bin/sh\n")
            .mode(0o755)
            .xattr("security.capability", CAPABILITY),
        Entry::file("srv/attributes/both", "x")
            .owner(1000, 1000)
            .xattr("security.capability", CAPABILITY)
            .xattr("user.more", [b'm'; 900]),
    ])
}

fn devices() -> Vec<u8> {
    Layer::of([
        Entry::directory("srv/devices"),
        Entry::character("srv/devices/console", 5, 1)
            .mode(0o620)
            .owner(0, 5),
        Entry::character("srv/devices/null", 1, 3).mode(0o666),
        Entry::block("srv/devices/disk", 8, 0).mode(0o660).owner(0, 6),
        Entry::block("srv/devices/many", 259, 70_000),
        Entry::fifo("srv/devices/fifo").mode(0o644).owner(1, 2),
        Entry::hard("srv/devices/null-too", "srv/devices/null"),
        Entry::character("dev/console", 5, 1),
    ])
}

fn names() -> Vec<u8> {
    let below = |name: &[u8]| [b"srv/names/".as_slice(), name].concat();
    let mut entries = vec![Entry::directory("srv/names")];
    for name in [
        b"a space".as_slice(),
        b"a\nnewline",
        b"a\ttab",
        b"back\\slash",
        b"quote\"",
        "ünïcode".as_bytes(),
        b"not \xff\xfe UTF-8",
        b"-dash",
        b" ",
        b"...",
        b".hidden",
        b".wh",
        b"wh.name",
    ] {
        entries.push(Entry::file(below(name), name));
    }
    for length in [99, 100, 101, 154, 155, 156, 200, 254, 255] {
        entries.push(Entry::file(below(&vec![b'n'; length]), length.to_string()));
    }
    entries.push(Entry::file(
        below(&[[0xff].as_slice(), &[b'r'; 200]].concat()),
        "raw and long",
    ));
    for length in [1, 58, 59, 60, 61, 99, 100, 101, 1000, 4000] {
        entries.push(Entry::symlink(
            below(format!("link-{length}").as_bytes()),
            vec![b't'; length],
        ));
    }
    Layer::of(entries)
}

fn sizes() -> Vec<u8> {
    let mut entries = vec![Entry::directory("srv/sizes")];
    for size in [
        0_usize, 1, 59, 60, 61, 127, 4095, 4096, 4097, 65_536, 1_048_575, 3_000_001,
    ] {
        let content: Vec<u8> = (0..size).map(|n| ((n * 7 + n / 251) % 256) as u8).collect();
        entries.push(Entry::file(format!("srv/sizes/{size}"), content));
    }
    // Long runs of nothing, which a file system need not store.
    let mut holes = vec![0; 2 << 20];
    holes[1_000_000] = 1;
    entries.push(Entry::file("srv/sizes/holes", holes));
    Layer::of(entries)
}

/// So many that a directory needs an index.
fn many_files() -> Vec<u8> {
    let mut entries = vec![Entry::directory("srv/many")];
    for n in 0..3000 {
        entries.push(Entry::file(format!("srv/many/file-number-{n:05}"), n.to_string()));
    }
    Layer::of(entries)
}

fn deep() -> Vec<u8> {
    let mut path = "srv/deep".to_owned();
    let mut entries = vec![Entry::directory(&path)];
    for n in 0..100 {
        path += &format!("/{n}");
        entries.push(Entry::directory(&path));
    }
    entries.push(Entry::file(path + "/bottom", "far down\n"));
    Layer::of(entries)
}

/// Of two entries with the same name the last counts.
fn duplicates() -> Vec<u8> {
    Layer::of([
        Entry::directory("srv/twice").mode(0o700),
        Entry::file("srv/twice/file", "first\n"),
        Entry::file("srv/twice/file", "second, longer\n")
            .mode(0o600)
            .owner(5, 6),
        Entry::symlink("srv/twice/link", "first"),
        Entry::symlink("srv/twice/link", "second"),
        Entry::file("./srv/twice/./dotted", "one dot\n"),
        Entry::directory("srv/twice").mode(0o750),
    ])
}
