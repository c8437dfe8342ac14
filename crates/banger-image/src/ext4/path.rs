//! From a path to its place in the tree, through the symbolic links of the tree alone.

use std::borrow::Cow;

use super::error::WriteError;
use super::limits::{MAX_DEPTH, MAX_LINKS_FOLLOWED, MAX_LOOKUPS, MAX_NAME, MAX_PATH};
use super::tree::{ROOT, Slot, Tree};

/// A path below the root, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    whole: &'a [u8],
    /// What lies before the name, separators included.
    parent: &'a [u8],
    pub(super) name: &'a [u8],
}

/// Checks a path, absolute or not. Empty names and `.` do not count, `..` is refused: tar
/// programs agree neither on what it means nor on whether it may be there. `None` is the root.
pub(super) fn split(path: &[u8]) -> Result<Option<Place<'_>>, WriteError> {
    let bad = |why| bad(path, why);
    if path.len() > MAX_PATH {
        return Err(bad("longer than 4096 bytes"));
    }
    let mut last = None;
    let mut depth = 0;
    let mut at = 0;
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(bad("leads upwards")),
            _ if name.len() > MAX_NAME => return Err(bad("a name is longer than 255 bytes")),
            _ if name.contains(&0) => return Err(bad("a name has a NUL")),
            _ => {
                last = Some((at, name));
                depth += 1;
            }
        }
        at += name.len() + 1;
    }
    if depth > MAX_DEPTH {
        return Err(bad("deeper than 128 directories"));
    }
    Ok(last.map(|(at, name)| Place {
        whole: path,
        parent: &path[..at],
        name,
    }))
}

type Names = Vec<Box<[u8]>>;

impl<'a> Place<'a> {
    /// The names on the way.
    pub(super) fn parents(&self) -> impl Iterator<Item = &'a [u8]> {
        self.parent.split(|&b| b == b'/')
    }

    /// Another name in the same directory.
    pub(super) fn with_name(self, name: &'a [u8]) -> Self {
        Self { name, ..self }
    }
}

impl Tree {
    /// Finds the directory of a path, making those that are missing. Links on the way are
    /// followed as if the tree were `/`; the last name is not.
    pub(super) fn make_way<'a>(&mut self, place: Place<'a>) -> Result<Slot<'a>, WriteError> {
        let (mut parent, missing) = self.walk(place)?;
        for name in missing {
            let slot = self.slot(parent, &name);
            parent = self.add_directory(&slot, place.whole)?;
        }
        Ok(self.slot(parent, place.name))
    }

    /// Looks up a path without making anything. `None` when a directory on its way is missing.
    pub(super) fn find<'a>(&self, place: Place<'a>) -> Result<Option<Slot<'a>>, WriteError> {
        let (parent, missing) = self.walk(place)?;
        Ok(missing.is_empty().then(|| self.slot(parent, place.name)))
    }

    /// The last directory on the way of a path that is there, and the names of those below it
    /// that are not.
    fn walk(&self, place: Place<'_>) -> Result<(u32, Names), WriteError> {
        let mut way = Cow::Borrowed(place.parent);
        let mut at = 0;
        let mut directory = ROOT;
        let mut missing = Names::new();
        let (mut lookups, mut links) = (0, 0);
        while at < way.len() {
            let len = way[at..].iter().position(|&b| b == b'/');
            let end = len.map_or(way.len(), |len| at + len);
            let name = &way[at..end];
            at = end + 1;
            match name {
                b"" | b"." => continue,
                b".." => {
                    if missing.pop().is_none() {
                        directory = self.directory(directory).map_or(ROOT, |this| this.parent);
                    }
                    continue;
                }
                _ => {}
            }
            lookups += 1;
            if lookups > MAX_LOOKUPS {
                return Err(bad(place.whole, "more than 512 names on its way"));
            }
            if name.len() > MAX_NAME {
                return Err(bad(
                    place.whole,
                    "a link on its way has a name longer than 255 bytes",
                ));
            }
            let there = if missing.is_empty() {
                self.look_up(directory, name)
            } else {
                None
            };
            let Some(there) = there else {
                missing.push(name.into());
                continue;
            };
            let number = self.inode_of(there);
            if self.is_dir(number) {
                directory = number;
                continue;
            }
            let target = self.target(number);
            let target = target.ok_or_else(|| WriteError::NotADirectory(place.whole.into()))?;
            links += 1;
            if links > MAX_LINKS_FOLLOWED {
                return Err(WriteError::LinkLoop(place.whole.into()));
            }
            if target.first() == Some(&b'/') {
                directory = ROOT;
            }
            let rest = way.get(at..).unwrap_or_default();
            let joined = [target, b"/", rest].concat();
            if joined.len() > 2 * MAX_PATH {
                return Err(bad(place.whole, "too long with the links on its way"));
            }
            way = Cow::Owned(joined);
            at = 0;
        }
        Ok((directory, missing))
    }
}

