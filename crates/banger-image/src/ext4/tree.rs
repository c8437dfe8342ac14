//! The names of a file system in the making, and its inodes.

use std::collections::BTreeMap;

use super::encode::{Inode, MAX_LINKS, S_IFDIR};
use super::writer::WriteError;

/// Inode numbers with a meaning.
pub(super) const ROOT: u32 = 2;
pub(super) const RESIZE: u32 = 7;
pub(super) const JOURNAL: u32 = 8;
pub(super) const LOST_FOUND: u32 = 11;

/// Names of one path, one after the other.
pub(super) const MAX_DEPTH: usize = 128;
/// Bytes of a path.
pub(super) const MAX_PATH: usize = 4096;
/// Bytes of a name.
const MAX_NAME: usize = 255;
/// Files and directories of one file system.
pub(super) const MAX_INODES: u32 = 1_000_000;

/// Numbers, inodes, and who is where.
#[derive(Debug)]
pub(super) struct Tree {
    time: i64,
    /// By number, from 1. The reserved ones and those that were removed are empty.
    inodes: Vec<Option<Inode>>,
    children: BTreeMap<u32, Children>,
}

#[derive(Debug, Default)]
pub(super) struct Children {
    pub(super) parent: u32,
    pub(super) names: BTreeMap<Box<[u8]>, u32>,
}

/// Where a new entry goes.
pub(super) struct Slot<'a> {
    pub(super) parent: u32,
    pub(super) name: &'a [u8],
    /// What has the name now.
    pub(super) there: Option<u32>,
}

impl Tree {
    /// The root directory and `lost+found`. What is made without metadata has this time, in
    /// seconds since 1970.
    pub(super) fn new(time: i64) -> Self {
        let mut tree = Self {
            time,
            inodes: vec![None; LOST_FOUND as usize - 1],
            children: BTreeMap::new(),
        };
        let mut root = tree.directory(0o755);
        root.links = 2;
        tree.set(ROOT, root);
        tree.children.insert(
            ROOT,
            Children {
                parent: ROOT,
                names: BTreeMap::new(),
            },
        );
        let slot = Slot {
            parent: ROOT,
            name: b"lost+found",
            there: None,
        };
        let inode = tree.directory(0o700);
        tree.add(&slot, inode);
        tree
    }

