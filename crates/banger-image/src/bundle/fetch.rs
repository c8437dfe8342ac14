//! A bundle is found, and is what the catalogue says before anybody looks into it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::{BundleError, Manifest, PIECE};
use crate::Cancel;
use crate::catalog::{BundleSource, Target};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::oci::Registry;
use crate::progress::Progress;
use crate::unpack::{UnpackError, Unpacker};

/// A bundle whose size and digest were compared.
#[derive(Debug)]
pub(crate) struct Verified {
    /// At its start.
    file: File,
    pub(crate) url: String,
    pub(crate) sha256: Digest,
    size: u64,
    /// When it last changed: a file of somebody else's may change after it was looked at.
    changed: Option<Stamp>,
}

/// What no change of a file leaves as it was.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Verified {
    /// Opens a file, or fetches what is in the web. A file stays where it is.
    ///
    /// # Errors
    /// [`Error::Bundle`] when it is not what the catalogue says; what the registry's client
    /// says.
    pub(crate) fn open(
        source: &BundleSource,
        registry: &Registry<'_>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Self> {
        let (file, changed) = match source.url.target() {
            Target::File(path) => {
                progress.stage("Checking the bundle");
                let (file, stamp) = open(path, source, progress, cancel)?;
                (file, Some(stamp))
            }
            Target::Web(url) => {
                progress.stage("Downloading the bundle");
                let file = registry.download(url, &source.sha256, source.size, progress, cancel)?;
                (file, None)
            }
        };
        Ok(Self {
            file,
            url: source.url.to_string(),
            sha256: source.sha256,
            size: source.size,
            changed,
        })
    }

    /// The file itself, at its start, for who is to read something else than a bundle of ours.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Unpacks it into an empty file, as [`super::read`] does, in a process that is confined.
    ///
    /// # Errors
    /// [`Error::Bundle`] when it is not as it should be, or somebody wrote to the file after it
    /// was compared; what the unpacker says.
    pub(crate) fn unpack(
        &self,
        unpacker: &Unpacker,
        target: File,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Manifest> {
        progress.stage("Unpacking the bundle");
        let place = Path::new(&self.url);
        let mut report = |read: u64| progress.fraction(read as f64 / self.size as f64);
        let json = match unpacker.bundle(&self.file, target, &mut report, cancel) {
            Ok(json) => json,
            Err(Error::Unpack(UnpackError::Refused(reason))) => {
                return Err(self.refused(BundleError::Refused(reason)));
            }
            Err(error) => return Err(error),
        };
        if let Some(before) = &self.changed {
            let now = self.file.metadata().map_err(Error::io("look at", place))?;
            if Stamp::of(&now) != *before {
                return Err(self.refused(BundleError::Changed));
            }
        }
        // The child has read strange bytes: what it says is no more to be trusted than they are.
        Manifest::parse(&json).map_err(|source| self.refused(source))
    }

    pub(crate) fn refused(&self, source: BundleError) -> Error {
        Error::Bundle {
            origin: self.url.clone(),
            source,
        }
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

fn open(
    path: &Path,
    source: &BundleSource,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(File, Stamp)> {
    // A pipe in its place would be waited for.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(Error::io("open", path))?;
    let found = file.metadata().map_err(Error::io("look at", path))?;
    if !found.is_file() {
        return Err(Error::NotAFile(path.to_owned()));
    }
    let refused = |reason| Error::Bundle {
        origin: source.url.to_string(),
        source: reason,
    };
    if found.len() != source.size {
        return Err(refused(BundleError::Length {
            expected: source.size,
            found: found.len(),
        }));
    }
    let mut hasher = Hasher::default();
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        cancel.check()?;
        let read = file.read(&mut piece).map_err(Error::io("read", path))?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
        done += read as u64;
        progress.fraction(done as f64 / source.size as f64);
    }
    let digest = hasher.finish();
    if digest != source.sha256 {
        return Err(refused(BundleError::Digest {
            expected: source.sha256,
            found: digest,
        }));
    }
    file.rewind().map_err(Error::io("read", path))?;
    Ok((file, Stamp::of(&found)))
}
