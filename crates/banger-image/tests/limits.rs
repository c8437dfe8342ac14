//! Floods of entries: they end at a limit, or take time and memory in proportion.

mod support;

use std::io::{self, Read};

use banger_image::ext4::{Kind, Metadata, WriteError, apply_layer, limits};
use support::layer::Head;
use support::{check, writer};

/// An archive whose headers are made while it is read.
struct Flood<F> {
    make: F,
    next: u32,
    count: u32,
    block: Vec<u8>,
}

impl<F: FnMut(u32) -> Head> Read for Flood<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() && self.next < self.count {
            self.block = (self.make)(self.next).bytes().to_vec();
            self.next += 1;
        }
        let len = self.block.len().min(into.len());
        into[..len].copy_from_slice(&self.block[..len]);
        self.block.drain(..len);
        Ok(len)
    }
}

fn flood(count: u32, make: impl FnMut(u32) -> Head) -> impl Read {
    Flood {
        make,
        next: 0,
        count,
        block: Vec::new(),
    }
}

fn file(name: &str) -> Head {
    Head::new(b'0', name)
}

/// Bytes that this process had in memory at most.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// With a walk over the directory for each of these it would be hours.
#[test]
fn many_names_and_many_whiteouts_take_linear_time() {
    const NAMES: u32 = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let mut writer = writer(&path);
    let names = || flood(NAMES, |i| file(&format!("d/name-{i}")));
    writer.begin_layer();
    apply_layer(names(), &mut writer, |_| Ok(())).unwrap();
    writer.begin_layer();
    // The upper layer's own names stay, however often the lower ones are hidden.
    let own = flood(NAMES, |i| match i % 3 {
        0 => file(&format!("d/own-{i}")),
        1 => file("d/.wh..wh..opq"),
        _ => file(".wh.d"),
    });
    apply_layer(own, &mut writer, |_| Ok(())).unwrap();
    writer.begin_layer();
    let hide = flood(NAMES, |i| file(&format!("d/.wh.own-{i}")));
    apply_layer(hide, &mut writer, |_| Ok(())).unwrap();
    writer.begin_layer();
    apply_layer(names(), &mut writer, |_| Ok(())).unwrap();
    let summary = writer.finish().unwrap();
    assert_eq!(summary.files, NAMES + 1);
    check(&path);
    assert!(peak() < 200 << 20);
}

#[test]
fn directories_without_entries_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(&dir.path().join("x"));
    let way = "a/".repeat(40);
    let deep = flood(u32::MAX, |i| Head::new(b'5', format!("{i:08}/{way}b")));
    let error = apply_layer(deep, &mut writer, |_| Ok(())).unwrap_err();
    assert!(matches!(error, WriteError::TooManyFiles), "{error}");
    assert!(peak() < 200 << 20);
}

#[test]
fn names_and_targets_are_bounded_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(&dir.path().join("x"));
    let target = vec![b't'; limits::MAX_TARGET];
    let mut count = 0;
    let error = loop {
        let kind = Kind::Symlink { target: &target };
        match writer.add(format!("{count}").as_bytes(), kind, &Metadata::default()) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::TooDetailed), "{error}");
    assert!(count > 16_000 && peak() < 200 << 20, "{count}");
}

#[test]
fn hard_links_end_where_the_format_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let mut writer = writer(&path);
    let links = |from: u32, count: u32| {
        flood(count, move |i| match from + i {
            0 => file("f"),
            n => Head::new(b'1', format!("l{n}")).link("f"),
        })
    };
    apply_layer(links(0, limits::MAX_HARD_LINKS), &mut writer, |_| Ok(())).unwrap();
    let error = apply_layer(links(limits::MAX_HARD_LINKS, 1), &mut writer, |_| Ok(())).unwrap_err();
    assert!(matches!(error, WriteError::TooManyLinks), "{error}");
}
