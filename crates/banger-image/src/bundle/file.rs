//! A bundle becomes a file: written aside, hashed on the way, then given its name.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{BundleError, Content, Limits, Manifest, PIECE};
use crate::Cancel;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::PREFIX;

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    pub file: PathBuf,
    pub digest: Digest,
    /// Bytes of the file.
    pub bytes: u64,
}

/// The name of a bundle by its content.
pub(crate) fn file_name(digest: &Digest) -> String {
    format!("{}.tar.zst", digest.hex())
}

/// A whole bundle that has no name yet. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Draft {
    file: tempfile::NamedTempFile,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

impl Draft {
    /// Writes a bundle in a directory, which must be there.
    ///
    /// # Errors
    /// [`Error::Bundle`] with `name`, [`Error::NoSpace`], [`Error::Cancelled`].
    pub(crate) fn write(
        directory: &Path,
        manifest: &Manifest,
        content: Content<'_>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Self> {
        progress.stage("Compressing");
        let failed = |source| Error::io("write in", directory)(source);
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            // For whoever serves it; the umask takes away what it should not have.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(failed)?;
        let mut out = BufWriter::with_capacity(PIECE, Hashed::new(file.as_file()));
        let check = |done: f64| {
            progress.fraction(done);
            cancel.check().map_err(io::Error::other)
        };
        let refused = |source| Error::Bundle {
            origin: manifest.name().to_owned(),
            source,
        };
        let unpacked = match super::write(manifest, content, &mut out, check) {
            Ok(unpacked) => unpacked,
            Err(_) if cancel.is_cancelled() => return Err(Error::Cancelled),
            Err(BundleError::Write(source)) => return Err(failed(source)),
            Err(source) => return Err(refused(source)),
        };
        let hashed = out.into_inner().map_err(|error| failed(error.into_error()))?;
        let (digest, bytes) = hashed.finish();
        // Nobody would take it.
        Limits::default().check(unpacked, bytes).map_err(refused)?;
        file.as_file().sync_all().map_err(failed)?;
        Ok(Self { file, digest, bytes })
    }

    /// Gives the bundle its name.
    ///
    /// # Errors
    /// [`Error::Replaceable`] unless `replace`.
    pub(crate) fn name(self, target: &Path, replace: bool) -> Result<Exported> {
        let named = if replace {
            self.file.persist(target)
        } else {
            self.file.persist_noclobber(target)
        };
        match named {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Replaceable {
                    what: "File",
                    name: target.display().to_string(),
                });
            }
            Err(error) => return Err(Error::io("make", target)(error.error)),
        }
        sync_parent(target)?;
        Ok(Exported {
            file: target.to_owned(),
            digest: self.digest,
            bytes: self.bytes,
        })
    }
}

/// Writes a bundle as `file`, or in the directory `file` under its content's name.
///
/// # Errors
/// [`Error::Replaceable`] unless `force`, and what [`Draft::write`] says.
pub(crate) fn export(
    manifest: &Manifest,
    content: Content<'_>,
    file: &Path,
    force: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    if file.is_dir() {
        let draft = Draft::write(file, manifest, content, progress, cancel)?;
        let target = file.join(file_name(&draft.digest));
        // One of that name has the same content.
        return draft.name(&target, true);
    }
    // Before the work, not only after it.
    if !force && fs::symlink_metadata(file).is_ok() {
        return Err(Error::Replaceable {
            what: "File",
            name: file.display().to_string(),
        });
    }
    Draft::write(parent(file), manifest, content, progress, cancel)?.name(file, force)
}

/// Makes a change of a file's name durable.
pub(crate) fn sync_parent(file: &Path) -> Result<()> {
    let parent = parent(file);
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("write out", parent))
}

/// The directory of a file, whose path may be its name alone.
pub(crate) fn parent(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Hashes what is written.
struct Hashed<W> {
    out: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hasher: Hasher::default(),
            bytes: 0,
        }
    }

    fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
