//! Files by their descriptors: those without a name, and what is known of one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, MemfdFlags, SealFlags, Statx, StatxFlags, fcntl_add_seals, memfd_create, statx};

/// A sealed file in memory with the given parts one after the other: its readers can rely on
/// it, and it is gone with its last descriptor.
///
/// # Errors
/// When there is no memory for it.
pub fn sealed_memfd(name: &str, parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    for part in parts {
        file.write_all(part)?;
    }
    seal(&file)?;
    Ok(file.into())
}

/// Seals a memfd against every change.
///
/// # Errors
/// When it is no memfd that allows sealing, or is mapped writable.
pub fn seal(file: &File) -> io::Result<()> {
    Ok(fcntl_add_seals(
        file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?)
}

/// What the kernel knows of an open file, without asking a server: a file system that somebody
/// implements can let fstat(2) wait forever.
///
/// # Errors
/// When the kernel refuses.
pub fn known(file: impl AsFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(statx(file, c"", flags, StatxFlags::BASIC_STATS)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::Seek;

    use super::*;

    #[test]
    fn a_sealed_file_holds_its_parts_and_refuses_more() {
        let mut file = File::from(sealed_memfd("test", &[b"one ", b"two"]).unwrap());
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
        let refusal = file.write_all(b"x").unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::PermissionDenied);
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn an_open_file_is_known() {
        let fd = sealed_memfd("test", &[b"1234567"]).unwrap();
        let known = known(&fd).unwrap();
        assert_eq!(known.stx_size, 7);
        assert_eq!(known.stx_uid, rustix::process::geteuid().as_raw());
        assert!(super::known(std::io::stdin()).is_ok());
    }
}
