//! Files without a name.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

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
}
