//! The right of one VMM to one of the owner's files: an entry of the file's access control list
//! (acl(5)) for the uid of its slot. The VMM opens by descriptor, which asks the file's list and
//! no directory on its way, so that nothing else of the owner's is opened by it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use banger_bus::Error;
use banger_model::Slot;
use rustix::fs::{OFlags, XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use super::error;

/// Where the kernel shows the list, in the form of linux/posix_acl_xattr.h.
const ATTRIBUTE: &str = "system.posix_acl_access";
/// The list that what is made in a directory begins with.
const DEFAULT_ATTRIBUTE: &str = "system.posix_acl_default";
const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// More entries than any file system keeps: ext4 has room for some 500 in a block.
const MAX_ENTRIES: usize = 8192;
/// The id of an entry that names nobody.
const NOBODY: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// What a VMM may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Right {
    Read = 4,
    ReadWrite = 6,
}

/// A list is read, changed and written: by one of us at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Lets a slot's VMM open a file. One that everybody may open so is left as it is: it may not
/// be the owner's.
///
/// # Errors
/// When the file is somebody else's, or lies where there are no such lists.
pub(crate) fn grant(file: &File, slot: Slot, right: Right) -> io::Result<()> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut list = List::of(file)?;
    if list.allow(slot.uid(), right as u16) {
        list.set(file)?;
    }
    Ok(())
}

/// Lets a slot's VMM make sockets in a directory of the owner's, and connect to the owner's there.
/// What either makes begins with the directory's default list, by which the other may connect,
/// as far as the mode of the socket, and so the umask of who makes it, leaves the group's rights.
///
/// # Errors
/// When the directory is somebody else's, or lies where there are no such lists.
pub(crate) fn share_directory(directory: &File, slot: Slot) -> io::Result<()> {
    let mut own = List::of_mode(0o700);
    own.allow(slot.uid(), 7);
    let mut default = List::of_mode(0o600);
    default.allow(directory.metadata()?.uid(), 6);
    default.allow(slot.uid(), 6);
    fsetxattr(
        directory,
        DEFAULT_ATTRIBUTE,
        &default.bytes(),
        XattrFlags::empty(),
    )?;
    own.set(directory)
}

