//! The owner's configuration as a file: read whole, replaced whole, or left alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::block::Made;
use crate::error::{Error, Result};

/// What was read, and where it goes back.
pub(super) struct ConfigFile {
    /// As the owner names it.
    path: PathBuf,
    /// Where symbolic links lead.
    target: PathBuf,
    /// `None` when there is no such file.
    there: Option<There>,
}

struct There {
    bytes: Vec<u8>,
    mode: u32,
}

/// No configuration is larger.
const MAX_BYTES: u64 = 1 << 20;

impl ConfigFile {
    /// Reads the file, and refuses what could not be put back as it was.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if path.symlink_metadata().is_ok() {
                    return Err(refused(path, "it is a symbolic link to a file that is not there"));
                }
                return Ok(Self {
                    path: path.to_owned(),
                    target: path.to_owned(),
                    there: None,
                });
            }
            Err(e) => return Err(Error::io(format!("Cannot read {path:?}"), e)),
        };
        let there = read(&target).map_err(|e| Error::io(format!("Cannot read {target:?}"), e))?;
        let there = there.map_err(|problem| refused(&target, problem))?;
        Ok(Self {
            path: path.to_owned(),
            target,
            there: Some(there),
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.there.as_ref().map_or(&[], |there| &there.bytes)
    }

    /// What [`Self::write`] makes that is not there.
    pub(super) fn would_make(&self) -> Made {
        match &self.there {
            Some(_) => Made::Nothing,
            None if self.directory().exists() => Made::File,
            None => Made::Directory,
        }
    }

    /// Replaces the file, whose mode stays; a new one is the owner's alone.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        let directory = self.directory();
        if !directory.exists() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|e| Error::io(format!("Cannot make {directory:?}"), e))?;
        }
        let mode = self.there.as_ref().map_or(0o600, |there| there.mode);
        let temporary = directory.join(format!(".config.banger-{}", std::process::id()));
        let written = write_new(&temporary, bytes, mode)
            .map_err(|e| Error::io(format!("Cannot write {temporary:?}"), e))
            .and_then(|()| self.put_in_place(&temporary));
        if written.is_err() {
            // It may never have been made.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the file, and its directory where nothing else has come into it.
    pub(super) fn remove(&self, directory: bool) -> Result<()> {
        self.unchanged()?;
        fs::remove_file(&self.path).map_err(|e| Error::io(format!("Cannot remove {:?}", self.path), e))?;
        if directory {
            let _ = fs::remove_dir(self.directory());
        }
        Ok(())
    }

    pub(super) fn refuse(&self, problem: &str) -> Error {
        refused(&self.target, problem)
    }

    fn directory(&self) -> &Path {
        self.target.parent().unwrap_or(Path::new("/"))
    }

    fn put_in_place(&self, temporary: &Path) -> Result<()> {
        self.unchanged()?;
        fs::rename(temporary, &self.target)
            .map_err(|e| Error::io(format!("Cannot replace {:?}", self.target), e))
    }

    /// An editor may have saved meanwhile: what it wrote is worth more.
    fn unchanged(&self) -> Result<()> {
        let now = Self::read(&self.path)?;
        if now.target == self.target
            && now.there.map(|there| there.bytes) == self.there.as_ref().map(|there| there.bytes.clone())
        {
            return Ok(());
        }
        Err(refused(&self.target, "somebody has changed it just now"))
    }
}

/// Makes a file of banger's own.
pub(super) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_new(path, bytes, 0o600)
}

fn read(target: &Path) -> io::Result<std::result::Result<There, &'static str>> {
    let metadata = fs::metadata(target)?;
    if !metadata.is_file() {
        return Ok(Err("it is no regular file"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Ok(Err("it is another user's"));
    }
    if metadata.nlink() > 1 {
        return Ok(Err(
            "it has another name too (a hard link), which a new file would not have",
        ));
    }
    let mut bytes = Vec::new();
    File::open(target)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Ok(Err("it is larger than 1 MiB"));
    }
    Ok(Ok(There {
        bytes,
        mode: metadata.mode() & 0o7777,
    }))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn refused(path: &Path, problem: &str) -> Error {
    Error::refused(
        format!("Will not change {path:?}: {problem}"),
        "Put that right, and try again",
    )
}