fn bad(path: &[u8], why: &'static str) -> WriteError {
    WriteError::BadPath {
        path: path[..path.len().min(MAX_PATH)].into(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::S_IFLNK;
    use super::super::inode::{Body, Inode};
    use super::super::layout::Allocator;
    use super::*;

    fn place(path: &[u8]) -> Place<'_> {
        split(path).unwrap().unwrap()
    }

    fn link(tree: &mut Tree, path: &str, target: &str) {
        let slot = tree.make_way(place(path.as_bytes())).unwrap();
        let text = tree.keep(target.as_bytes()).unwrap();
        let mut inode = Inode::new(S_IFLNK | 0o777, 0);
        inode.size = target.len() as u64;
        inode.body = Body::Link { text, block: 0 };
        tree.add(&slot, inode).unwrap();
    }

    fn directory(tree: &mut Tree, path: &str) -> u32 {
        let slot = tree.make_way(place(path.as_bytes())).unwrap();
        tree.add_directory(&slot, path.as_bytes()).unwrap()
    }

    #[test]
    fn hostile_paths_are_refused() {
        let deep = b"a/".repeat(MAX_DEPTH + 1);
        let long = vec![b'a'; MAX_NAME + 1];
        let longer = vec![b'/'; MAX_PATH + 1];
        for path in [&b"../etc"[..], b"a/../../b", b"a\0b", &deep, &long, &longer] {
            assert!(split(path).is_err(), "{}", path.escape_ascii());
        }
        let place = place(b"./a//b/./c/");
        assert_eq!((place.parent, place.name), (&b"./a//b/./"[..], &b"c"[..]));
        for root in [&b"/"[..], b"", b"./", b"."] {
            assert!(split(root).unwrap().is_none());
        }
    }

    #[test]
    fn names_and_links_are_counted() {
        let mut tree = Tree::new(0);
        let mut allocator = Allocator::new();
        let slot = tree.make_way(place(b"a/b/file")).unwrap();
        let file = tree.add(&slot, Inode::new(0o100_644, 0)).unwrap();
        assert_eq!(tree.get(ROOT).unwrap().links, 4);
        let other = tree.make_way(place(b"a/other")).unwrap();
        tree.link(&other, file).unwrap();
        let found = |tree: &Tree, path: &[u8]| tree.find(place(path)).unwrap().unwrap().there;
        assert_eq!(tree.inode_of(found(&tree, b"/a/other").unwrap()), file);
        tree.remove(found(&tree, b"a/b").unwrap(), &mut allocator);
        assert_eq!(tree.get(file).unwrap().links, 1);
        tree.remove(found(&tree, b"a").unwrap(), &mut allocator);
        assert!(tree.get(file).is_none());
        assert_eq!(tree.get(ROOT).unwrap().links, 3);
        // Their numbers are used again.
        assert!(tree.next() <= file);
    }

    #[test]
    fn links_stay_inside_the_tree() {
        let mut tree = Tree::new(0);
        let etc = directory(&mut tree, "etc");
        for (name, target) in [
            ("up", "../../.."),
            ("abs", "/etc"),
            ("one", "abs/."),
            ("out", "../../etc"),
            ("long", "no/../etc"),
        ] {
            link(&mut tree, name, target);
        }
        assert_eq!(tree.find(place(b"up/x")).unwrap().unwrap().parent, ROOT);
        for way in ["abs", "one", "out", "long", "up/up/abs", "etc/../etc"] {
            let path = format!("{way}/x");
            if way.contains("..") {
                assert!(split(path.as_bytes()).is_err());
                continue;
            }
            let parent = tree.find(place(path.as_bytes())).unwrap().unwrap().parent;
            assert_eq!(parent, etc, "{way}");
        }
        // What is missing behind a link is made where it points to.
        link(&mut tree, "dangling", "/var/lib/new");
        let made = tree.make_way(place(b"dangling/deep/x")).unwrap().parent;
        let same = tree.find(place(b"var/lib/new/deep/x")).unwrap().unwrap().parent;
        assert_eq!(made, same);
    }

    #[test]
    fn loops_and_long_ways_end() {
        let mut tree = Tree::new(0);
        link(&mut tree, "a", "b");
        link(&mut tree, "b", "a");
        link(&mut tree, "self", "self/self");
        link(&mut tree, "wide", &"x/../".repeat(800));
        for path in ["a/x", "b/x", "self/x"] {
            let error = tree.find(place(path.as_bytes())).unwrap_err();
            assert!(matches!(error, WriteError::LinkLoop(_)), "{error}");
        }
        let error = tree.find(place(b"wide/x")).unwrap_err();
        assert!(matches!(error, WriteError::BadPath { .. }), "{error}");
    }

    #[test]
    fn links_do_not_get_below_the_deepest_directory() {
        let mut tree = Tree::new(0);
        let deep = "a/".repeat(MAX_DEPTH - 1);
        directory(&mut tree, &format!("{deep}b"));
        link(&mut tree, "down", &format!("{deep}b"));
        let error = tree.make_way(place(b"down/c/x")).unwrap_err();
        assert!(matches!(error, WriteError::BadPath { .. }), "{error}");
    }

    #[test]
    fn a_file_is_no_directory() {
        let mut tree = Tree::new(0);
        let slot = tree.make_way(place(b"a")).unwrap();
        tree.add(&slot, Inode::new(0o100_777, 0)).unwrap();
        let error = tree.make_way(place(b"a/b")).unwrap_err();
        assert!(matches!(error, WriteError::NotADirectory(_)));
    }
}
