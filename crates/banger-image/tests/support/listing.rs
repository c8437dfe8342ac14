//! A tree as something that can be compared, whether it is in an image or in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// By path, from the root, which is empty. Without `lost+found`.
pub type Listing = BTreeMap<Vec<u8>, Node>;

#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// As `ls` and `find` have it: d f l p s c b.
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    /// `None` for a directory that no entry describes.
    pub mtime: Option<(i64, u32)>,
    pub size: u64,
    pub device: (u32, u32),
    /// A link's target, a short file's bytes, a longer file's digest.
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of all paths of the same file.
    pub same_as: Vec<u8>,
    pub links: u32,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            mode,
            owner: (uid, gid),
            mtime,
            size,
            device: (major, minor),
            links,
            ..
        } = self;
        write!(
            f,
            "{kind} {mode:o} {uid}:{gid} {mtime:?} {size} {major}:{minor} x{links}"
        )?;
        write!(f, " {:?}", self.content.escape_ascii().to_string())?;
        write!(f, " ={:?}", self.same_as.escape_ascii().to_string())?;
        for (name, value) in &self.xattrs {
            write!(f, " {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        Ok(())
    }
}

/// What is kept of a file's bytes.
pub fn digest(content: &[u8]) -> Vec<u8> {
    match content.len() {
        0..=64 => content.to_vec(),
        _ => Sha256::digest(content).to_vec(),
    }
}

/// Whether an attribute is one that an image keeps.
pub fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}

/// A line for each path: what it is, and what it holds.
pub fn short(listing: &Listing) -> Vec<String> {
    let line = |(path, node): (&Vec<u8>, &Node)| {
        let path = path.escape_ascii().to_string();
        let content = node.content.escape_ascii().to_string();
        match node.kind {
            'd' => format!("{path}/"),
            'l' => format!("{path} -> {content}"),
            'f' if node.same_as.as_slice() != path.as_bytes() => {
                format!("{path} == {}", node.same_as.escape_ascii())
            }
            'f' => format!("{path} = {content}"),
            kind => format!("{path} {kind}"),
        }
    };
    listing
        .iter()
        .filter(|(path, _)| !path.is_empty())
        .map(line)
        .collect()
}

/// Names the files that have several paths.
pub fn join_links(listing: &mut Listing, inodes: &BTreeMap<Vec<u8>, u64>) {
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (path, node) in listing {
        let inode = inodes[path];
        node.same_as = first.entry(inode).or_insert_with(|| path.clone()).clone();
    }
}

/// Lists a directory of the host.
pub fn of_directory(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut inodes = BTreeMap::new();
    let mut todo = vec![(Vec::new(), root.to_owned())];
    while let Some((path, at)) = todo.pop() {
        let metadata = fs::symlink_metadata(&at).unwrap();
        let kind = metadata.file_type();
        let (kind, content) = match () {
            () if kind.is_dir() => ('d', Vec::new()),
            () if kind.is_symlink() => ('l', fs::read_link(&at).unwrap().into_os_string().into_vec()),
            () if kind.is_file() => ('f', digest(&fs::read(&at).unwrap())),
            () if kind.is_fifo() => ('p', Vec::new()),
            () if kind.is_socket() => ('s', Vec::new()),
            () if kind.is_char_device() => ('c', Vec::new()),
            () => ('b', Vec::new()),
        };
        if kind == 'd' {
            for entry in fs::read_dir(&at).unwrap() {
                let name = entry.unwrap().file_name();
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name.as_bytes());
                todo.push((below, at.join(name)));
            }
        }
        let is_device = kind == 'c' || kind == 'b';
        inodes.insert(path.clone(), metadata.ino());
        let node = Node {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: Some((metadata.mtime(), metadata.mtime_nsec() as u32)),
            size: if kind == 'f' || kind == 'l' {
                metadata.size()
            } else {
                0
            },
            device: if is_device {
                (
                    rustix::fs::major(metadata.rdev()),
                    rustix::fs::minor(metadata.rdev()),
                )
            } else {
                (0, 0)
            },
            content,
            xattrs: attributes(&at),
            same_as: Vec::new(),
            links: if kind == 'd' { 0 } else { metadata.nlink() as u32 },
        };
        listing.insert(path, node);
    }
    join_links(&mut listing, &inodes);
    listing
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    names[..len]
        .split(|&b| b == 0)
        .filter(|name| is_kept(name))
        .map(|name| {
            let mut value = vec![0; 65_536];
            let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect()
}
