//! Extended attributes: beside the inode where they fit, else in a block of their own.

use super::checksum::crc32c;
use super::encode::{put16, put32};
use super::layout::{BLOCK, INODE};

const MAGIC: u32 = 0xea02_0000;
/// Bytes of an inode before its own attributes: 128, and 32 of the larger form.
pub(super) const INODE_END: usize = 160;
const INODE_ROOM: usize = INODE - INODE_END;
const ENTRY: usize = 16;
const BLOCK_HEADER: usize = 32;
/// A list ends with four bytes of zeros.
const TERMINATOR: usize = 4;

/// An attribute in the form of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    index: u8,
    suffix: Vec<u8>,
    value: Vec<u8>,
}

/// Where a file's attributes go.
pub(super) enum Place {
    None,
    /// The bytes after the inode's fields.
    Inode(Box<[u8; INODE_ROOM]>),
    /// A block; its checksum, which depends on its place, is set by [`seal_block`].
    Block(Box<[u8; BLOCK]>),
}

impl Attribute {
    /// Takes an attribute as system calls name it. `None` for what has no place on a disk: an
    /// unknown name space, or a malformed access control list; and for what only the machine's
    /// own root may say: `trusted.`, and of `security.` all but a file's capabilities.
    pub(super) fn new(name: &[u8], value: &[u8]) -> Option<Self> {
        let (index, suffix, value) = match name {
            b"system.posix_acl_access" => (2, &b""[..], acl(value)?),
            b"system.posix_acl_default" => (3, &b""[..], acl(value)?),
            b"security.capability" => (6, &b"capability"[..], value.to_vec()),
            _ => (1, name.strip_prefix(b"user.")?, value.to_vec()),
        };
        let named = index == 2 || index == 3 || !suffix.is_empty();
        // Above 7 bits the kernel's hash depends on the machine.
        (named && suffix.len() <= 255 && suffix.is_ascii() && !suffix.contains(&0)).then(|| Self {
            index,
            suffix: suffix.to_vec(),
            value,
        })
    }

    fn entry_len(&self) -> usize {
        (ENTRY + self.suffix.len()).next_multiple_of(4)
    }

    fn len(&self) -> usize {
        self.entry_len() + self.value.len().next_multiple_of(4)
    }

    /// The kernel's `ext4_xattr_hash_entry`.
    fn hash(&self) -> u32 {
        let mut hash = 0u32;
        for &byte in &self.suffix {
            hash = hash.rotate_left(5) ^ u32::from(byte);
        }
        for chunk in self.value.chunks(4) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(word);
        }
        hash
    }
}

/// Lays attributes out. `None` when they do not fit in a block.
pub(super) fn place(mut attributes: Vec<Attribute>) -> Option<Place> {
    attributes
        .sort_by(|a, b| (a.index, a.suffix.len(), &a.suffix).cmp(&(b.index, b.suffix.len(), &b.suffix)));
    // The last of two with one name wins, as with setxattr.
    attributes.reverse();
    attributes.dedup_by(|a, b| a.index == b.index && a.suffix == b.suffix);
    attributes.reverse();
    if attributes.is_empty() {
        return Some(Place::None);
    }
    let total: usize = attributes.iter().map(Attribute::len).sum::<usize>() + TERMINATOR;
    if total + 4 <= INODE_ROOM {
        let mut room = Box::new([0; INODE_ROOM]);
        put32(&mut room[..], 0, MAGIC);
        // Offsets count from the first entry; hashes stay zero beside an inode.
        fill(&mut room[4..], 0, &attributes, false);
        return Some(Place::Inode(room));
    }
    if total + BLOCK_HEADER > BLOCK {
        return None;
    }
    let mut block = Box::new([0; BLOCK]);
    fill(&mut block[..], BLOCK_HEADER, &attributes, true);
    put32(&mut block[..], 0, MAGIC);
    put32(&mut block[..], 4, 1); // references
    put32(&mut block[..], 8, 1); // blocks
    let hash = attributes
        .iter()
        .fold(0u32, |hash, attribute| hash.rotate_left(16) ^ attribute.hash());
    put32(&mut block[..], 12, hash);
    Some(Place::Block(block))
}

