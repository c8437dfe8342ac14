//! The names of a file system in the making, and its inodes.
//!
//! Names lie one after the other in one text, entries of a directory are a list, and one table
//! finds an entry by directory and name: about 120 bytes for a file.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::encode::S_IFDIR;
use super::error::WriteError;
use super::inode::{Body, Directory, Inode, NONE};
use super::layout::Allocator;
use super::limits::{MAX_DEPTH, MAX_DETAILS, MAX_HARD_LINKS, MAX_INODES};

/// Inode numbers with a meaning.
pub(super) const ROOT: u32 = 2;
pub(super) const RESIZE: u32 = 7;
pub(super) const JOURNAL: u32 = 8;
pub(super) const LOST_FOUND: u32 = 11;

/// Numbers, inodes, and who is where.
#[derive(Debug)]
pub(super) struct Tree {
    time: i64,
    /// The layer to which belongs what is added.
    pub(super) layer: u16,
    /// By number, from 1. The reserved ones and those that were removed are empty.
    inodes: Vec<Option<Inode>>,
    /// Numbers that were removed.
    unused: Vec<u32>,
    entries: Vec<Entry>,
    unused_entries: Vec<u32>,
    table: HashTable<u32>,
    /// With a key of its own: names must not be chosen so that they meet.
    hasher: RandomState,
    /// Names and the targets of links.
    text: Vec<u8>,
    details: usize,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    parent: u32,
    inode: u32,
    text: u32,
    /// Its neighbours in the directory's list.
    before: u32,
    after: u32,
    /// The layer that set it last.
    layer: u16,
    len: u8,
}

/// Where a new entry goes.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    pub(super) parent: u32,
    pub(super) name: &'a [u8],
    /// The entry that has the name now.
    pub(super) there: Option<u32>,
}

impl Tree {
    /// The root directory and `lost+found`. What is made without metadata has this time, in
    /// seconds since 1970.
    pub(super) fn new(time: i64) -> Self {
        let mut tree = Self {
            time,
            layer: 0,
            inodes: Vec::new(),
            unused: Vec::new(),
            entries: Vec::new(),
            unused_entries: Vec::new(),
            table: HashTable::new(),
            hasher: RandomState::new(),
            text: Vec::new(),
            details: 0,
        };
        tree.inodes.resize_with(LOST_FOUND as usize - 1, || None);
        let mut root = Inode::new(S_IFDIR | 0o755, time);
        root.links = 2;
        root.body = Body::Directory(Directory {
            parent: ROOT,
            first: NONE,
            bare_since: 0,
            depth: 0,
        });
        tree.inodes[ROOT as usize - 1] = Some(root);
        let slot = tree.slot(ROOT, b"lost+found");
        tree.add_inode(&slot, Inode::new(S_IFDIR | 0o700, time), LOST_FOUND);
        tree
    }

