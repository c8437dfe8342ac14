//! A stream to journald that outlives its opener.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Where journald takes streams.
const SOCKET: &str = "/run/systemd/journal/stdout";

/// Opens a stream whose lines become journal entries under `identifier`. journald attributes
/// each line to the process that writes it, so a VMM's lines land under its own scope. `None`
/// where no journald listens.
///
/// # Errors
/// When the socket is there and refuses, or `identifier` has a line break.
pub fn journal_stream(identifier: &str) -> io::Result<Option<OwnedFd>> {
    stream_to(Path::new(SOCKET), identifier)
}

fn stream_to(socket: &Path, identifier: &str) -> io::Result<Option<OwnedFd>> {
    if identifier.contains(['\n', '\0']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    stream.shutdown(Shutdown::Read)?;
    // Identifier, unit (read from root only), priority 6 (info), level prefix off (the guest
    // writes these lines and could forge `<0>`), and no forwarding to syslog, kmsg, console.
    (&stream).write_all(format!("{identifier}\n\n6\n0\n0\n0\n0\n").as_bytes())?;
    Ok(Some(stream.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_header_is_what_journald_expects() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("stdout");
        let listener = UnixListener::bind(&socket).unwrap();
        let fd = stream_to(&socket, "banger-console").unwrap().unwrap();
        UnixStream::from(fd).write_all(b"<0>line\n").unwrap();
        let mut said = String::new();
        listener.accept().unwrap().0.read_to_string(&mut said).unwrap();
        assert_eq!(said, "banger-console\n\n6\n0\n0\n0\n0\n<0>line\n");
    }

    #[test]
    fn without_journald_there_is_no_stream() {
        let dir = tempfile::tempdir().unwrap();
        assert!(stream_to(&dir.path().join("none"), "x").unwrap().is_none());
        assert!(stream_to(&dir.path().join("none"), "x\ny").is_err());
    }
}