/// Sets the checksum of a block of attributes.
pub(super) fn seal_block(block: &mut [u8; BLOCK], number: u32, seed: u32) {
    put32(block, 16, 0);
    let crc = crc32c(seed, &u64::from(number).to_le_bytes());
    let crc = crc32c(crc, block);
    put32(block, 16, crc);
}

/// Entries from `at` upwards, values from the end downwards.
fn fill(area: &mut [u8], mut at: usize, attributes: &[Attribute], hashed: bool) {
    let mut end = area.len();
    for attribute in attributes {
        end -= attribute.value.len().next_multiple_of(4);
        area[at] = attribute.suffix.len() as u8;
        area[at + 1] = attribute.index;
        put16(
            area,
            at + 2,
            if attribute.value.is_empty() { 0 } else { end as u16 },
        );
        put32(area, at + 8, attribute.value.len() as u32);
        if hashed {
            put32(area, at + 12, attribute.hash());
        }
        area[at + ENTRY..][..attribute.suffix.len()].copy_from_slice(&attribute.suffix);
        area[end..][..attribute.value.len()].copy_from_slice(&attribute.value);
        at += attribute.entry_len();
    }
}

/// An access control list from the form of system calls to that of the disk, which leaves
/// out the ids that mean nothing.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != 2 || !rest.is_empty() {
        return None;
    }
    let mut disk = 1u32.to_le_bytes().to_vec();
    for entry in entries {
        match entry[0] {
            // The owner, its group, the mask, the others.
            0x01 | 0x04 | 0x10 | 0x20 => disk.extend_from_slice(&entry[..4]),
            // A user, a group.
            0x02 | 0x08 => disk.extend_from_slice(entry),
            _ => return None,
        }
    }
    Some(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_stay_with_the_inode() {
        let capability = Attribute::new(b"security.capability", &[1; 20]).unwrap();
        assert!(matches!(place(vec![capability]), Some(Place::Inode(_))));
        let large = Attribute::new(b"user.large", &[1; 100]).unwrap();
        assert!(matches!(place(vec![large]), Some(Place::Block(_))));
        let larger = Attribute::new(b"user.larger", &[1; 5000]).unwrap();
        assert!(place(vec![larger]).is_none());
        assert!(matches!(place(vec![]), Some(Place::None)));
    }

    #[test]
    fn the_last_of_two_wins() {
        let old = Attribute::new(b"user.a", b"old").unwrap();
        let new = Attribute::new(b"user.a", b"new").unwrap();
        let Some(Place::Inode(room)) = place(vec![old, new]) else {
            panic!("not beside the inode");
        };
        let found = |text: &[u8]| room.windows(3).any(|window| window == text);
        assert!(found(b"new") && !found(b"old"));
    }

    #[test]
    fn other_name_spaces_are_left_out() {
        for name in [
            &b"user."[..],
            b"system.data",
            b"plain",
            b"",
            b"user.\xff",
            b"trusted.overlay.redirect",
            b"security.selinux",
            b"security.ima",
        ] {
            assert_eq!(Attribute::new(name, b"x"), None, "{name:?}");
        }
    }

    #[test]
    fn access_control_lists_change_their_form() {
        let mut value = 2u32.to_le_bytes().to_vec();
        value.extend_from_slice(&[1, 0, 7, 0, 255, 255, 255, 255]);
        value.extend_from_slice(&[2, 0, 5, 0, 0xe8, 3, 0, 0]);
        assert_eq!(
            acl(&value).unwrap(),
            [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 5, 0, 0xe8, 3, 0, 0]
        );
        assert_eq!(acl(&value[..value.len() - 1]), None);
        assert_eq!(acl(b""), None);
    }
}