    pub(super) fn slot<'a>(&self, parent: u32, name: &'a [u8]) -> Slot<'a> {
        let there = self.look_up(parent, name);
        Slot { parent, name, there }
    }

    /// The entry of a name.
    pub(super) fn look_up(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((parent, name));
        let found = self.table.find(hash, |&entry| self.is(entry, parent, name));
        found.copied()
    }

    /// Whether there is room for one more file whose number [`Tree::next`] says.
    pub(super) fn check_room(&self) -> Result<(), WriteError> {
        if self.unused.is_empty() && self.last() >= MAX_INODES {
            return Err(WriteError::TooManyFiles);
        }
        Ok(())
    }

    /// The number that the next new inode gets.
    pub(super) fn next(&self) -> u32 {
        self.unused.last().copied().unwrap_or(self.last() + 1)
    }

    /// Adds an inode under a name that is free, and returns its number.
    pub(super) fn add(&mut self, slot: &Slot<'_>, inode: Inode) -> Result<u32, WriteError> {
        self.check_room()?;
        self.charge(inode.details() + slot.name.len())?;
        let number = self.next();
        self.unused.pop();
        self.add_inode(slot, inode, number);
        Ok(number)
    }

    /// Adds a directory under a name that is free.
    pub(super) fn add_directory(&mut self, slot: &Slot<'_>, path: &[u8]) -> Result<u32, WriteError> {
        let depth = self.directory(slot.parent).map_or(0, |parent| parent.depth);
        if usize::from(depth) >= MAX_DEPTH {
            return Err(WriteError::BadPath {
                path: path.into(),
                why: "deeper than 128 directories",
            });
        }
        self.add(slot, Inode::new(S_IFDIR | 0o755, self.time))
    }

    /// Gives an inode one more name, which is free.
    pub(super) fn link(&mut self, slot: &Slot<'_>, number: u32) -> Result<(), WriteError> {
        self.charge(slot.name.len())?;
        match self.get_mut(number) {
            Some(inode) if inode.links < MAX_HARD_LINKS => inode.links += 1,
            _ => return Err(WriteError::TooManyLinks),
        }
        self.enter(slot, number);
        Ok(())
    }

    /// Says that an entry that stays belongs to the present layer.
    pub(super) fn touch(&mut self, entry: u32) {
        self.entries[entry as usize].layer = self.layer;
    }

    /// Keeps a link's target. Its place is for [`Body::Link`].
    pub(super) fn keep(&mut self, target: &[u8]) -> Result<u32, WriteError> {
        self.charge(target.len())?;
        Ok(self.push(target))
    }

    /// Removes an entry and what is below it, whatever layer it is of.
    pub(super) fn remove(&mut self, entry: u32, allocator: &mut Allocator) {
        let mut todo = vec![entry];
        while let Some(entry) = todo.pop() {
            let number = self.entries[entry as usize].inode;
            todo.extend(self.children(number));
            self.unlink(entry, allocator);
        }
    }

    /// Takes away one name. A directory's entries must be gone, or go next.
    pub(super) fn unlink(&mut self, entry: u32, allocator: &mut Allocator) {
        let Entry { parent, inode, .. } = self.leave(entry);
        let Some(there) = self.get_mut(inode) else { return };
        there.links -= 1;
        if there.is_dir() {
            if let Some(above) = self.get_mut(parent) {
                above.links -= 1;
            }
        } else if there.links > 0 {
            return;
        }
        if let Some(gone) = self.inodes[inode as usize - 1].take() {
            gone.for_each_run(|run| allocator.give_back(run));
            self.details -= gone.details();
            self.unused.push(inode);
        }
    }

    /// Gives a directory the metadata of one that no entry describes.
    pub(super) fn forget_metadata(&mut self, number: u32, allocator: &mut Allocator) {
        let time = self.time;
        self.drop_attributes(number, allocator);
        if let Some(inode) = self.get_mut(number) {
            inode.describe(0o755, (0, 0), (time, 0));
        }
    }

    /// Removes an inode's extended attributes.
    pub(super) fn drop_attributes(&mut self, number: u32, allocator: &mut Allocator) {
        let Some(inode) = self.get_mut(number) else { return };
        let before = inode.details();
        let block = std::mem::take(&mut inode.xattr_block);
        inode.xattrs = None;
        let less = before - inode.details();
        self.details -= less;
        if block != 0 {
            allocator.give_back(super::layout::Run { start: block, len: 1 });
        }
    }

    /// Counts bytes of memory.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), WriteError> {
        self.details += bytes;
        if self.details > MAX_DETAILS {
            return Err(WriteError::TooDetailed);
        }
        Ok(())
    }

    pub(super) fn is_dir(&self, number: u32) -> bool {
        self.get(number).is_some_and(Inode::is_dir)
    }

    pub(super) fn directory(&self, number: u32) -> Option<&Directory> {
        match &self.get(number)?.body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, number: u32) -> Option<&mut Directory> {
        match &mut self.get_mut(number)?.body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// The target of a symbolic link.
    pub(super) fn target(&self, number: u32) -> Option<&[u8]> {
        let inode = self.get(number)?;
        match inode.body {
            Body::Link { text, .. } => self.text.get(text as usize..)?.get(..inode.size as usize),
            _ => None,
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Inode> {
        self.inodes.get(number as usize - 1)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Inode> {
        self.inodes.get_mut(number as usize - 1)?.as_mut()
    }

    pub(super) fn set(&mut self, number: u32, inode: Inode) {
        self.inodes[number as usize - 1] = Some(inode);
    }

    /// The highest number in use.
    pub(super) fn last(&self) -> u32 {
        self.inodes.len() as u32
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn inode_of(&self, entry: u32) -> u32 {
        self.entries[entry as usize].inode
    }

    /// Whether the present layer set an entry.
    pub(super) fn is_of_layer(&self, entry: u32) -> bool {
        self.entries[entry as usize].layer == self.layer
    }

    pub(super) fn name(&self, entry: u32) -> &[u8] {
        let Entry { text, len, .. } = self.entries[entry as usize];
        &self.text[text as usize..][..usize::from(len)]
    }

    /// The entries of a directory, in no order that means something.
    pub(super) fn children(&self, number: u32) -> impl Iterator<Item = u32> {
        let first = self.directory(number).map_or(NONE, |directory| directory.first);
        std::iter::successors(some(first), |&entry| some(self.entries[entry as usize].after))
    }

    /// Frees what only serves changes.
    pub(super) fn close(&mut self) {
        self.table = HashTable::new();
        self.unused = Vec::new();
        self.unused_entries = Vec::new();
    }

    fn add_inode(&mut self, slot: &Slot<'_>, mut inode: Inode, number: u32) {
        if inode.is_dir() {
            inode.links = 2;
            let above = self.directory(slot.parent).map_or(0, |parent| parent.depth);
            inode.body = Body::Directory(Directory {
                parent: slot.parent,
                first: NONE,
                bare_since: self.layer,
                depth: above + 1,
            });
            if let Some(parent) = self.get_mut(slot.parent) {
                parent.links += 1;
            }
        }
        match self.inodes.get_mut(number as usize - 1) {
            Some(place) => *place = Some(inode),
            None => self.inodes.push(Some(inode)),
        }
        self.enter(slot, number);
    }

    fn enter(&mut self, slot: &Slot<'_>, inode: u32) {
        let text = self.push(slot.name);
        let after = self.directory(slot.parent).map_or(NONE, |parent| parent.first);
        let made = Entry {
            parent: slot.parent,
            inode,
            text,
            before: NONE,
            after,
            layer: self.layer,
            // No longer name gets here.
            len: slot.name.len() as u8,
        };
        let entry = match self.unused_entries.pop() {
            Some(entry) => {
                self.entries[entry as usize] = made;
                entry
            }
            None => {
                self.entries.push(made);
                self.entries.len() as u32 - 1
            }
        };
        if let Some(next) = some(after) {
            self.entries[next as usize].before = entry;
        }
        if let Some(parent) = self.directory_mut(slot.parent) {
            parent.first = entry;
        }
        let Self {
            table,
            hasher,
            entries,
            text,
            ..
        } = self;
        let hash = |&entry: &u32| {
            let Entry {
                parent,
                text: at,
                len,
                ..
            } = entries[entry as usize];
            hasher.hash_one((parent, &text[at as usize..][..usize::from(len)]))
        };
        table.insert_unique(hash(&entry), entry, hash);
    }

    /// Takes an entry out of its directory's list and out of the table.
    fn leave(&mut self, entry: u32) -> Entry {
        let gone = self.entries[entry as usize];
        match some(gone.before) {
            Some(before) => self.entries[before as usize].after = gone.after,
            None => {
                if let Some(parent) = self.directory_mut(gone.parent) {
                    parent.first = gone.after;
                }
            }
        }
        if let Some(after) = some(gone.after) {
            self.entries[after as usize].before = gone.before;
        }
        let hash = self.hasher.hash_one((gone.parent, self.name(entry)));
        if let Ok(found) = self.table.find_entry(hash, |&other| other == entry) {
            found.remove();
        }
        self.unused_entries.push(entry);
        gone
    }

    fn is(&self, entry: u32, parent: u32, name: &[u8]) -> bool {
        self.entries[entry as usize].parent == parent && self.name(entry) == name
    }

    fn push(&mut self, text: &[u8]) -> u32 {
        let at = self.text.len() as u32;
        self.text.extend_from_slice(text);
        at
    }
}

fn some(entry: u32) -> Option<u32> {
    (entry != NONE).then_some(entry)
}
