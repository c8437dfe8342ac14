//! Tap devices: the ioctls of `/dev/net/tun` (linux/if_tun.h), which netlink cannot replace.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The longest name of an interface, without the terminating zero.
const NAME_MAX: usize = libc::IFNAMSIZ - 1;
/// A whole Ethernet frame behind a virtio header (10 bytes, until the user of the queue says
/// otherwise); the form that both engines ask for.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Opens the one queue of the tap `name` of this thread's network namespace, making the tap if
/// it does not exist: one that disappears with the descriptor, until [`persist`].
///
/// # Errors
/// `EBUSY` while another descriptor has the queue, `EPERM` without CAP_NET_ADMIN, `EINVAL` for
/// a name that no interface can have or that another kind of interface has.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: TUNSETIFF reads and writes the one ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    check(result)?;
    Ok(tun.into())
}

/// Gives the tap to one uid and gid, both of which a process without capabilities must then
/// have to open it, and keeps it when its last descriptor is closed.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN.
pub fn persist(tap: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    // The owner first: a tap that outlives this process is never anybody's.
    for (request, value) in [
        (libc::TUNSETOWNER, uid),
        (libc::TUNSETGROUP, gid),
        (libc::TUNSETPERSIST, 1),
    ] {
        // SAFETY: these requests take a number and touch no memory.
        let result = unsafe { libc::ioctl(tap.as_raw_fd(), request as _, libc::c_ulong::from(value)) };
        check(result)?;
    }
    Ok(())
}

/// Whether the tap outlives its descriptors.
///
/// # Errors
/// When the descriptor is no tap's.
pub fn is_persistent(tap: BorrowedFd<'_>) -> io::Result<bool> {
    let mut request = request("")?;
    // SAFETY: TUNGETIFF writes the one ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) };
    check(result)?;
    // SAFETY: TUNGETIFF has filled in the flags; they are a plain number.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags) & libc::IFF_PERSIST != 0)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    let unusable = name.len() > NAME_MAX || name.bytes().any(|byte| matches!(byte, 0 | b'/' | b'%'));
    if unusable {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an ifreq is plain numbers and arrays of them; all of them may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_names_are_refused_before_the_kernel_sees_them() {
        for name in ["sixteen-letters-", "a/b", "tap%d", "a\0b"] {
            assert_eq!(
                open(name).unwrap_err().raw_os_error(),
                Some(libc::EINVAL),
                "{name:?}"
            );
        }
        assert!(request("fifteen-letters").is_ok());
    }

    #[test]
    fn only_a_tap_can_be_asked() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(is_persistent(std::os::fd::AsFd::as_fd(&null)).is_err());
    }
}
