//! The table on disk: a file for each slot that is somebody's, `N.json`.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use banger_model::Slot;

use super::SlotEntry;

/// A file is some 300 bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The directory with the files.
#[derive(Clone)]
pub(super) struct Store {
    directory: PathBuf,
}

/// Those that can be read, and why others cannot.
type Listing = (BTreeMap<Slot, SlotEntry>, BTreeMap<Slot, String>);

impl Store {
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let meta = std::fs::metadata(&directory)?;
        if meta.mode() & 0o077 != 0 {
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self { directory })
    }

    /// The slots' entries, and why others cannot be read.
    pub(super) fn read_all(&self) -> io::Result<Listing> {
        let (mut entries, mut damaged) = (BTreeMap::new(), BTreeMap::new());
        for file in std::fs::read_dir(&self.directory)? {
            let name = file?.file_name();
            let Some(slot) = name.to_str().and_then(slot_of) else {
                continue;
            };
            match read(&self.path(slot)) {
                Ok(entry) if entry.slot == slot => {
                    entries.insert(slot, entry);
                }
                Ok(entry) => {
                    damaged.insert(slot, format!("it is about slot {}", entry.slot));
                }
                Err(error) => {
                    damaged.insert(slot, error.to_string());
                }
            }
        }
        Ok((entries, damaged))
    }

    /// Whoever crashes meanwhile finds the old file or the new one.
    pub(super) async fn write(&self, entry: &SlotEntry) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(entry)?;
        let (directory, path) = (self.directory.clone(), self.path(entry.slot));
        blocking(move || replace(&directory, &path, &text)).await
    }

    pub(super) async fn remove(&self, slot: Slot) -> io::Result<()> {
        let (directory, path) = (self.directory.clone(), self.path(slot));
        blocking(move || {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            File::open(&directory)?.sync_all()
        })
        .await
    }

    fn path(&self, slot: Slot) -> PathBuf {
        self.directory.join(format!("{slot}.json"))
    }
}

fn replace(directory: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let written = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&new, path))
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

fn read(path: &Path) -> io::Result<SlotEntry> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    // What is in it is not repeated: the handle is.
    serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not an entry (line {line}, column {column})"),
        )
    })
}

/// The slot of a file's name, which has one spelling.
fn slot_of(name: &str) -> Option<Slot> {
    let slot = Slot::new(name.strip_suffix(".json")?.parse().ok()?).ok()?;
    (format!("{slot}.json") == name).then_some(slot)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
