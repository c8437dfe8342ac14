//! Bundles that are written and read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use super::*;
use crate::{Cancel, Error, NoProgress};

const MIB: u64 = 1 << 20;

fn image(size: u64) -> Manifest {
    Manifest::parse(
        format!(r#"{{"kind":"image","version":1,"name":"a:1","size":{size},"content":1,"created":5,"origin":"here"}}"#)
            .as_bytes(),
    )
    .unwrap()
}

/// 64 MiB with some data; it ends in a hole.
fn sparse(dir: &Path) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join("sparse"))
        .unwrap();
    file.set_len(64 * MIB).unwrap();
    for (at, byte, len) in [(1024, 1, 5000), (MIB, 2, 300_000), (40 * MIB + 7, 3, 9)] {
        file.write_all_at(&vec![byte; len], at).unwrap();
    }
    file
}

fn bundle(rootfs: &File, size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let content = Content::Image { rootfs, size };
    write(&image(size), content, &mut out, |_| Ok(())).unwrap();
    out
}

fn unpacked(bundle: &[u8], limits: &Limits) -> Result<(Manifest, File), BundleError> {
    let target = tempfile::tempfile().unwrap();
    let manifest = read(bundle, &target, limits, |_| Ok(()))?;
    Ok((manifest, target))
}

fn same(a: &File, b: &File) {
    let len = a.metadata().unwrap().len();
    assert_eq!(b.metadata().unwrap().len(), len);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..len).step_by(1 << 20) {
        let piece = (len - at).min(MIB) as usize;
        a.read_exact_at(&mut left[..piece], at).unwrap();
        b.read_exact_at(&mut right[..piece], at).unwrap();
        assert!(left[..piece] == right[..piece], "at {at}");
    }
}

#[test]
fn a_file_system_comes_back_with_its_holes() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = sparse(dir.path());
    let bundle = bundle(&rootfs, 64 * MIB);
    assert!(bundle.len() < 2000, "{}", bundle.len());
    let (manifest, target) = unpacked(&bundle, &Limits::default()).unwrap();
    assert_eq!(manifest, image(64 * MIB));
    same(&rootfs, &target);
    assert!(target.metadata().unwrap().blocks() * 512 < MIB);
}

#[test]
fn a_bundle_is_looked_at_by_its_content_too() {
    let full = tempfile::tempfile().unwrap();
    for at in 0..60 {
        full.write_all_at(&vec![1; MIB as usize], at * MIB).unwrap();
    }
    let bundle = bundle(&full, 60 * MIB);
    assert!(bundle.len() < 100_000, "{}", bundle.len());
    let mut looks = 0;
    let target = tempfile::tempfile().unwrap();
    read(&bundle[..], &target, &Limits::default(), |_| {
        looks += 1;
        Ok(())
    })
    .unwrap();
    assert!(looks >= 3, "{looks}");
}

#[test]
fn the_same_content_gives_the_same_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = sparse(dir.path());
    let full = tempfile::tempfile().unwrap();
    io::copy(&mut &rootfs, &mut &full).unwrap();
    assert_eq!(full.metadata().unwrap().len(), 64 * MIB);
    assert!(bundle(&rootfs, 64 * MIB) == bundle(&full, 64 * MIB));
}

#[test]
fn a_whole_disk_of_zeros_costs_nothing() {
    let rootfs = tempfile::tempfile().unwrap();
    rootfs.set_len(1 << 40).unwrap();
    let bundle = bundle(&rootfs, 1 << 40);
    assert!(bundle.len() < 1000, "{}", bundle.len());
    let (_, target) = unpacked(&bundle, &Limits::default()).unwrap();
    assert_eq!(target.metadata().unwrap().len(), 1 << 40);
    assert_eq!(target.metadata().unwrap().blocks(), 0);
}

/// What GNU tar makes of a bundle is what we make of it, and the other way round.
#[test]
fn gnu_tar_reads_and_writes_bundles() {
    let tar = |args: &[&str], dir: &Path| {
        let output = Command::new("tar").args(args).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    if Command::new("zstd").arg("--version").output().is_err() {
        println!("skipped: no zstd");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let rootfs = sparse(dir.path());
    let file = dir.path().join("a.tar.zst");
    fs::write(&file, bundle(&rootfs, 64 * MIB)).unwrap();
    assert_eq!(
        tar(&["--zstd", "-tf", "a.tar.zst"], dir.path()),
        "manifest.json\nrootfs.ext4\n"
    );
    let theirs = dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    tar(&["--zstd", "-xf", "../a.tar.zst"], &theirs);
    let json = fs::read(theirs.join("manifest.json")).unwrap();
    assert_eq!(Manifest::parse(&json).unwrap(), image(64 * MIB));
    let unpacked_by_tar = File::open(theirs.join("rootfs.ext4")).unwrap();
    same(&rootfs, &unpacked_by_tar);
    assert!(unpacked_by_tar.metadata().unwrap().blocks() * 512 < MIB);
    for form in [
        &["--sparse", "--format=posix"][..],
        &["--format=gnu"],
        &["--format=ustar"],
    ] {
        let args = ["--zstd", "-cf", "b.tar.zst", "./manifest.json", "rootfs.ext4"];
        tar(&[form, &args].concat(), &theirs);
        let theirs = fs::read(theirs.join("b.tar.zst")).unwrap();
        let (manifest, target) = unpacked(
            &theirs,
            &Limits {
                ratio: 1 << 20,
                ..Limits::default()
            },
        )
        .unwrap();
        assert_eq!(manifest, image(64 * MIB));
        same(&rootfs, &target);
    }
}

#[test]
fn a_reader_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = sparse(dir.path());
    let bundle = bundle(&rootfs, 64 * MIB);
    let target = tempfile::tempfile().unwrap();
    let stopped = read(&bundle[..], &target, &Limits::default(), |_| {
        Err(io::Error::other("stop"))
    });
    assert!(matches!(stopped, Err(BundleError::Read(error)) if error.to_string() == "stop"));
    let content = Content::Image {
        rootfs: &rootfs,
        size: 64 * MIB,
    };
    let stopped = write(&image(64 * MIB), content, io::sink(), |_| {
        Err(io::Error::other("stop"))
    });
    assert!(matches!(stopped, Err(BundleError::Read(_))));
}

#[test]
fn what_nobody_would_read_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = tempfile::tempfile().unwrap();
    for at in 0..80 {
        rootfs.write_all_at(&[7; 1 << 20], at << 20).unwrap();
    }
    let content = Content::Image {
        rootfs: &rootfs,
        size: 80 * MIB,
    };
    let target = dir.path().join("x");
    let written = export(
        &image(80 * MIB),
        content,
        &target,
        false,
        &NoProgress,
        &Cancel::new(),
    );
    assert!(
        matches!(
            written,
            Err(Error::Bundle {
                source: BundleError::Ratio(200),
                ..
            })
        ),
        "{written:?}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
