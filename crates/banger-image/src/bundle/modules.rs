//! The modules of a kernel as one tar archive with a single form: files alone, sorted, headers
//! of ustar with nothing in them but a name and a size.
//!
//! What reads it needs no parser that is lenient anywhere: it makes the header itself, and
//! compares.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::BLOCK;
use super::error::BundleError;
use crate::kernel::{MAX_DEPTH, MAX_ENTRIES, MAX_UNPACKED};

/// Two empty blocks end an archive.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The files below a directory of modules.
#[derive(Debug)]
pub(crate) struct Tree {
    dir: PathBuf,
    /// The path below the directory, and the bytes; sorted by the path's bytes.
    files: Vec<(String, u64)>,
}

impl Tree {
    /// Lists the files. Links and other things are left out, as an import leaves them out.
    pub(crate) fn scan(dir: &Path) -> Result<Self, BundleError> {
        let mut tree = Self {
            dir: dir.to_owned(),
            files: Vec::new(),
        };
        tree.add(dir, "", 0)?;
        tree.files.sort_unstable();
        Ok(tree)
    }

    fn add(&mut self, dir: &Path, below: &str, depth: usize) -> Result<(), BundleError> {
        if depth >= MAX_DEPTH {
            return Err(BundleError::Modules("directories that are too deep"));
        }
        for entry in fs::read_dir(dir).map_err(BundleError::Read)? {
            let entry = entry.map_err(BundleError::Read)?;
            let found = entry.metadata().map_err(BundleError::Read)?;
            let name = entry.file_name();
            let name = name.to_str().ok_or(BundleError::Modules("a bad name"))?;
            let path = format!("{below}{name}");
            if found.is_dir() {
                self.add(&entry.path(), &format!("{path}/"), depth + 1)?;
            } else if found.is_file() {
                header(&path, found.len()).ok_or(BundleError::Modules("a bad name"))?;
                self.files.push((path, found.len()));
            }
            if self.files.len() > MAX_ENTRIES {
                return Err(BundleError::Modules("too many files"));
            }
        }
        Ok(())
    }

    /// Bytes of the archive.
    pub(crate) fn tar_bytes(&self) -> u64 {
        let file = |(_, size): &(String, u64)| BLOCK as u64 + size.next_multiple_of(BLOCK as u64);
        self.files.iter().map(file).sum::<u64>() + END.len() as u64
    }

    /// Writes the archive. `check` is called after each file, with its bytes.
    pub(super) fn write(
        &self,
        out: &mut impl Write,
        mut check: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        for (path, size) in &self.files {
            let header = header(path, *size).ok_or(io::ErrorKind::InvalidData)?;
            out.write_all(header.as_bytes())?;
            let file = File::open(self.dir.join(path))?;
            if io::copy(&mut file.take(*size), out)? != *size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out.write_all(&END[..padding_of(*size)])?;
            check(*size)?;
        }
        out.write_all(&END)
    }
}

/// Reads an archive, file by file.
#[derive(Debug)]
pub(crate) struct Modules<R> {
    archive: R,
    /// Bytes of the archive that are left.
    left: u64,
    files: usize,
    last: String,
    /// Bytes of the file before which were not read yet, and those that pad it.
    content: u64,
    padding: usize,
}

impl<R: Read> Modules<R> {
    /// An archive of so many bytes.
    pub(crate) fn new(archive: R, bytes: u64) -> Result<Self, BundleError> {
        if bytes > MAX_UNPACKED {
            return Err(BundleError::TooLarge {
                member: super::MODULES,
                limit: MAX_UNPACKED,
            });
        }
        Ok(Self {
            archive,
            left: bytes,
            files: 0,
            last: String::new(),
            content: 0,
            padding: 0,
        })
    }

    /// The next file's path, which has only names in it. Its content is what is read then; that
    /// of the one before must have been read to its end.
    pub(crate) fn next(&mut self) -> Result<Option<PathBuf>, BundleError> {
        if self.content > 0 {
            return Err(BundleError::Modules("a file that was not read"));
        }
        let mut padding = [0; BLOCK];
        self.take(&mut padding[..self.padding.min(BLOCK)])?;
        let mut block = [0; BLOCK];
        self.take(&mut block)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(BundleError::Modules("padding that is not empty"));
        }
        if block == [0; BLOCK] {
            self.take(&mut block)?;
            return if block == [0; BLOCK] && self.left == 0 {
                Ok(None)
            } else {
                Err(BundleError::Modules("something after its end"))
            };
        }
        let (path, size) = parse(&block).ok_or(BundleError::Modules("another header"))?;
        if path <= self.last {
            return Err(BundleError::Modules("files that are not sorted"));
        }
        self.files += 1;
        if self.files > MAX_ENTRIES {
            return Err(BundleError::Modules("too many files"));
        }
        self.last.clone_from(&path);
        self.padding = padding_of(size);
        self.left = (self.left.checked_sub(size)).ok_or(BundleError::Modules("a file that is cut off"))?;
        self.content = size;
        Ok(Some(PathBuf::from(path)))
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<(), BundleError> {
        let left = self.left.checked_sub(buffer.len() as u64);
        self.left = left.ok_or(BundleError::Modules("no end"))?;
        self.archive.read_exact(buffer).map_err(BundleError::Read)
    }
}

