//! What a client has open.

use std::collections::HashMap;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use russh_sftp::protocol::{FileAttributes, OpenFlags};

use super::attributes;

/// Files and directories that one client may have open.
pub(super) const MAX_HANDLES: usize = 512;
/// The most that one read gives; a client that asks for more asks again.
pub(super) const MAX_READ: u32 = 255 << 10;
/// Entries of a directory in one answer.
const ENTRIES: usize = 100;

/// Open files and directories by the names that the client knows them by.
#[derive(Default)]
pub(super) struct Handles {
    open: HashMap<String, Open>,
    next: u64,
}

enum Open {
    File { file: File, append: bool },
    Directory { entries: ReadDir },
}

/// One entry of a directory.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) attributes: FileAttributes,
}

impl Handles {
    pub(super) fn open_file(
        &mut self,
        path: &Path,
        flags: OpenFlags,
        attributes: &FileAttributes,
    ) -> io::Result<String> {
        let mut options: fs::OpenOptions = flags.into();
        options.mode(attributes::mode(attributes, 0o666));
        // A client that opens a pipe nobody writes to must not stop the others' requests.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        let file = options.open(path)?;
        let append = flags.contains(OpenFlags::APPEND);
        self.insert(Open::File { file, append })
    }

    pub(super) fn open_directory(&mut self, path: &Path) -> io::Result<String> {
        let entries = fs::read_dir(path)?;
        self.insert(Open::Directory { entries })
    }

    pub(super) fn close(&mut self, handle: &str) -> io::Result<()> {
        self.open.remove(handle).map(drop).ok_or_else(unknown)
    }

    pub(super) fn file(&self, handle: &str) -> io::Result<&File> {
        match self.open.get(handle) {
            Some(Open::File { file, .. }) => Ok(file),
            _ => Err(unknown()),
        }
    }

    /// At most `length` bytes from `offset` on; none at the end of the file.
    pub(super) fn read(&self, handle: &str, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        let file = self.file(handle)?;
        let mut data = vec![0; length.min(MAX_READ) as usize];
        let length = match file.read_at(&mut data, offset) {
            // What has no positions, such as a pipe, is read as it comes.
            Err(error) if error.kind() == io::ErrorKind::NotSeekable => {
                io::Read::read(&mut &*file, &mut data)?
            }
            result => result?,
        };
        data.truncate(length);
        Ok(data)
    }

    pub(super) fn write(&self, handle: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.open.get(handle) {
            Some(Open::File { file, append: true }) => io::Write::write_all(&mut &*file, data),
            Some(Open::File { file, .. }) => file.write_all_at(data, offset),
            _ => Err(unknown()),
        }
    }

    /// The next entries of a directory; none when all were given.
    pub(super) fn entries(&mut self, handle: &str) -> io::Result<Vec<Entry>> {
        let Some(Open::Directory { entries }) = self.open.get_mut(handle) else {
            return Err(unknown());
        };
        let mut found = Vec::new();
        for entry in entries.take(ENTRIES) {
            let entry = entry?;
            // A file that has gone in between has no attributes.
            let attributes = entry.metadata().map(|found| attributes::of(&found));
            found.push(Entry {
                name: entry.file_name().to_string_lossy().into_owned(),
                attributes: attributes.unwrap_or_default(),
            });
        }
        Ok(found)
    }

    fn insert(&mut self, open: Open) -> io::Result<String> {
        if self.open.len() >= MAX_HANDLES {
            return Err(io::Error::other("Too many open files"));
        }
        let handle = self.next.to_string();
        self.next += 1;
        self.open.insert(handle.clone(), open);
        Ok(handle)
    }
}

fn unknown() -> io::Error {
    io::Error::other("There is no such handle")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_read_and_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut handles = Handles::default();
        let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE;
        let none = FileAttributes::default();
        let handle = handles.open_file(&path, flags, &none).unwrap();
        handles.write(&handle, 2, b"cd").unwrap();
        handles.write(&handle, 0, b"ab").unwrap();
        assert_eq!(handles.read(&handle, 1, 100).unwrap(), b"bcd");
        assert!(handles.read(&handle, 4, 100).unwrap().is_empty());
        handles.close(&handle).unwrap();
        assert!(handles.read(&handle, 0, 1).is_err());
        assert!(handles.close(&handle).is_err());
    }

    #[test]
    fn directories_are_listed_once() {
        let directory = tempfile::tempdir().unwrap();
        for index in 0..ENTRIES + 5 {
            fs::write(directory.path().join(index.to_string()), b"").unwrap();
        }
        let mut handles = Handles::default();
        let handle = handles.open_directory(directory.path()).unwrap();
        let mut count = 0;
        loop {
            let entries = handles.entries(&handle).unwrap();
            if entries.is_empty() {
                break;
            }
            count += entries.len();
        }
        assert_eq!(count, ENTRIES + 5);
        assert!(handles.read(&handle, 0, 1).is_err());
    }

    #[test]
    fn handles_are_bounded() {
        let mut handles = Handles::default();
        for _ in 0..MAX_HANDLES {
            handles.open_directory(Path::new("/")).unwrap();
        }
        assert!(handles.open_directory(Path::new("/")).is_err());
    }
}
