//! Archives of the initramfs that many boots share, kept in the cache directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use banger_bus::Error;
use banger_image::initramfs;
use banger_model::Dirs;

use super::guest_program;
use crate::core::error;
use crate::core::sources::KernelFiles;

const TEMPORARY: &str = ".tmp-";

/// The archive of a kernel's modules, made at its first boot.
pub(super) fn modules(dirs: &Dirs, kernel: &KernelFiles) -> Result<File, Error> {
    let stamp = stamp(&kernel.vmlinux)?;
    let name = format!("modules-{}-{stamp}.cpio", kernel.name);
    cached(dirs, &name, |out| match &kernel.modules {
        Some(directory) => initramfs::build_modules_archive(directory, out).map(drop),
        None => initramfs::build_empty_modules_archive(out),
    })
}

/// The archive of the guest program, made at the first boot with this program.
pub(super) fn guest(dirs: &Dirs) -> Result<File, Error> {
    let program = guest_program::find()?;
    let name = format!("guest-{}-{}.cpio", env!("CARGO_PKG_VERSION"), stamp(&program)?);
    cached(dirs, &name, |out| initramfs::build_guest_archive(&program, out))
}

/// Removes what interrupted builds left. No build may be under way.
pub(crate) fn sweep(dirs: &Dirs) {
    let Ok(entries) = std::fs::read_dir(directory(dirs)) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY.as_bytes())
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn directory(dirs: &Dirs) -> PathBuf {
    dirs.cache.join("initramfs")
}

/// Changes when the file does, and costs no reading of it.
fn stamp(path: &Path) -> Result<String, Error> {
    let file = std::fs::metadata(path).map_err(|e| error::io("read", path, &e))?;
    Ok(format!(
        "{:x}-{:x}-{:x}{:09}",
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec()
    ))
}

/// Opens an archive of the cache, which is built aside and renamed when it is not there.
fn cached(
    dirs: &Dirs,
    name: &str,
    build: impl FnOnce(&mut File) -> Result<(), initramfs::Error>,
) -> Result<File, Error> {
    let directory = directory(dirs);
    let path = directory.join(name);
    match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        result => return result.map_err(|e| error::io("open", &path, &e)),
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|e| error::io("make", &directory, &e))?;
    // Two first boots may build the same one: each its own file, and the last name wins.
    let mut random = [0; 8];
    crate::core::keys::random(&mut random)?;
    let temporary = directory.join(format!("{TEMPORARY}{:016x}", u64::from_ne_bytes(random)));
    let built = build_aside(&temporary, &path, build);
    if built.is_err() {
        // Not there when it could not be made; the error that counts is the first.
        let _ = std::fs::remove_file(&temporary);
    }
    built
}

fn build_aside(
    temporary: &Path,
    path: &Path,
    build: impl FnOnce(&mut File) -> Result<(), initramfs::Error>,
) -> Result<File, Error> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(|e| error::io("make", temporary, &e))?;
    build(&mut file).map_err(|e| match &e {
        initramfs::Error::Write(source) => error::io("write", temporary, source),
        _ => error::failed("Cannot make the initramfs", &e),
    })?;
    std::fs::rename(temporary, path).map_err(|e| error::io("make", path, &e))?;
    Ok(file)
}
