//! Whiteouts of the OCI image specification (layer.md): entries of a layer that hide what
//! lower layers have, and never what the same layer has, in whatever order it says so.

use super::error::WriteError;
use super::layout::Allocator;
use super::path::{self, Place};
use super::tree::{LOST_FOUND, Tree};

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the name of an entry asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whiteout<'a> {
    /// Hides what has this path.
    Name(Place<'a>),
    /// Hides everything in the directory that the place is in.
    Opaque(Place<'a>),
}

/// Whether a path is a whiteout. The name alone makes it one, whatever the type of the entry.
///
/// # Errors
/// Whiteouts of nothing, of `.` and of `..`; entries below a name that only whiteouts have.
pub(super) fn parse(path: &[u8]) -> Result<Option<Whiteout<'_>>, WriteError> {
    let Some(place) = path::split(path)? else {
        return Ok(None);
    };
    if place.parents().any(|name| name.starts_with(PREFIX)) {
        return Err(WriteError::BadPath {
            path: path.into(),
            why: "below the name of a whiteout",
        });
    }
    if place.name == OPAQUE {
        return Ok(Some(Whiteout::Opaque(place)));
    }
    match place.name.strip_prefix(PREFIX) {
        None => Ok(None),
        Some(b"" | b"." | b"..") => Err(WriteError::BadWhiteout(path.into())),
        Some(name) => Ok(Some(Whiteout::Name(place.with_name(name)))),
    }
}

impl Tree {
    /// Hides what a whiteout names. What is not there needs no hiding.
    pub(super) fn apply(
        &mut self,
        whiteout: Whiteout<'_>,
        allocator: &mut Allocator,
    ) -> Result<(), WriteError> {
        let (Whiteout::Name(place) | Whiteout::Opaque(place)) = whiteout;
        let slot = match self.find(place) {
            Err(WriteError::NotADirectory(_)) | Ok(None) => return Ok(()),
            found => found?,
        };
        let Some(slot) = slot else { return Ok(()) };
        match (whiteout, slot.there) {
            (Whiteout::Opaque(_), _) => {
                self.hide_below(slot.parent, allocator);
            }
            (Whiteout::Name(_), Some(entry)) => {
                self.hide(entry, allocator);
            }
            (Whiteout::Name(_), None) => {}
        }
        Ok(())
    }

    /// Removes what lower layers have under a name; says whether something stays.
    ///
    /// A directory of a lower layer stays where this layer has something below it: then this
    /// layer made it, and as nothing describes it, it is like one that was missing.
    fn hide(&mut self, entry: u32, allocator: &mut Allocator) -> bool {
        let number = self.inode_of(entry);
        let left = self.is_dir(number) && self.hide_below(number, allocator);
        if self.is_of_layer(entry) || number == LOST_FOUND {
            return true;
        }
        if !left {
            self.unlink(entry, allocator);
            return false;
        }
        self.forget_metadata(number, allocator);
        self.touch(entry);
        true
    }

    /// Removes what lower layers have in a directory; says whether something stays. Each
    /// directory is gone through once for a layer, however often it is asked for. Directories
    /// are nested no deeper than the limit.
    fn hide_below(&mut self, number: u32, allocator: &mut Allocator) -> bool {
        let layer = self.layer;
        let Some(directory) = self.directory_mut(number) else {
            return false;
        };
        if directory.bare_since == layer {
            return self.children(number).next().is_some();
        }
        directory.bare_since = layer;
        let entries: Vec<u32> = self.children(number).collect();
        let mut left = false;
        for entry in entries {
            left |= self.hide(entry, allocator);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for bad in [&b".wh."[..], b"a/.wh..", b".wh...", b"a/.wh.../"] {
            assert!(matches!(parse(bad), Err(WriteError::BadWhiteout(_))), "{bad:?}");
        }
        for bad in [&b".wh.a/b"[..], b"x/.wh..wh..opq/b", b".wh..wh.plnk/1"] {
            assert!(matches!(parse(bad), Err(WriteError::BadPath { .. })), "{bad:?}");
        }
        for plain in [&b"a"[..], b"a/.w", b".whx", b"/", b"a.wh.b"] {
            assert!(parse(plain).unwrap().is_none(), "{plain:?}");
        }
        let Some(Whiteout::Name(place)) = parse(b"./d/.wh.f").unwrap() else {
            panic!("no whiteout");
        };
        assert_eq!(place.name, b"f");
        assert!(matches!(
            parse(b"d/.wh..wh..opq").unwrap(),
            Some(Whiteout::Opaque(_))
        ));
        let Some(Whiteout::Name(place)) = parse(b"d/.wh..wh.x").unwrap() else {
            panic!("no whiteout");
        };
        assert_eq!(place.name, b".wh.x");
    }
}
