//! What the helper says, with fields by which it is found: `journalctl -u banger` shows all of
//! it, `journalctl -u banger-vm-7.scope` what is about slot 7.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;

/// Where journald takes entries (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const SOCKET: &str = "/run/systemd/journal/socket";

/// syslog(3)'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// Writes an entry; to standard error where there is no journal. Field names are fixed and
/// valid, values are anything.
pub fn say(priority: Priority, message: &str, fields: &[(&str, &str)]) {
    let entry = entry(priority, message, fields);
    let sent = UnixDatagram::unbound().and_then(|socket| {
        // Rather lose a line than wait for a journal that is full.
        socket.set_nonblocking(true)?;
        socket.send_to(&entry, SOCKET)
    });
    if sent.is_err() {
        let _ = writeln!(
            std::io::stderr(),
            "<{}>{}",
            priority as u8,
            message.escape_debug()
        );
    }
}

/// An error with its causes, as one text.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn entry(priority: Priority, message: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut entry = Vec::new();
    let priority = (priority as u8).to_string();
    let always = [
        ("MESSAGE", message),
        ("PRIORITY", &priority),
        ("SYSLOG_IDENTIFIER", "banger-helper"),
        ("OBJECT_SYSTEMD_UNIT", "banger.service"),
    ];
    for (name, value) in always.iter().chain(fields) {
        entry.extend_from_slice(name.as_bytes());
        // The form for values with line breaks serves for all.
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_end_its_field() {
        let entry = entry(Priority::Info, "a\nPRIORITY=0", &[("BANGER_SLOT", "7")]);
        let expected = b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nPRIORITY\n\x01\0\0\0\0\0\0\x006\n";
        assert!(entry.starts_with(expected));
        assert!(entry.ends_with(b"BANGER_SLOT\n\x01\0\0\0\0\0\0\x007\n"));
    }
}
