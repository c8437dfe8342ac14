//! Blobs by their digests, and which manifest a reference last was.
//!
//! `<cache>/oci/blobs/sha256/<hex>` is a layer, a configuration, a manifest or an index that
//! was verified before it got its name. `<hex>.partial` beside it grows under a lock, and goes
//! on where it broke off. `<cache>/oci/index/<hex of the reference's sha256>.json` says what a
//! reference was. Nothing is synced: content is checked again by whoever uses it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, OFlags, Timespec, Timestamps, UTIME_NOW, flock, futimens};
use serde::{Deserialize, Serialize};

use super::document::{Blob, Document, MAX_DOCUMENT, choose};
use super::reference::Reference;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::make_dir;

/// How much a cache holds unless its owner says otherwise, in bytes.
pub const DEFAULT_BYTES: u64 = 10 << 30;
/// Indexes in indexes, at most.
pub(super) const MAX_DEPTH: usize = 4;
const PARTIAL: &str = ".partial";
const JSON: &str = ".json";
const MAX_INDEX_ENTRY: u64 = 4096;

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of all files, unfinished ones included.
    pub bytes: u64,
    /// Finished blobs.
    pub blobs: usize,
    /// References that can be pulled without the network, as far as their layers are here.
    pub references: usize,
}

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    pub digests: Vec<Digest>,
    /// Unfinished downloads included.
    pub bytes: u64,
}

/// What a cache holds; nothing when there is none.
///
/// # Errors
/// When it cannot be read.
pub fn usage(cache: &Path) -> Result<Usage> {
    let store = Store::at(cache);
    let mut usage = Usage {
        references: store.entries()?.len(),
        ..Usage::default()
    };
    for file in store.files()? {
        usage.bytes += file.bytes;
        usage.blobs += usize::from(!file.partial);
    }
    Ok(usage)
}

/// Removes the blobs that `keep` does not want, what nobody downloads any more, and what
/// references say that then cannot be had without the network. With a manifest its index and
/// its configuration are kept.
///
/// # Errors
/// When the cache cannot be read.
pub fn prune(cache: &Path, keep: impl Fn(&Digest) -> bool, dry_run: bool) -> Result<Pruned> {
    let store = Store::at(cache);
    let entries = store.entries()?;
    let mut kept = BTreeSet::new();
    for entry in &entries {
        let family = store.family(&entry.digest);
        if family.iter().any(&keep) {
            kept.extend(family);
        }
    }
    let files = store.files()?;
    for file in &files {
        if !file.partial && keep(&file.digest) {
            kept.extend(store.family(&file.digest));
        }
    }
    let mut pruned = Pruned::default();
    for file in &files {
        let wanted = !file.partial && kept.contains(&file.digest);
        if !wanted && store.remove(file, dry_run)? {
            pruned.bytes += file.bytes;
            if !file.partial {
                pruned.digests.push(file.digest);
            }
        }
    }
    pruned.digests.sort_unstable();
    for entry in &entries {
        if !kept.contains(&entry.digest) && !dry_run {
            remove_file(&entry.path)?;
        }
    }
    Ok(pruned)
}

/// The files of a cache.
#[derive(Debug, Clone)]
pub(super) struct Store {
    blobs: PathBuf,
    index: PathBuf,
}

#[derive(Debug)]
struct Found {
    path: PathBuf,
    digest: Digest,
    partial: bool,
    bytes: u64,
    used: SystemTime,
}

#[derive(Debug)]
struct IndexFile {
    path: PathBuf,
    digest: Digest,
}

/// What a reference was when it was last asked for.
#[derive(Serialize, Deserialize)]
struct IndexEntry {
    /// In full: what the file's name is the hash of.
    reference: String,
    /// Of an index or a manifest.
    digest: Digest,
}

impl Store {
    fn at(cache: &Path) -> Self {
        Self {
            blobs: cache.join("oci/blobs/sha256"),
            index: cache.join("oci/index"),
        }
    }

