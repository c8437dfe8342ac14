//! Layers for tests.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use flate2::write::GzEncoder;

use crate::ext4::Seed;

pub(crate) fn seed() -> Seed {
    Seed::from_digest(&[7; 32], 1_700_000_000)
}

/// An archive of files, and of directories where a name ends with a slash.
pub(crate) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The header of an empty file.
pub(crate) fn header(name: &str, mtime: u32) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime.into());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    *header.as_bytes()
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).unwrap()
}

/// Asks e2fsck, where it is installed.
pub(crate) fn check_file_system(target: &File) {
    use std::os::fd::AsRawFd;
    let program = Path::new("/sbin/e2fsck");
    if !program
        .metadata()
        .is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
    {
        println!("skipped: no e2fsck");
        return;
    }
    let path = format!("/proc/{}/fd/{}", std::process::id(), target.as_raw_fd());
    let output = Command::new(program).args(["-fn", &path]).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
