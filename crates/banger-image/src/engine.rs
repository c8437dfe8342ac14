//! The program of an engine out of its release: an archive whose digest the catalogue names.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tempfile::{NamedTempFile, TempPath};

use crate::Cancel;
use crate::bundle::Verified;
use crate::catalog::EngineEntry;
use crate::error::{Error, Result};
use crate::oci::Registry;
use crate::progress::Progress;

/// The largest program of an engine, in bytes: Firecracker has some 3 MiB.
pub const MAX_PROGRAM: u64 = 64 << 20;
/// How far an archive is looked into, in bytes of its content: Firecracker's has some 60 MiB,
/// most of them debugging symbols.
const MAX_CONTENT: u64 = 1 << 30;
/// What every program begins with (elf(5)).
const ELF: &[u8] = b"\x7fELF";

/// A program beside its place. Dropped, it is gone.
#[derive(Debug)]
pub struct Unplaced {
    file: TempPath,
    place: PathBuf,
}

/// Fetches the release, verifies it and unpacks its program beside `place`, whose directory is
/// made where it is missing. Nothing of the archive is looked at before its digest was compared.
///
/// # Errors
/// [`Error::Engine`] when the release is not what it should be; what fetching says.
pub fn unpack_program(
    entry: &EngineEntry,
    place: &Path,
    registry: &Registry<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Unplaced> {
    let refused = |reason: String| Error::Engine {
        name: entry.name.to_string(),
        reason,
    };
    let archive = Verified::open(&entry.source, registry, progress, cancel)?.into_file();
    progress.stage("Unpacking the program");
    let directory = place
        .parent()
        .ok_or_else(|| refused(format!("{} is no place for it", place.display())))?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(Error::io("make", directory))?;
    let mut file = NamedTempFile::new_in(directory).map_err(Error::io("write in", directory))?;
    unpack(archive, &entry.member, file.as_file_mut()).map_err(|error| refused(error.to_string()))?;
    let finish = |file: &File| {
        file.set_permissions(Permissions::from_mode(0o755))?;
        file.sync_all()
    };
    finish(file.as_file()).map_err(Error::io("write in", directory))?;
    Ok(Unplaced {
        file: file.into_temp_path(),
        place: place.to_owned(),
    })
}

impl Unplaced {
    /// Where it can be tried.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Puts it in its place, over an older one. What runs goes on.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn place(self) -> Result<()> {
        let place = self.place;
        self.file
            .persist(&place)
            .map_err(|error| Error::io("replace", &place)(error.error))?;
        let directory = place.parent().unwrap_or(Path::new("/"));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::io("write in", directory))
    }
}

/// Copies one member of a compressed archive.
fn unpack(archive: File, member: &Path, out: &mut File) -> io::Result<()> {
    let content = MultiGzDecoder::new(io::BufReader::new(archive)).take(MAX_CONTENT);
    let mut archive = tar::Archive::new(content);
    let bad = |reason: String| Err(io::Error::other(reason));
    for found in archive.entries()? {
        let mut found = found?;
        if found.path()? != member {
            continue;
        }
        if !found.header().entry_type().is_file() {
            return bad(format!("{} in it is no file", member.display()));
        }
        if found.size() > MAX_PROGRAM {
            return bad(format!("{} in it is too large", member.display()));
        }
        let mut head = [0; ELF.len()];
        found.read_exact(&mut head)?;
        if head != ELF {
            return bad(format!("{} in it is no program", member.display()));
        }
        out.write_all(&head)?;
        io::copy(&mut found, out)?;
        return Ok(());
    }
    bad(format!("there is no {} in it", member.display()))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::catalog::Catalog;
    use crate::digest::Hasher;
    use crate::oci::{RetryPolicy, cache};
    use crate::progress::NoProgress;

    const MEMBER: &str = "release-v9.9.9-x86_64/firecracker-v9.9.9-x86_64";

    struct Host {
        home: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            Self { home }
        }

        fn place(&self) -> PathBuf {
            self.home.path().join("lib/banger/firecracker")
        }

        /// An archive in a file, and the entry for it.
        fn entry(&self, archive: &[u8]) -> EngineEntry {
            std::fs::write(self.home.path().join("release.tgz"), archive).unwrap();
            let mut hasher = Hasher::default();
            hasher.update(archive);
            let text = format!(
                "[[engine]]\nname = \"firecracker\"\nversion = \"9.9.9\"\nmember = \"{MEMBER}\"\n\
                 [engine.source]\nurl = \"file://{}/release.tgz\"\nsize = {}\nsha256 = \"{}\"\n",
                self.home.path().display(),
                archive.len(),
                hasher.finish().hex(),
            );
            let catalog = Catalog::parse(&text, "test").unwrap();
            catalog.engine("firecracker").unwrap().clone()
        }

        fn unpack(&self, entry: &EngineEntry) -> Result<Unplaced> {
            let registry = Registry {
                cache: &self.home.path().join("cache"),
                cache_bytes: cache::DEFAULT_BYTES,
                insecure: false,
                offline: true,
                retry: RetryPolicy::default(),
            };
            unpack_program(entry, &self.place(), &registry, &NoProgress, &Cancel::default())
        }
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o4777);
            tar.append_data(&mut header, name, *content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn a_program_is_unpacked_beside_its_place_and_put_there_at_once() {
        let host = Host::new();
        let entry = host.entry(&archive(&[("other", b"x"), (MEMBER, b"\x7fELF program")]));
        let unplaced = host.unpack(&entry).unwrap();
        assert!(!host.place().exists());
        // Whatever the archive says, it is a program of everybody's and of no other rights.
        let mode = unplaced.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        unplaced.place().unwrap();
        assert_eq!(std::fs::read(host.place()).unwrap(), b"\x7fELF program");
        let directory = host.place().parent().unwrap().to_owned();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        // One that is given up leaves the old one and nothing else.
        drop(host.unpack(&entry).unwrap());
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_the_release_of_the_catalogue_is_not_looked_at() {
        let host = Host::new();
        let good = archive(&[(MEMBER, b"\x7fELF program")]);
        let entry = host.entry(&good);
        let mut other = good.clone();
        *other.last_mut().unwrap() ^= 1;
        std::fs::write(host.home.path().join("release.tgz"), &other).unwrap();
        assert!(host.unpack(&entry).is_err());
        std::fs::write(host.home.path().join("release.tgz"), &good[1..]).unwrap();
        assert!(host.unpack(&entry).is_err());
        assert!(!host.place().exists());
    }

    #[test]
    fn an_archive_without_a_program_is_refused() {
        let host = Host::new();
        let mut directory = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Directory);
        directory.append_data(&mut header, MEMBER, &b""[..]).unwrap();
        let directory = directory.into_inner().unwrap().finish().unwrap();
        for (archive, word) in [
            (archive(&[("other", b"\x7fELF")]), "there is no release-v9.9.9"),
            (archive(&[(MEMBER, b"#!/bin/sh\n")]), "no program"),
            (archive(&[(MEMBER, b"\x7f")]), ""),
            (directory, "no file"),
            (b"no archive".to_vec(), ""),
        ] {
            let error = host.unpack(&host.entry(&archive)).unwrap_err();
            assert!(matches!(error, Error::Engine { .. }), "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(!host.place().exists());
    }
}