/// The content of the file that [`Modules::next`] named last.
impl<R: Read> Read for Modules<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content == 0 {
            return Ok(0);
        }
        let read = self.archive.by_ref().take(self.content).read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= read as u64;
        Ok(read)
    }
}

/// The one header of a file; none when its path cannot stand in an archive.
fn header(path: &str, size: u64) -> Option<Header> {
    let depth = path.split('/').count();
    let name = |name: &str| {
        !matches!(name, "" | "." | "..") && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    if depth > MAX_DEPTH || !path.split('/').all(name) {
        return None;
    }
    let mut header = Header::new_ustar();
    header.set_path(path).ok()?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Some(header)
}

fn parse(block: &[u8; BLOCK]) -> Option<(String, u64)> {
    let found = Header::from_byte_slice(block);
    let path = std::str::from_utf8(&found.path_bytes()).ok()?.to_owned();
    let size = found.size().ok()?;
    let canonical = header(&path, size)?;
    (canonical.as_bytes() == block).then_some((path, size))
}

fn padding_of(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("kernel/{}/{}", "d".repeat(90), "m".repeat(90));
        for (path, size) in [
            ("modules.dep", 5),
            ("kernel/a.ko", 512),
            ("kernel/b/c.ko.xz", 70_000),
            ("kernel-2/x", 0),
            (&long, 1),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![7; size]).unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("build")).unwrap();
        let tree = Tree::scan(dir.path()).unwrap();
        (dir, tree)
    }

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut archive = Vec::new();
        tree.write(&mut archive, |_| Ok(())).unwrap();
        assert_eq!(archive.len() as u64, tree.tar_bytes());
        archive
    }

    fn read(archive: &[u8]) -> Result<Vec<(PathBuf, u64)>, BundleError> {
        let mut modules = Modules::new(archive, archive.len() as u64)?;
        let mut found = Vec::new();
        while let Some(path) = modules.next()? {
            let size = io::copy(&mut modules, &mut io::sink()).map_err(BundleError::Read)?;
            found.push((path, size));
        }
        Ok(found)
    }

    #[test]
    fn a_tree_is_read_as_it_is_written() {
        let (_dir, tree) = tree();
        let found = read(&archive(&tree)).unwrap();
        let expected: Vec<_> = tree
            .files
            .iter()
            .map(|(path, size)| (path.into(), *size))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn another_form_is_refused() {
        let (_dir, tree) = tree();
        let good = archive(&tree);
        // Every byte of the first header, and the rest of the archive in steps.
        for at in (0..512).chain((512..good.len()).step_by(509)) {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            let same_shape = read(&bad).is_ok_and(|found| found == read(&good).unwrap());
            assert!(same_shape == bad_in_content(&good, at), "{at}");
        }
        for len in [0, 100, 512, 1024, good.len() - 512, good.len() - 1] {
            assert!(read(&good[..len]).is_err(), "{len}");
        }
        let longer = [&good[..], &[0; 512]].concat();
        assert!(matches!(read(&longer), Err(BundleError::Modules(_))));
    }

    /// Whether a byte is one of a file, which can be any.
    fn bad_in_content(good: &[u8], at: usize) -> bool {
        let mut start = 0;
        while let Some((_, size)) = parse(good[start..start + BLOCK].try_into().unwrap()) {
            let data = start + BLOCK;
            if (data..data + size as usize).contains(&at) {
                return true;
            }
            start = data + size.next_multiple_of(BLOCK as u64) as usize;
        }
        false
    }

    #[test]
    fn names_that_lead_elsewhere_have_no_header() {
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a b", "a\\b", "ä", "a\n",
        ] {
            assert!(header(bad, 1).is_none(), "{bad:?}");
        }
        let deep = vec!["d"; MAX_DEPTH + 1].join("/");
        assert!(header(&deep, 1).is_none());
        assert!(header(&"x".repeat(300), 1).is_none());
        assert!(header("kernel/fs/ext4.ko.xz", 1).is_some());
        for (path, kind) in [("../x", EntryType::Regular), ("a", EntryType::Symlink)] {
            let mut block = Header::new_ustar();
            block.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            block.set_entry_type(kind);
            block.set_size(0);
            block.set_cksum();
            let archive = [&block.as_bytes()[..], &END].concat();
            assert!(matches!(
                read(&archive),
                Err(BundleError::Modules("another header"))
            ));
        }
    }

    #[test]
    fn files_come_once_and_in_their_order() {
        let file = |path: &str| header(path, 0).unwrap().as_bytes().to_vec();
        for (a, b) in [("a", "a"), ("b", "a")] {
            let archive = [&file(a)[..], &file(b), &END].concat();
            assert!(matches!(
                read(&archive),
                Err(BundleError::Modules("files that are not sorted"))
            ));
        }
    }
}
