//! The three archives joined into one file that has no name.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};

/// Joins the archives into a sealed memory file, positioned at its start. Its content can no
/// longer change, so it may be handed to a process that is not trusted.
///
/// # Errors
/// When an archive cannot be read or there is no memory.
pub fn assemble(modules: &File, guest: &File, identity: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let memfd = match rustix::fs::memfd_create("banger-initramfs", flags) {
        // Linux before 6.3 does not know the last flag.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(
            "banger-initramfs",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?,
        result => result?,
    };
    let mut out = File::from(memfd);
    append(modules, &mut out)?;
    append(guest, &mut out)?;
    out.write_all(identity)?;
    rustix::fs::fcntl_add_seals(
        &out,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    rustix::fs::seek(&out, SeekFrom::Start(0))?;
    Ok(out.into())
}

/// Copies a whole archive in the kernel, and leaves the position of `archive` alone: it may
/// be shared. The padding keeps the next one aligned.
fn append(archive: &File, out: &mut File) -> io::Result<()> {
    let length = archive.metadata()?.len();
    let mut offset = 0;
    while offset < length {
        let rest = usize::try_from(length - offset).unwrap_or(usize::MAX);
        if rustix::fs::sendfile(&*out, archive, Some(&mut offset), rest)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let padding = length.next_multiple_of(4) - length;
    out.write_all(&[0; 3][..padding as usize])
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::cpio::tests::read;
    use super::super::{build_empty_modules_archive, cpio::Writer};
    use super::*;

    #[test]
    fn the_parts_follow_each_other_and_are_sealed() {
        let mut modules = tempfile::tempfile().unwrap();
        build_empty_modules_archive(&mut modules).unwrap();
        let mut guest = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(&mut guest);
        writer.file("init", 0o755, &[7; 100_001]).unwrap();
        writer.finish().unwrap();
        let mut writer = Writer::new(Vec::new());
        writer.file("who", 0o600, b"me").unwrap();
        let identity = writer.finish().unwrap();

        let mut file = File::from(assemble(&modules, &guest, &identity).unwrap());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let members = read(&bytes);
        let paths: Vec<_> = members.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(
            paths[paths.len() - 3..],
            ["banger/modules/modules.later", "init", "who"]
        );
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn an_archive_can_be_used_again() {
        let mut modules = tempfile::tempfile().unwrap();
        build_empty_modules_archive(&mut modules).unwrap();
        let read_all = || {
            let mut bytes = Vec::new();
            File::from(assemble(&modules, &modules, b"").unwrap())
                .read_to_end(&mut bytes)
                .unwrap();
            bytes
        };
        assert_eq!(read_all(), read_all());
    }
}