    /// Makes the directories as needed.
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let store = Self::at(cache);
        make_dir(&store.blobs)?;
        make_dir(&store.index)?;
        Ok(store)
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// A blob that is here, open for reading and marked as used.
    pub(super) fn get(&self, blob: &Blob) -> Result<Option<File>> {
        let path = self.path(&blob.digest);
        let Some(file) = open_plain(&path)? else {
            return Ok(None);
        };
        let found = file.metadata().map_err(Error::io("look at", &path))?;
        if !found.is_file() {
            remove_file(&path)?;
            return Ok(None);
        }
        if found.len() != blob.size {
            // The manifest may be what lies: the download will say so.
            self.scrub(&blob.digest)?;
            return Ok(None);
        }
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        // Without it, it is only forgotten earlier.
        _ = futimens(
            &file,
            &Timestamps {
                last_access: now,
                last_modification: now,
            },
        );
        Ok(Some(file))
    }

    /// A manifest, an index or a configuration that is here, and is what its name says.
    pub(super) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(text) = self.peek(digest)? else {
            return Ok(None);
        };
        if Digest::of(&text) != *digest {
            remove_file(&self.path(digest))?;
            return Ok(None);
        }
        let blob = Blob {
            digest: *digest,
            size: text.len() as u64,
        };
        self.get(&blob)?;
        Ok(Some(text))
    }

    /// The text of a document, good or damaged, which does not count as a use of it.
    fn peek(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.path(digest);
        let Some(file) = open_plain(&path)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        file.take(MAX_DOCUMENT as u64 + 1)
            .read_to_end(&mut text)
            .map_err(Error::io("read", &path))?;
        Ok((text.len() <= MAX_DOCUMENT).then_some(text))
    }

    /// Keeps a document that was verified.
    pub(super) fn write(&self, digest: &Digest, text: &[u8]) -> Result<()> {
        write_whole(&self.path(digest), text)
    }

    /// What a reference last was.
    pub(super) fn recall(&self, reference: &Reference) -> Option<Digest> {
        let full = reference.to_string();
        let entry = read_entry(&self.entry_path(&full))?;
        (entry.reference == full).then_some(entry.digest)
    }

    pub(super) fn remember(&self, reference: &Reference, digest: Digest) -> Result<()> {
        let entry = IndexEntry {
            reference: reference.to_string(),
            digest,
        };
        let text = serde_json::to_vec(&entry).unwrap_or_default();
        write_whole(&self.entry_path(&entry.reference), &text)
    }

    /// Checks a blob again, and removes one that is not what its name says. Whether it was.
    pub(super) fn scrub(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        let Some(file) = open_plain(&path)? else {
            return Ok(true);
        };
        let good = Digest::of_reader(file).map_err(Error::io("read", &path))? == *digest;
        if !good {
            tracing::warn!(%digest, "Removing a damaged blob of the cache");
            remove_file(&path)?;
        }
        Ok(good)
    }

    /// Removes what was not used for the longest time until at most `limit` bytes are left.
    pub(super) fn evict(&self, limit: u64) -> Result<()> {
        let mut files = self.files()?;
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        files.sort_unstable_by_key(|file| file.used);
        for file in &files {
            if total <= limit {
                break;
            }
            if self.remove(file, false)? {
                total -= file.bytes;
            }
        }
        Ok(())
    }

    fn entry_path(&self, reference: &str) -> PathBuf {
        let name = Digest::of(reference.as_bytes()).hex();
        self.index.join(name + JSON)
    }

    /// A document and those that it is of no use without: the manifest for this platform and
    /// its configuration.
    fn family(&self, digest: &Digest) -> Vec<Digest> {
        let mut family = vec![*digest];
        let mut next = *digest;
        for _ in 0..=MAX_DEPTH {
            let Ok(Some(text)) = self.peek(&next) else { break };
            if Digest::of(&text) != next {
                break;
            }
            match Document::parse(&text, "") {
                Ok(Document::Index(entries)) => match choose(&entries) {
                    Ok(chosen) => next = chosen.blob.digest,
                    Err(_) => break,
                },
                Ok(Document::Manifest(manifest)) => {
                    family.push(manifest.config.digest);
                    break;
                }
                Err(_) => break,
            }
            family.push(next);
        }
        family
    }

    /// Removes a file of the cache, unless it is an unfinished one that grows. Whether it is
    /// gone, or would be.
    fn remove(&self, file: &Found, dry_run: bool) -> Result<bool> {
        if file.partial {
            let Some(partial) = Partial::try_lock(&self.path(&file.digest))? else {
                return Ok(false);
            };
            if dry_run {
                partial.leave();
            } else {
                partial.discard()?;
            }
        } else if !dry_run {
            remove_file(&file.path)?;
        }
        Ok(true)
    }

    fn files(&self) -> Result<Vec<Found>> {
        let mut files = Vec::new();
        for (name, path) in names(&self.blobs)? {
            let hex = name.strip_suffix(PARTIAL);
            let Ok(digest) = format!("sha256:{}", hex.unwrap_or(&name)).parse() else {
                continue;
            };
            // It may be gone by now.
            let Ok(found) = path.symlink_metadata() else {
                continue;
            };
            files.push(Found {
                digest,
                partial: hex.is_some(),
                bytes: found.len(),
                used: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                path,
            });
        }
        Ok(files)
    }

    fn entries(&self) -> Result<Vec<IndexFile>> {
        let files = names(&self.index)?.into_iter();
        Ok(files
            .filter(|(name, _)| name.ends_with(JSON))
            .filter_map(|(_, path)| {
                let digest = read_entry(&path)?.digest;
                Some(IndexFile { path, digest })
            })
            .collect())
    }
}

