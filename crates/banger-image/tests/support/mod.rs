//! What the tests of file systems share. Each test file uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod layer;
pub mod listing;
pub mod random;
pub mod reader;
pub mod umoci;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_image::ext4::{Seed, Superblock, WriteError, Writer, apply_layer};

/// The time of every file system of the tests: what no entry describes has it.
pub const TIME: i64 = 1_600_000_000;

/// A program of the system, or a skip.
pub fn tool(name: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("no {name}"));
    }
    found
}

/// Says that a test is skipped, unless that must not be.
#[expect(clippy::print_stdout, reason = "how a test says that it was skipped")]
pub fn skip(why: &str) {
    let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|rung| rung == "image"),
        "required: {why}"
    );
    println!("skipped: {why}");
}

pub fn run(program: &Path, arguments: &[&str], last: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(last).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {text}{errors}");
    text
}

/// Has a file system checked by e2fsprogs.
pub fn check(image: &Path) {
    if let Some(e2fsck) = tool("e2fsck") {
        let text = run(&e2fsck, &["-fn"], image);
        assert!(!text.contains('?'), "{text}");
    }
}

/// A writer in a new file, with the same seed for all.
pub fn writer(path: &Path) -> Writer {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    Writer::new(file, Seed::from_digest(&[0x5a; 32], TIME)).unwrap()
}

/// Makes a file system of layers.
pub fn build(path: &Path, layers: &[Vec<u8>]) -> Result<(), WriteError> {
    let mut writer = writer(path);
    for layer in layers {
        writer.begin_layer();
        apply_layer(&layer[..], &mut writer, |_| Ok(()))?;
    }
    let summary = writer.finish()?;
    let read = Superblock::read(&File::open(path).unwrap()).unwrap();
    assert_eq!(read.size(), summary.size);
    Ok(())
}

/// Makes a file system of layers that are good, checks it, and lists it.
pub fn listed(layers: &[Vec<u8>]) -> listing::Listing {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.ext4");
    build(&path, layers).unwrap_or_else(|error| panic!("{error}"));
    check(&path);
    reader::list(&path)
}
