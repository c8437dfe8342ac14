//! A reader of ext4 for the tests alone, written from the format's description and not from
//! the writer: what both have wrong in the same way is for e2fsprogs to see.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::TIME;
use super::listing::{Listing, Node, digest, is_kept, join_links};

const BLOCK: usize = 4096;

struct Image {
    file: File,
    inodes_per_group: u32,
    tables: Vec<u32>,
}

struct Inode(Vec<u8>);

/// Lists the tree of an image.
pub fn list(path: &Path) -> Listing {
    let image = Image::open(path);
    let mut listing = Listing::new();
    let mut inodes = BTreeMap::new();
    let mut todo = vec![(Vec::new(), 2)];
    while let Some((path, number)) = todo.pop() {
        let inode = image.inode(number);
        if inode.mode() & 0o170_000 == 0o040_000 {
            for (name, child) in image.entries(&inode) {
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(&name);
                if below != b"lost+found" {
                    todo.push((below, child));
                }
            }
        }
        inodes.insert(path.clone(), u64::from(number));
        listing.insert(path, image.node(&inode));
    }
    join_links(&mut listing, &inodes);
    listing
}

impl Image {
    fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let mut head = vec![0; 1024];
        file.read_exact_at(&mut head, 1024).unwrap();
        let head = Inode(head);
        let groups = head.u32(4).div_ceil(head.u32(0x20));
        let mut descriptors = vec![0; groups as usize * 32];
        file.read_exact_at(&mut descriptors, BLOCK as u64).unwrap();
        let descriptors = Inode(descriptors);
        Self {
            inodes_per_group: head.u32(0x28),
            tables: (0..groups as usize)
                .map(|i| descriptors.u32(i * 32 + 8))
                .collect(),
            file,
        }
    }

    fn inode(&self, number: u32) -> Inode {
        let group = (number - 1) / self.inodes_per_group;
        let slot = (number - 1) % self.inodes_per_group;
        let mut raw = vec![0; 256];
        let at = u64::from(self.tables[group as usize]) * BLOCK as u64 + u64::from(slot) * 256;
        self.file.read_exact_at(&mut raw, at).unwrap();
        Inode(raw)
    }

    fn block(&self, number: u32) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        let at = u64::from(number) * BLOCK as u64;
        self.file.read_exact_at(&mut block, at).unwrap();
        block
    }

    fn content(&self, inode: &Inode) -> Vec<u8> {
        assert_ne!(inode.u32(0x20) & 0x8_0000, 0, "no extents");
        let mut content = vec![0; inode.size() as usize];
        self.extents(&inode.0[0x28..0x64], &mut content);
        content
    }

    fn extents(&self, node: &[u8], content: &mut [u8]) {
        let node = Inode(node.to_vec());
        assert_eq!(node.u16(0), 0xf30a);
        for i in 0..usize::from(node.u16(2)) {
            let at = 12 + 12 * i;
            if node.u16(6) > 0 {
                self.extents(&self.block(node.u32(at + 4)), content);
                continue;
            }
            for j in 0..u32::from(node.u16(at + 4)) {
                let start = (node.u32(at) + j) as usize * BLOCK;
                let end = content.len().min(start + BLOCK);
                let block = self.block(node.u32(at + 8) + j);
                content[start..end].copy_from_slice(&block[..end - start]);
            }
        }
    }

    fn entries(&self, inode: &Inode) -> Vec<(Vec<u8>, u32)> {
        let content = Inode(self.content(inode));
        let mut entries = Vec::new();
        let mut at = 0;
        while at < content.0.len() {
            let number = content.u32(at);
            let len = usize::from(content.0[at + 6]);
            let name = content.0[at + 8..at + 8 + len].to_vec();
            if number != 0 && name != b"." && name != b".." {
                entries.push((name, number));
            }
            at += usize::from(content.u16(at + 4));
        }
        entries
    }

    fn node(&self, inode: &Inode) -> Node {
        let kind = match inode.mode() & 0o170_000 {
            0o040_000 => 'd',
            0o120_000 => 'l',
            0o100_000 => 'f',
            0o010_000 => 'p',
            0o140_000 => 's',
            0o020_000 => 'c',
            _ => 'b',
        };
        let content = match kind {
            'f' => digest(&self.content(inode)),
            'l' if inode.size() < 60 => inode.0[0x28..0x28 + inode.size() as usize].to_vec(),
            'l' => self.content(inode),
            _ => Vec::new(),
        };
        let device = match (kind, inode.u32(0x28), inode.u32(0x2c)) {
            ('c' | 'b', 0, new) => ((new >> 8) & 0xfff, (new & 0xff) | ((new >> 12) & !0xff)),
            ('c' | 'b', old, _) => (old >> 8, old & 0xff),
            _ => (0, 0),
        };
        let mtime = inode.mtime();
        Node {
            kind,
            mode: inode.mode() & 0o7777,
            owner: (
                u32::from(inode.u16(2)) | u32::from(inode.u16(0x78)) << 16,
                u32::from(inode.u16(0x18)) | u32::from(inode.u16(0x7a)) << 16,
            ),
            mtime: (mtime != (TIME, 0)).then_some(mtime),
            size: if kind == 'f' || kind == 'l' {
                inode.size()
            } else {
                0
            },
            device,
            content,
            xattrs: self.attributes(inode),
            same_as: Vec::new(),
            links: if kind == 'd' {
                0
            } else {
                u32::from(inode.u16(0x1a))
            },
        }
    }

    fn attributes(&self, inode: &Inode) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut found = BTreeMap::new();
        if inode.u32(160) == 0xea02_0000 {
            read_attributes(&inode.0[164..], 0, &mut found);
        }
        if inode.u32(0x68) != 0 {
            let block = self.block(inode.u32(0x68));
            assert_eq!(block[..4], [0, 0, 2, 0xea]);
            read_attributes(&block, 32, &mut found);
        }
        assert!(found.keys().all(|name| is_kept(name)), "{found:?}");
        found
    }
}