/// A file that grows beside its final name. Whoever has the lock is alone with it.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) file: File,
    path: PathBuf,
    target: PathBuf,
    /// It has its name, or is gone.
    settled: bool,
}

impl Partial {
    /// The unfinished file of a blob, or nothing while another one has it.
    pub(super) fn try_lock(target: &Path) -> Result<Option<Self>> {
        Self::open(target, FlockOperation::NonBlockingLockExclusive)
    }

    /// The same, after waiting for the other one.
    pub(super) fn lock(target: &Path) -> Result<Self> {
        loop {
            if let Some(partial) = Self::open(target, FlockOperation::LockExclusive)? {
                return Ok(partial);
            }
        }
    }

    fn open(target: &Path, operation: FlockOperation) -> Result<Option<Self>> {
        let mut path = target.as_os_str().to_owned();
        path.push(PARTIAL);
        let path = PathBuf::from(path);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
                .map_err(Error::io("open", &path))?;
            match flock(&file, operation) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::os("lock", &path)(error)),
            }
            // The one before may have finished or removed what was waited for.
            let mine = file.metadata().map_err(Error::io("look at", &path))?;
            let still = path
                .symlink_metadata()
                .is_ok_and(|there| there.ino() == mine.ino());
            if still {
                return Ok(Some(Self {
                    file,
                    path,
                    target: target.to_owned(),
                    settled: false,
                }));
            }
        }
    }

    /// Gives a verified file its name.
    pub(super) fn publish(mut self) -> Result<()> {
        self.settled = true;
        fs::rename(&self.path, &self.target).map_err(Error::io("make", &self.target))
    }

    pub(super) fn discard(mut self) -> Result<()> {
        self.settled = true;
        remove_file(&self.path)
    }

    /// As it is, even when it is empty.
    fn leave(mut self) {
        self.settled = true;
    }

    pub(super) fn len(&self) -> Result<u64> {
        let found = self.file.metadata().map_err(Error::io("look at", &self.path))?;
        Ok(found.len())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What a stopped download has is kept for the next one, unless it is nothing.
impl Drop for Partial {
    fn drop(&mut self) {
        if !self.settled && self.len().is_ok_and(|len| len == 0) {
            // It is in nobody's way.
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a small file whole or not at all. Another one that writes it at this moment writes
/// as good a one.
fn write_whole(target: &Path, text: &[u8]) -> Result<()> {
    let Some(mut partial) = Partial::try_lock(target)? else {
        return Ok(());
    };
    let written = partial
        .file
        .set_len(0)
        .and_then(|()| partial.file.write_all(text));
    match written {
        Ok(()) => partial.publish(),
        Err(error) => {
            partial.discard()?;
            Err(Error::io("write", target)(error))
        }
    }
}

fn read_entry(path: &Path) -> Option<IndexEntry> {
    let file = open_plain(path).ok()??;
    let mut text = Vec::new();
    file.take(MAX_INDEX_ENTRY).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Opens a file for reading, never through a link.
fn open_plain(path: &Path) -> Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

/// Removes a file that another one may have removed first.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn names(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.path()));
        }
    }
    Ok(names)
}