    /// Finds the directory of a path, making those that are missing. `None` is the root.
    pub(super) fn slot<'a>(&mut self, path: &'a [u8]) -> Result<Option<Slot<'a>>, WriteError> {
        let names = split(path)?;
        let Some((&name, parents)) = names.split_last() else {
            return Ok(None);
        };
        let mut parent = ROOT;
        for &name in parents {
            let slot = self.at(parent, name);
            parent = match slot.there {
                Some(there) if self.is_dir(there) => there,
                Some(_) => return Err(WriteError::NotADirectory(path.into())),
                None => {
                    self.check_room()?;
                    let inode = self.directory(0o755);
                    self.add(&slot, inode)
                }
            };
        }
        Ok(Some(self.at(parent, name)))
    }

    /// Looks up a path without making anything.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<u32>, WriteError> {
        let mut at = ROOT;
        for name in split(path)? {
            match self.children.get(&at).and_then(|c| c.names.get(name)) {
                Some(&next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    pub(super) fn check_room(&self) -> Result<(), WriteError> {
        if self.last() >= MAX_INODES {
            return Err(WriteError::TooManyFiles);
        }
        Ok(())
    }

    /// Adds an inode under a name that is free, and returns its number.
    pub(super) fn add(&mut self, slot: &Slot<'_>, mut inode: Inode) -> u32 {
        let number = self.last() + 1;
        if inode.is_dir() {
            inode.links = 2;
            self.children.insert(
                number,
                Children {
                    parent: slot.parent,
                    names: BTreeMap::new(),
                },
            );
            if let Some(parent) = self.get_mut(slot.parent) {
                parent.links += 1;
            }
        }
        self.inodes.push(Some(inode));
        self.name(slot, number);
        number
    }

    /// Gives an inode one more name.
    pub(super) fn link(&mut self, slot: &Slot<'_>, number: u32) -> Result<(), WriteError> {
        match self.get_mut(number) {
            Some(inode) if inode.links < MAX_LINKS => inode.links += 1,
            _ => return Err(WriteError::TooManyLinks),
        }
        self.name(slot, number);
        Ok(())
    }

    /// Takes a name away from what is not a directory. Returns the inode when this was its
    /// last name.
    pub(super) fn unlink(&mut self, slot: &Slot<'_>) -> Option<Inode> {
        let number = self.children.get_mut(&slot.parent)?.names.remove(slot.name)?;
        let inode = self.get_mut(number)?;
        inode.links -= 1;
        if inode.links > 0 {
            return None;
        }
        self.inodes[number as usize - 1].take()
    }

    pub(super) fn is_dir(&self, number: u32) -> bool {
        self.get(number).is_some_and(Inode::is_dir)
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

    /// The number that the next new inode gets.
    pub(super) fn next(&self) -> u32 {
        self.last() + 1
    }

    /// All directories by their numbers.
    pub(super) fn take_directories(&mut self) -> BTreeMap<u32, Children> {
        std::mem::take(&mut self.children)
    }

    fn directory(&self, permissions: u16) -> Inode {
        let mut inode = Inode::new(S_IFDIR | permissions);
        inode.mtime = (self.time, 0);
        inode
    }

    fn at<'a>(&self, parent: u32, name: &'a [u8]) -> Slot<'a> {
        let there = self
            .children
            .get(&parent)
            .and_then(|children| children.names.get(name))
            .copied();
        Slot { parent, name, there }
    }

    fn name(&mut self, slot: &Slot<'_>, number: u32) {
        if let Some(children) = self.children.get_mut(&slot.parent) {
            children.names.insert(slot.name.into(), number);
        }
    }
}

/// The names of a path below the root; empty ones and `.` do not count.
fn split(path: &[u8]) -> Result<Vec<&[u8]>, WriteError> {
    let bad = |why| WriteError::BadPath {
        path: path[..path.len().min(MAX_PATH)].into(),
        why,
    };
    if path.len() > MAX_PATH {
        return Err(bad("longer than 4096 bytes"));
    }
    let mut names = Vec::new();
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return Err(bad("leads upwards")),
            _ if name.len() > MAX_NAME => return Err(bad("a name is longer than 255 bytes")),
            _ if name.contains(&0) => return Err(bad("a name has a NUL")),
            _ => names.push(name),
        }
        if names.len() > MAX_DEPTH {
            return Err(bad("deeper than 128 directories"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        let deep = b"a/".repeat(MAX_DEPTH + 1);
        let long = vec![b'a'; MAX_NAME + 1];
        let longer = vec![b'/'; MAX_PATH + 1];
        for path in [&b"../etc"[..], b"a/../../b", b"a\0b", &deep, &long, &longer] {
            assert!(split(path).is_err(), "{}", path.escape_ascii());
        }
        assert_eq!(split(b"./a//b/./c/").unwrap(), [b"a", b"b", b"c"]);
        assert!(split(b"/").unwrap().is_empty());
    }

    #[test]
    fn names_and_links_are_counted() {
        let mut tree = Tree::new(0);
        let slot = tree.slot(b"a/b/file").unwrap().unwrap();
        let file = tree.add(&slot, Inode::new(0o100_644));
        assert_eq!(tree.get(ROOT).unwrap().links, 4);
        let other = tree.slot(b"a/other").unwrap().unwrap();
        tree.link(&other, file).unwrap();
        assert_eq!(tree.find(b"/a/other").unwrap(), Some(file));
        assert!(tree.unlink(&tree.at(slot.parent, b"file")).is_none());
        let other = tree.slot(b"a/other").unwrap().unwrap();
        assert!(tree.unlink(&other).is_some());
        assert_eq!(tree.find(b"a/other").unwrap(), None);
        assert!(tree.get(file).is_none());
    }

    #[test]
    fn a_file_is_no_directory() {
        let mut tree = Tree::new(0);
        let slot = tree.slot(b"a").unwrap().unwrap();
        tree.add(&slot, Inode::new(0o120_777));
        assert!(matches!(tree.slot(b"a/b"), Err(WriteError::NotADirectory(_))));
    }
}
