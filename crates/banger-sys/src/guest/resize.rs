//! Growing a mounted ext4 file system to the size of its device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `_IOW('f', 16, __u64)` of fs/ext4/ext4.h.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;

/// Grows the ext4 file system mounted at the directory `root` to `blocks` blocks of its own
/// block size. It is a no-operation where it has that size already.
///
/// # Errors
/// As ioctl(2); EPERM without CAP_SYS_RESOURCE, EINVAL or ENOTTY on another file system.
pub fn grow_ext4(root: &File, blocks: u64) -> io::Result<()> {
    let descriptor = root.as_fd().as_raw_fd();
    // SAFETY: the request reads one u64 from the pointer, which is that of a live variable.
    let result = unsafe { libc::ioctl(descriptor, EXT4_IOC_RESIZE_FS, &raw const blocks) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_an_error() {
        let proc = File::open("/proc").unwrap();
        assert!(grow_ext4(&proc, 1 << 20).is_err());
    }
}
