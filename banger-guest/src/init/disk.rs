//! The root disk: found by its serial number, mounted, and grown to the size of its device.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, mount};

use super::uevent::Events;
use crate::console;

const LIMIT: Duration = Duration::from_secs(30);
/// The unit of `/sys/block/…/size`, whatever the disk's own sectors are.
const SECTOR: u64 = 512;

/// A block device.
pub(super) struct Disk {
    device: PathBuf,
    /// In bytes.
    size: u64,
}

/// Finds the disk with this serial number, and waits for it where it is not there yet.
pub(super) fn find(serial: &str, events: &mut Events) -> io::Result<Disk> {
    let sys = Path::new("/sys/block");
    let found = events.wait_for(LIMIT, || look(sys, serial))?;
    let Some(name) = found else {
        return Err(io::Error::other(format!(
            "No disk with the serial number {serial:?} appeared within {} s; there are: {}",
            LIMIT.as_secs(),
            names(sys).join(" ")
        )));
    };
    let sectors = fs::read_to_string(sys.join(&name).join("size"))?;
    let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
    Ok(Disk {
        device: Path::new("/dev").join(name),
        size: sectors.saturating_mul(SECTOR),
    })
}

impl Disk {
    /// Mounts the disk, which must hold ext4, at `place`.
    pub(super) fn mount(&self, place: &Path) -> io::Result<()> {
        fs::create_dir_all(place)?;
        // Growing adds block groups whose inode tables the kernel would otherwise zero in the
        // background: megabytes of disk that the guest has no use for.
        mount(&self.device, place, "ext4", MountFlags::empty(), c"noinit_itable").map_err(|error| {
            let device = self.device.display();
            io::Error::other(format!("{device} cannot be mounted as ext4: {error}"))
        })?;
        if let Err(error) = self.grow(place) {
            console::warn("The root file system is not grown", &error);
        }
        Ok(())
    }

    fn grow(&self, place: &Path) -> io::Result<()> {
        let now = rustix::fs::statfs(place)?;
        let block = u64::try_from(now.f_bsize).map_err(io::Error::other)?.max(1);
        // f_blocks leaves out what the file system keeps for itself, so the superblock is
        // asked; growing to the present size is nothing to do for the kernel.
        let blocks = self.size / block;
        if superblock_blocks(&self.device)? >= blocks {
            return Ok(());
        }
        banger_sys::guest::grow_ext4(&File::open(place)?, blocks)
    }
}

/// The number of blocks in ext4's superblock, `s_blocks_count_lo` and `_hi`.
fn superblock_blocks(device: &Path) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut superblock = [0; 1024];
    File::open(device)?.read_exact_at(&mut superblock, 1024)?;
    let word = |at: usize| {
        u32::from_le_bytes([
            superblock[at],
            superblock[at + 1],
            superblock[at + 2],
            superblock[at + 3],
        ])
    };
    Ok(u64::from(word(4)) | (u64::from(word(0x150)) << 32))
}

/// The name of the disk with this serial number.
fn look(sys: &Path, serial: &str) -> io::Result<Option<String>> {
    for name in names(sys) {
        // A disk that goes in between has no serial number.
        if let Ok(found) = fs::read_to_string(sys.join(&name).join("serial"))
            && found.trim_end() == serial
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn names(sys: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(sys) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_serial_number_alone() {
        let sys = tempfile::tempdir().unwrap();
        for (name, serial) in [("vda", Some("data\n")), ("vdb", Some("root\n")), ("loop0", None)] {
            let directory = sys.path().join(name);
            fs::create_dir(&directory).unwrap();
            if let Some(serial) = serial {
                fs::write(directory.join("serial"), serial).unwrap();
            }
        }
        assert_eq!(look(sys.path(), "root").unwrap().as_deref(), Some("vdb"));
        assert_eq!(look(sys.path(), "roo").unwrap(), None);
        assert_eq!(look(Path::new("/nowhere"), "root").unwrap(), None);
    }
}
