//! Stream sockets between the guest and its host, vsock(7).

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 4;
const FLAGS: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// Begins a connection to a port of the host, without waiting: the stream can be written to when
/// it is connected, and hangs up when it cannot be.
///
/// # Errors
/// When this machine has no vsock device.
pub fn connect_host(port: u32) -> io::Result<File> {
    let socket = socket()?;
    let address = address(libc::VMADDR_CID_HOST, port);
    // SAFETY: the address is initialised, and the length is its own.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), LENGTH) };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
    }
    Ok(socket.into())
}

/// Listens on a port of the guest, without waiting in [`accept_host`]. A port below 1024 needs
/// CAP_NET_BIND_SERVICE.
///
/// # Errors
/// When the kernel has no vsock, or the port is taken.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let address = address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address is initialised, and the length is its own.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), LENGTH) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The next connection that is the host's; `None` when there is no more. Those of programs of
/// this machine are closed.
///
/// # Errors
/// As accept(2).
pub fn accept_host(listener: impl AsFd) -> io::Result<Option<File>> {
    loop {
        let mut from = address(0, 0);
        let mut length = LENGTH;
        let listener = listener.as_fd().as_raw_fd();
        // SAFETY: the address and its length are those of one live variable.
        let descriptor = unsafe { libc::accept4(listener, (&raw mut from).cast(), &raw mut length, FLAGS) };
        if descriptor < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                io::ErrorKind::Interrupted => continue,
                _ => Err(error),
            };
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let stream = unsafe { File::from_raw_fd(descriptor) };
        if length >= LENGTH && from.svm_cid == libc::VMADDR_CID_HOST {
            return Ok(Some(stream));
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "16")]
const LENGTH: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let descriptor = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | FLAGS, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: integers and arrays of them, for which zeros are a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    #[expect(clippy::cast_possible_truncation, reason = "a constant of 16 bits")]
    let family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_family = family;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_waits_for_nobody_and_a_machine_without_the_device_reaches_no_host() {
        // A kernel without vsock says so, whoever asks.
        let Ok(listener) = listen(libc::VMADDR_PORT_ANY) else {
            assert!(connect_host(1).is_err());
            return;
        };
        assert!(accept_host(&listener).unwrap().is_none());
        // A port below 1024 is not everybody's; where this is root, nobody has it yet.
        match listen(1022) {
            Ok(_) => assert!(rustix::process::geteuid().is_root()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
