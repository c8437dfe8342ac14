//! Entries with fields, by journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! Field names are constants of the program, values are anything: their form keeps them from
//! ending a field, and what would change a terminal is written out.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with,
};

const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest value, in bytes: what comes from others is cut there.
const MAX_VALUE: usize = 8192;
/// The length of `<6>`.
const PREFIX: usize = 3;

/// syslog(3)'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    bytes: Vec<u8>,
    /// For where there is no journal.
    line: String,
}

impl Entry {
    pub fn new(identifier: &str, priority: Priority, message: &str) -> Self {
        let message = printable(message);
        let number = (priority as u8).to_string();
        let mut entry = Self {
            bytes: Vec::new(),
            line: format!("<{number}>{message}\n"),
        };
        entry.put("MESSAGE", &message);
        entry.put("PRIORITY", &number);
        entry.put("SYSLOG_IDENTIFIER", identifier);
        entry
    }

    /// Adds a field; one that is there already gets another value.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.put(name, &printable(value));
        self
    }

    /// Sends it where standard error is the journal's; elsewhere its message becomes a line
    /// there. Waits for nobody: a journal that is full gets the line alone.
    pub fn send(&self) {
        static NATIVE: OnceLock<bool> = OnceLock::new();
        let line = if *NATIVE.get_or_init(is_stderr) {
            if self.send_to(Path::new(SOCKET)).is_ok() {
                return;
            }
            &*self.line
        } else {
            // Without the priority, which is written for the journal.
            self.line.get(PREFIX..).unwrap_or_default()
        };
        // There is nobody else to tell.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn put(&mut self, name: &str, value: &str) {
        debug_assert!(is_name(name), "{name}");
        self.bytes.extend_from_slice(name.as_bytes());
        // The form for values with line breaks serves for all.
        self.bytes.push(b'\n');
        self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(b'\n');
    }

    fn send_to(&self, journal: &Path) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        match socket.send_to(&self.bytes, journal) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                self.send_as_file(journal)
            }
            sent => sent.map(drop),
        }
    }

    /// What does not fit into a datagram.
    fn send_as_file(&self, journal: &Path) -> io::Result<()> {
        let file = memfd_create("banger-journal", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&self.bytes)?;
        fcntl_add_seals(
            &file,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let address = SocketAddrUnix::new(journal)?;
        sendmsg_addr(&socket, &address, &[], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Whether standard error is a stream of the journal's (systemd.exec(5), JOURNAL_STREAM).
pub fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

/// A text as one line that changes no terminal: control characters are written out, and what is
/// too long is cut.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_VALUE));
    for character in text.chars() {
        if line.len() >= MAX_VALUE {
            line.push('…');
            break;
        }
        push_printable(&mut line, character);
    }
    line
}

fn push_printable(line: &mut String, character: char) {
    let shown: &dyn fmt::Display = match character {
        // Written in the other direction, a text is not what it seems to be.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => &character.escape_default(),
        _ if character.is_control() => &character.escape_default(),
        _ => &character,
    };
    // A string takes everything.
    let _ = write!(line, "{shown}");
}

/// What journald takes for a field's name of ours.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    #[test]
    fn no_value_can_end_its_field_or_change_a_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let entry = Entry::new("b", Priority::Info, "a\nPRIORITY=0").with("BANGER_VM", "\x1b[2J\u{9b}x");
        entry.send_to(&path).unwrap();
        let mut buffer = [0; 512];
        let length = journal.recv(&mut buffer).unwrap();
        let expected = b"MESSAGE\n\x0d\0\0\0\0\0\0\0a\\nPRIORITY=0\nPRIORITY\n\x01\0\0\0\0\0\0\x006\n\
            SYSLOG_IDENTIFIER\n\x01\0\0\0\0\0\0\0b\nBANGER_VM\n\x10\0\0\0\0\0\0\0\\u{1b}[2J\\u{9b}x\n";
        assert_eq!(
            &buffer[..length],
            expected,
            "{}",
            String::from_utf8_lossy(&buffer[..length])
        );
        assert_eq!(entry.line, "<6>a\\nPRIORITY=0\n");
    }

    #[test]
    fn what_is_long_is_cut() {
        let text = printable(&"ü".repeat(MAX_VALUE));
        assert_eq!(text.chars().count(), MAX_VALUE / 2 + 1);
        assert_eq!(printable("\u{202e}a"), "\\u{202e}a");
        assert_eq!(printable("größer 🙂"), "größer 🙂");
    }

    #[test]
    fn a_large_entry_comes_as_a_sealed_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let long = "x".repeat(MAX_VALUE);
        let mut entry = Entry::new("b", Priority::Info, "many");
        for _ in 0..64 {
            entry = entry.with("BANGER_ERROR", &long);
        }
        entry.send_to(&path).unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&journal, &mut [], &mut control, RecvFlags::empty()).unwrap();
        let Some(RecvAncillaryMessage::ScmRights(mut files)) = control.drain().next() else {
            panic!("no file");
        };
        let mut file = File::from(files.next().unwrap());
        assert!(file.write_all(b"x").is_err());
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, entry.bytes);
    }

    #[test]
    fn without_a_journal_that_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::new("b", Priority::Info, "a");
        assert!(entry.send_to(&dir.path().join("none")).is_err());
    }
}
