//! Which slot is whose. A slot belongs to its owner from `AcquireSlot` to `ReleaseSlot`, through
//! restarts and reboots: until he says that no access list of his names the slot's uid any more,
//! nobody else may get it.

mod entry;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_bus::ErrorKind;
use banger_bus::helper::HelperError;
use banger_model::slot::SLOTS_PER_OWNER;
use banger_model::{GuestBridge, Slot, SlotHandle};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

pub use entry::{Run, SlotEntry};
use store::Store;

/// Why a slot could not be had, changed or given back.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error("This user has {SLOTS_PER_OWNER} slots, which is the most")]
    Quota,
    #[error("All slots of this host are in use")]
    Full,
    #[error("No such slot")]
    NoSuchSlot,
    #[error("Cannot write down slot {slot}")]
    Write {
        slot: Slot,
        #[source]
        source: io::Error,
    },
    #[error("Cannot make random numbers")]
    Random(#[source] io::Error),
}

/// The table of slots. What is in it is on disk before anybody is told.
pub struct Slots {
    store: Store,
    table: Mutex<Table>,
}

struct Table {
    entries: BTreeMap<Slot, SlotEntry>,
    /// Out of use because their file cannot be read, with the reason.
    damaged: BTreeMap<Slot, String>,
    /// Being acquired, not yet on disk.
    pending: BTreeMap<Slot, u32>,
    locks: BTreeMap<Slot, Arc<AsyncMutex<()>>>,
}

/// A slot that nobody else works on until this is dropped.
pub struct LockedSlot<'a> {
    slots: &'a Slots,
    entry: SlotEntry,
    _lock: OwnedMutexGuard<()>,
}

impl Slots {
    /// Reads the table from its directory, which is made when it is missing. A file that cannot
    /// be read stays as it is, and takes its slot out of use.
    ///
    /// # Errors
    /// When the directory cannot be made, protected or listed.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        let store = Store::open(directory)?;
        let (entries, damaged) = store.read_all()?;
        let table = Table {
            entries,
            damaged,
            pending: BTreeMap::new(),
            locks: BTreeMap::new(),
        };
        Ok(Self {
            store,
            table: Mutex::new(table),
        })
    }

    /// Gives the lowest free slot to an owner, locked. It is his, on disk, when this returns.
    ///
    /// # Errors
    /// [`SlotError::Quota`], [`SlotError::Full`], or when it cannot be written.
    pub async fn acquire(&self, owner: u32, bridge: GuestBridge) -> Result<LockedSlot<'_>, SlotError> {
        let handle = random_handle().map_err(SlotError::Random)?;
        let place = self.reserve(owner)?;
        let slot = place.slot;
        let lock = self.lock(slot).await;
        let entry = SlotEntry {
            slot,
            owner,
            handle,
            bridge,
            run: None,
        };
        if let Err(source) = self.store.write(&entry).await {
            // It may have got its name before it failed.
            let _ = self.store.remove(slot).await;
            return Err(SlotError::Write { slot, source });
        }
        self.table().entries.insert(slot, entry.clone());
        drop(place);
        Ok(LockedSlot {
            slots: self,
            entry,
            _lock: lock,
        })
    }

    /// Finds an owner's slot and waits until nobody works on it. Somebody else's is as one that
    /// does not exist.
    ///
    /// # Errors
    /// [`SlotError::NoSuchSlot`], also when it was given back meanwhile.
    pub async fn find(&self, owner: u32, handle: SlotHandle) -> Result<LockedSlot<'_>, SlotError> {
        let slot = self.peek(owner, handle).ok_or(SlotError::NoSuchSlot)?.slot;
        let lock = self.lock(slot).await;
        let entry = self.peek(owner, handle).ok_or(SlotError::NoSuchSlot)?;
        Ok(LockedSlot {
            slots: self,
            entry,
            _lock: lock,
        })
    }

    /// As [`Self::find`], whoever the owner is.
    ///
    /// # Errors
    /// [`SlotError::NoSuchSlot`].
    pub async fn find_any(&self, slot: Slot) -> Result<LockedSlot<'_>, SlotError> {
        let lock = self.lock(slot).await;
        let entry = self.table().entries.get(&slot).cloned();
        Ok(LockedSlot {
            slots: self,
            entry: entry.ok_or(SlotError::NoSuchSlot)?,
            _lock: lock,
        })
    }

    /// An owner's slot as it is at this moment, without waiting.
    pub fn peek(&self, owner: u32, handle: SlotHandle) -> Option<SlotEntry> {
        let table = self.table();
        let mut all = table.entries.values();
        all.find(|entry| entry.owner == owner && entry.handle == handle)
            .cloned()
    }

    /// An owner's slots.
    pub fn list(&self, owner: u32) -> Vec<SlotEntry> {
        let table = self.table();
        let own = table.entries.values().filter(|entry| entry.owner == owner);
        own.cloned().collect()
    }

    /// Everybody's slots.
    pub fn list_all(&self) -> Vec<SlotEntry> {
        self.table().entries.values().cloned().collect()
    }

    /// The slots that are out of use, each with the reason.
    pub fn damaged(&self) -> Vec<(Slot, String)> {
        let table = self.table();
        table
            .damaged
            .iter()
            .map(|(slot, why)| (*slot, why.clone()))
            .collect()
    }

    /// Keeps anybody from getting a slot that nobody has, until the result is dropped. `None`
    /// when somebody has it, is about to get it, or it is out of use.
    pub async fn hold_free(&self, slot: Slot) -> Option<impl Sized + use<>> {
        let lock = self.lock(slot).await;
        (!self.table().is_taken(slot)).then_some(lock)
    }

    fn reserve(&self, owner: u32) -> Result<Place<'_>, SlotError> {
        let mut table = self.table();
        let has = table
            .entries
            .values()
            .filter(|entry| entry.owner == owner)
            .count();
        let gets = table
            .pending
            .values()
            .filter(|pending| **pending == owner)
            .count();
        if has + gets >= SLOTS_PER_OWNER {
            return Err(SlotError::Quota);
        }
        let slot = Slot::all()
            .find(|slot| !table.is_taken(*slot))
            .ok_or(SlotError::Full)?;
        table.pending.insert(slot, owner);
        Ok(Place { slots: self, slot })
    }

    async fn lock(&self, slot: Slot) -> OwnedMutexGuard<()> {
        let lock = self.table().locks.entry(slot).or_default().clone();
        lock.lock_owned().await
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn is_taken(&self, slot: Slot) -> bool {
        self.entries.contains_key(&slot)
            || self.damaged.contains_key(&slot)
            || self.pending.contains_key(&slot)
    }
}