/// Takes the rights of all slots back for which `keep` is false, and says of how many. A file
/// that is gone is nobody's any more.
///
/// # Errors
/// When the list cannot be read or written.
pub(crate) fn revoke(path: &Path, keep: impl Fn(Slot) -> bool) -> io::Result<usize> {
    let open = OpenOptions::new()
        .read(true)
        // A FIFO in its place must not hold us up.
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    let file = match open {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut list = List::of(&file)?;
    let count = list.forget(|uid| Slot::of_uid(uid).is_some_and(|slot| !keep(slot)));
    if count > 0 {
        list.set(&file)?;
    }
    Ok(count)
}

/// [`revoke`] with an error that names the file.
pub(crate) fn take_back(path: &Path, keep: impl Fn(Slot) -> bool) -> Result<(), Error> {
    match revoke(path, keep) {
        Ok(_) => Ok(()),
        // Where there are no lists there is nothing in them; of a stranger's file we gave no rights.
        Err(e) if matches!(e.raw_os_error(), Some(code) if is_not_ours(code)) => Ok(()),
        Err(e) => Err(error::io("take a VMM's right to", path, &e)),
    }
}

fn is_not_ours(code: i32) -> bool {
    [Errno::OPNOTSUPP, Errno::PERM, Errno::ACCESS]
        .iter()
        .any(|errno| errno.raw_os_error() == code)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    rights: u16,
    id: u32,
}

/// A file's list, in the order that the kernel wants: by tag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List(Vec<Entry>);

impl List {
    fn of(file: &File) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(HEADER + 64 * ENTRY);
        let read = loop {
            match fgetxattr(
                file.as_fd(),
                ATTRIBUTE,
                rustix::buffer::spare_capacity(&mut bytes),
            ) {
                Err(Errno::RANGE) if bytes.capacity() < MAX_ENTRIES * ENTRY => {
                    bytes.reserve(bytes.capacity() * 2);
                }
                read => break read,
            }
        };
        match read {
            Ok(_) => Self::parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            // None of its own: the mode says it all.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Self::of_mode(file.metadata()?.mode())),
            Err(e) => Err(e.into()),
        }
    }

    fn of_mode(mode: u32) -> Self {
        let class = |tag, shift: u32| Entry {
            tag,
            rights: u16::try_from(mode >> shift & 7).unwrap_or_default(),
            id: NOBODY,
        };
        Self(vec![class(USER_OBJ, 6), class(GROUP_OBJ, 3), class(OTHER, 0)])
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, entries) = bytes.split_first_chunk::<HEADER>()?;
        if u32::from_le_bytes(*version) != VERSION {
            return None;
        }
        let (entries, rest) = entries.as_chunks::<ENTRY>();
        let list: Vec<Entry> = entries
            .iter()
            .map(|[a, b, c, d, id @ ..]| Entry {
                tag: u16::from_le_bytes([*a, *b]),
                rights: u16::from_le_bytes([*c, *d]),
                id: u32::from_le_bytes(*id),
            })
            .collect();
        (rest.is_empty() && list.is_sorted_by_key(|entry| entry.tag)).then_some(Self(list))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.rights.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    fn set(&self, file: &File) -> io::Result<()> {
        Ok(fsetxattr(
            file.as_fd(),
            ATTRIBUTE,
            &self.bytes(),
            XattrFlags::empty(),
        )?)
    }

    /// The rights that the mask leaves of an entry's.
    fn effective(&self, entry: &Entry) -> u16 {
        match entry.tag {
            USER_OBJ | OTHER | MASK => entry.rights,
            _ => entry.rights & self.find(MASK).map_or(7, |mask| mask.rights),
        }
    }

    fn find(&self, tag: u16) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.tag == tag)
    }

    /// Gives a uid rights; false when it has them already.
    fn allow(&mut self, uid: u32, rights: u16) -> bool {
        let is_his = |entry: &Entry| entry.tag == USER && entry.id == uid;
        let has = match self.0.iter().find(|entry| is_his(entry)) {
            Some(entry) => self.effective(entry),
            None => self.find(OTHER).map_or(0, |other| other.rights),
        };
        if has & rights == rights {
            return false;
        }
        self.0.retain(|entry| !is_his(entry));
        self.flatten();
        let entry = Entry {
            tag: USER,
            rights,
            id: uid,
        };
        let at = self
            .0
            .partition_point(|entry| entry.tag <= USER_OBJ || entry.tag == USER && entry.id < uid);
        self.0.insert(at, entry);
        self.cover();
        true
    }

    /// Removes entries for uids, and says how many.
    fn forget(&mut self, unwanted: impl Fn(u32) -> bool) -> usize {
        self.flatten();
        let before = self.0.len();
        self.0.retain(|entry| entry.tag != USER || !unwanted(entry.id));
        let forgotten = before - self.0.len();
        self.cover();
        forgotten
    }

    /// Writes what the mask leaves into the entries themselves: a wider mask gives nobody else
    /// more than he had.
    fn flatten(&mut self) {
        for index in 0..self.0.len() {
            self.0[index].rights = self.effective(&self.0[index]);
        }
    }

    /// Makes the mask cover exactly what it applies to; without named entries none is needed.
    fn cover(&mut self) {
        self.0.retain(|entry| entry.tag != MASK);
        let masked = |entry: &&Entry| [USER, GROUP_OBJ, GROUP].contains(&entry.tag);
        if !self.0.iter().any(|entry| [USER, GROUP].contains(&entry.tag)) {
            return;
        }
        let rights = self
            .0
            .iter()
            .filter(masked)
            .fold(0, |all, entry| all | entry.rights);
        let at = self.0.partition_point(|entry| entry.tag < MASK);
        self.0.insert(
            at,
            Entry {
                tag: MASK,
                rights,
                id: NOBODY,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    fn file(mode: u32) -> (tempfile::TempDir, std::path::PathBuf, File) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .unwrap();
        (home, path, file)
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    /// getfacl's lines, where it is installed.
    fn shown(path: &Path) -> Option<Vec<String>> {
        let output = Command::new("getfacl")
            .args(["-cnE", "--absolute-names"])
            .arg(path)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).unwrap();
        Some(
            text.lines()
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a test says what it skips")]
    fn a_right_is_given_and_taken_back_without_a_trace() {
        let (_home, path, file) = file(0o600);
        grant(&file, slot(7), Right::Read).unwrap();
        grant(&file, slot(3), Right::ReadWrite).unwrap();
        grant(&file, slot(3), Right::ReadWrite).unwrap();
        let (three, seven) = (slot(3).uid(), slot(7).uid());
        match shown(&path) {
            Some(lines) => assert_eq!(
                lines,
                [
                    "user::rw-".to_owned(),
                    format!("user:{three}:rw-"),
                    format!("user:{seven}:r--"),
                    "group::---".to_owned(),
                    "mask::rw-".to_owned(),
                    "other::---".to_owned(),
                ]
            ),
            None => println!("skipped: getfacl is not installed"),
        }
        assert_eq!(revoke(&path, |kept| kept == slot(3)).unwrap(), 1);
        assert_eq!(revoke(&path, |kept| kept == slot(3)).unwrap(), 0);
        assert_eq!(mode(&path), 0o660, "the mask");
        assert_eq!(revoke(&path, |_| false).unwrap(), 1);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fgetxattr(&file, ATTRIBUTE, &mut [0; 64]), Err(Errno::NODATA));
        assert_eq!(revoke(&path.with_extension("none"), |_| false).unwrap(), 0);
    }

    #[test]
    fn what_everybody_may_read_is_left_alone() {
        let (_home, path, file) = file(0o644);
        grant(&file, slot(0), Right::Read).unwrap();
        assert_eq!(fgetxattr(&file, ATTRIBUTE, &mut [0; 64]), Err(Errno::NODATA));
        grant(&file, slot(0), Right::ReadWrite).unwrap();
        assert_eq!(revoke(&path, |_| false).unwrap(), 1);
        assert_eq!(mode(&path), 0o644);
    }

    #[test]
    fn nobody_else_gets_more_by_a_wider_mask() {
        let (_home, path, file) = file(0o600);
        // A group that may write, held to reading by the mask.
        let list = List(vec![
            Entry {
                tag: USER_OBJ,
                rights: 6,
                id: NOBODY,
            },
            Entry {
                tag: USER,
                rights: 7,
                id: 4242,
            },
            Entry {
                tag: GROUP_OBJ,
                rights: 0,
                id: NOBODY,
            },
            Entry {
                tag: GROUP,
                rights: 6,
                id: 77,
            },
            Entry {
                tag: MASK,
                rights: 4,
                id: NOBODY,
            },
            Entry {
                tag: OTHER,
                rights: 0,
                id: NOBODY,
            },
        ]);
        list.set(&file).unwrap();
        grant(&file, slot(0), Right::ReadWrite).unwrap();
        revoke(&path, |_| true).unwrap();
        let after = List::of(&file).unwrap();
        let rights = |tag, id| {
            let entry = after
                .0
                .iter()
                .find(|entry| entry.tag == tag && entry.id == id)
                .unwrap();
            after.effective(entry)
        };
        assert_eq!(
            (rights(GROUP, 77), rights(USER, 4242), rights(USER, slot(0).uid())),
            (4, 4, 6)
        );
        assert_eq!(revoke(&path, |_| false).unwrap(), 1);
        let after = List::of(&file).unwrap();
        assert_eq!(after.find(MASK).unwrap().rights, 4);
        assert_eq!(
            after.0.iter().filter(|entry| entry.tag == USER).count(),
            1,
            "others stay"
        );
    }

    #[test]
    fn a_socket_in_a_shared_directory_is_both_sides() {
        let home = tempfile::tempdir().unwrap();
        let directory = File::open(home.path()).unwrap();
        share_directory(&directory, slot(5)).unwrap();
        assert_eq!(mode(home.path()), 0o770, "the mask");
        let path = home.path().join("api.sock");
        std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
        let list = List::of(&File::open(home.path()).unwrap()).unwrap();
        let entry = list.0.iter().find(|entry| entry.id == slot(5).uid()).unwrap();
        assert_eq!((entry.rights, list.effective(entry)), (7, 7));
        // Nobody else has any right to it.
        let mut bytes = [0; 256];
        let length = rustix::fs::getxattr(&path, ATTRIBUTE, &mut bytes[..]).unwrap();
        let list = List::parse(&bytes[..length]).unwrap();
        let owner = home.path().metadata().unwrap().uid();
        for uid in [owner, slot(5).uid()] {
            let entry = list.0.iter().find(|entry| entry.id == uid).unwrap();
            assert_eq!(list.effective(entry), 6, "{list:?}");
        }
        assert_eq!(list.find(OTHER).unwrap().rights, 0);
        assert_eq!(list.find(GROUP_OBJ).unwrap().rights, 0);
    }

    #[test]
    fn nonsense_is_no_list() {
        let good = List::of_mode(0o640).bytes();
        assert_eq!(List::parse(&good), Some(List::of_mode(0o640)));
        let mut version = good.clone();
        version[0] = 3;
        for bytes in [&[][..], &[2, 0, 0], &good[..good.len() - 1], &version] {
            assert_eq!(List::parse(bytes), None, "{bytes:?}");
        }
    }

    /// A VMM opens the initramfs anew by its descriptor: a file in memory has no list, and
    /// needs none.
    #[test]
    fn a_file_in_memory_is_open_to_who_has_its_descriptor() {
        let memfd = File::from(banger_sys::file::sealed_memfd("test", &[b"x"]).unwrap());
        grant(&memfd, slot(0), Right::Read).unwrap();
        assert_eq!(memfd.metadata().unwrap().mode() & 0o004, 0o004);
    }
}