fn read_attributes(area: &[u8], mut at: usize, found: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let raw = Inode(area.to_vec());
    while raw.u32(at) != 0 {
        let len = usize::from(area[at]);
        let prefix: &[u8] = match area[at + 1] {
            1 => b"user.",
            2 => b"system.posix_acl_access",
            3 => b"system.posix_acl_default",
            6 => b"security.",
            other => panic!("name space {other}"),
        };
        let name = [prefix, &area[at + 16..at + 16 + len]].concat();
        let value = &area[usize::from(raw.u16(at + 2))..][..raw.u32(at + 8) as usize];
        let value = match area[at + 1] {
            2 | 3 => access_list(value),
            _ => value.to_vec(),
        };
        found.insert(name, value);
        at += (16 + len).next_multiple_of(4);
    }
}

/// From the disk's form to that of system calls: ids that mean nothing are all ones.
fn access_list(mut value: &[u8]) -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    value = &value[4..];
    while !value.is_empty() {
        let named = value[0] == 2 || value[0] == 8;
        list.extend_from_slice(&value[..if named { 8 } else { 4 }]);
        if !named {
            list.extend_from_slice(&[0xff; 4]);
        }
        value = &value[if named { 8 } else { 4 }..];
    }
    list
}

impl Inode {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    fn mode(&self) -> u32 {
        u32::from(self.u16(0))
    }

    fn size(&self) -> u64 {
        u64::from(self.u32(4)) | u64::from(self.u32(0x6c)) << 32
    }

    fn mtime(&self) -> (i64, u32) {
        let extra = self.u32(0x88);
        let seconds = i64::from(self.u32(0x10).cast_signed()) + (i64::from(extra & 3) << 32);
        (seconds, extra >> 2)
    }
}