impl LockedSlot<'_> {
    /// Writes down what runs in it; `None`: nothing any more.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub async fn note(&mut self, run: Option<Run>) -> Result<(), SlotError> {
        if self.entry.run == run {
            return Ok(());
        }
        let entry = SlotEntry {
            run,
            ..self.entry.clone()
        };
        let slot = entry.slot;
        let written = self.slots.store.write(&entry).await;
        written.map_err(|source| SlotError::Write { slot, source })?;
        self.slots.table().entries.insert(slot, entry.clone());
        self.entry = entry;
        Ok(())
    }

    /// Gives it back: from here on anybody can get it. Its scope and its tap have to be gone.
    ///
    /// # Errors
    /// When that cannot be written; then it stays its owner's.
    pub async fn release(self) -> Result<(), SlotError> {
        let slot = self.entry.slot;
        let removed = self.slots.store.remove(slot).await;
        removed.map_err(|source| SlotError::Write { slot, source })?;
        self.slots.table().entries.remove(&slot);
        Ok(())
    }
}

impl Deref for LockedSlot<'_> {
    type Target = SlotEntry;

    fn deref(&self) -> &SlotEntry {
        &self.entry
    }
}

/// A slot that is about to be somebody's.
struct Place<'a> {
    slots: &'a Slots,
    slot: Slot,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.slots.table().pending.remove(&self.slot);
    }
}

impl From<SlotError> for HelperError {
    fn from(error: SlotError) -> Self {
        let kind = match error {
            SlotError::Quota | SlotError::Full => ErrorKind::LimitExceeded,
            SlotError::NoSuchSlot => return Self::no_such_slot(),
            SlotError::Write { .. } | SlotError::Random(_) => ErrorKind::Failed,
        };
        Self::new(kind, crate::journal::chain(&error))
    }
}

fn random_handle() -> io::Result<SlotHandle> {
    let mut bytes = [0; 16];
    let length = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // Up to 256 bytes come whole (getrandom(2)).
    if length == bytes.len() {
        Ok(SlotHandle::from_bytes(bytes))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
