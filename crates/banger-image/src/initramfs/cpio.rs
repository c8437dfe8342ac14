//! A writer of cpio archives in the "newc" format, which is what the kernel's initramfs
//! unpacks. The same members give the same bytes: no times, no owners but root.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const TRAILER: &str = "TRAILER!!!";

/// Writes members in the order they are given. Paths are relative, without `./`.
pub(super) struct Writer<W> {
    out: W,
    /// Inode numbers only have to differ: none is a hard link.
    next_inode: u32,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, next_inode: 1 }
    }

    /// Adds a directory; its parents come first.
    pub(super) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.member(path, DIRECTORY | mode, &[])
    }

    /// Adds a file. The kernel's unpacker takes at most 4 GiB − 1 of it.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.member(path, REGULAR | mode, content)
    }

    /// Ends the archive at a multiple of 4 bytes, so that another may follow.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.next_inode = 0;
        self.member(TRAILER, 0, &[])?;
        Ok(self.out)
    }

    fn member(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let header = [
            self.next_inode,
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime
            size,
            0, // device, major and minor
            0,
            0, // device of a node, major and minor
            0,
            path.len() as u32 + 1,
            0, // checksum, of the "crc" format only
        ];
        self.next_inode = self.next_inode.wrapping_add(1);

        self.out.write_all(b"070701")?;
        for field in header {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(b"\0")?;
        // 6 bytes of magic and 13 fields of 8 digits.
        self.pad(110 + path.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A member as it was read back: path, mode, content.
    pub(in super::super) type Member = (String, u32, Vec<u8>);

    /// Reads every archive of `bytes`, as the kernel does.
    pub(in super::super) fn read(bytes: &[u8]) -> Vec<Member> {
        let mut members = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            // Zero bytes may stand between archives.
            if bytes[at] == 0 {
                at += 1;
                continue;
            }
            assert_eq!(&bytes[at..at + 6], b"070701", "magic at {at}");
            assert_eq!(at % 4, 0, "alignment");
            let field = |index: usize| {
                let from = at + 6 + index * 8;
                let digits = std::str::from_utf8(&bytes[from..from + 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap() as usize
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let path = std::str::from_utf8(&bytes[at + 110..at + 110 + name - 1]).unwrap();
            let content = (at + 110 + name).next_multiple_of(4);
            if path != TRAILER {
                members.push((
                    path.to_owned(),
                    mode as u32,
                    bytes[content..content + size].to_vec(),
                ));
            }
            at = (content + size).next_multiple_of(4);
        }
        members
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new(Vec::new());
        writer.directory("a", 0o755).unwrap();
        writer.file("a/bc", 0o600, b"hello").unwrap();
        writer.file("a/empty", 0o644, b"").unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let twice = [bytes.clone(), bytes].concat();
        let members = read(&twice);
        assert_eq!(members.len(), 6);
        assert_eq!(members[0], ("a".to_owned(), 0o040_755, vec![]));
        assert_eq!(members[1], ("a/bc".to_owned(), 0o100_600, b"hello".to_vec()));
        assert_eq!(members[3..], members[..3]);
    }
}
