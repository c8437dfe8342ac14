//! File attributes between the protocol and the kernel.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use russh_sftp::protocol::FileAttributes;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

/// What the protocol can say about a file. Times before 1970 and after 2106 are as near as can
/// be said.
pub(super) fn of(metadata: &Metadata) -> FileAttributes {
    let time = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    FileAttributes {
        size: Some(metadata.len()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        permissions: Some(metadata.mode()),
        atime: Some(time(metadata.atime())),
        mtime: Some(time(metadata.mtime())),
        ..FileAttributes::default()
    }
}

/// The mode for a new file or directory, before the umask.
pub(super) fn mode(attributes: &FileAttributes, default: u32) -> u32 {
    attributes.permissions.unwrap_or(default) & 0o7777
}

/// Changes what is named, of an open file.
pub(super) fn apply_to_file(file: &File, attributes: &FileAttributes) -> io::Result<()> {
    if let Some(size) = attributes.size {
        file.set_len(size)?;
    }
    if let (Some(uid), Some(gid)) = (attributes.uid, attributes.gid) {
        std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    // After the owner: changing that clears set-id bits.
    if let Some(permissions) = attributes.permissions {
        file.set_permissions(PermissionsExt::from_mode(permissions & 0o7777))?;
    }
    if let Some(times) = timestamps(attributes) {
        rustix::fs::futimens(file, &times)?;
    }
    Ok(())
}

/// As [`apply_to_file`], by name; a link is followed unless `link` says that it is meant itself.
pub(super) fn apply_to_path(path: &Path, attributes: &FileAttributes, link: bool) -> io::Result<()> {
    if let Some(size) = attributes.size.filter(|_| !link) {
        // A pipe that nobody reads must not stop the others' requests.
        let mut options = File::options();
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        options.write(true).open(path)?.set_len(size)?;
    }
    if let (Some(uid), Some(gid)) = (attributes.uid, attributes.gid) {
        if link {
            std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
        } else {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        }
    }
    // Linux has no modes of links.
    if let Some(permissions) = attributes.permissions.filter(|_| !link) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(permissions & 0o7777))?;
    }
    if let Some(times) = timestamps(attributes) {
        let flags = if link {
            AtFlags::SYMLINK_NOFOLLOW
        } else {
            AtFlags::empty()
        };
        rustix::fs::utimensat(CWD, path, &times, flags)?;
    }
    Ok(())
}

fn timestamps(attributes: &FileAttributes) -> Option<Timestamps> {
    let time = |seconds: u32| Timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    Some(Timestamps {
        last_access: time(attributes.atime?),
        last_modification: time(attributes.mtime?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wanted = FileAttributes {
            size: Some(5),
            permissions: Some(0o100_640),
            atime: Some(1),
            mtime: Some(2_000_000_000),
            ..FileAttributes::default()
        };
        apply_to_file(file.as_file(), &wanted).unwrap();
        let found = of(&file.as_file().metadata().unwrap());
        assert_eq!(found.size, Some(5));
        assert_eq!(found.permissions, Some(0o100_640));
        assert_eq!(found.mtime, Some(2_000_000_000));
    }

    #[test]
    fn a_pipe_has_no_size_and_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let empty = FileAttributes {
            size: Some(0),
            ..FileAttributes::default()
        };
        assert!(apply_to_path(&pipe, &empty, false).is_err());
    }

    #[test]
    fn a_link_is_changed_itself_where_that_is_meant() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let times = FileAttributes {
            atime: Some(3),
            mtime: Some(4),
            ..FileAttributes::default()
        };
        apply_to_path(&link, &times, true).unwrap();
        assert_eq!(of(&std::fs::symlink_metadata(&link).unwrap()).mtime, Some(4));
        assert!(apply_to_path(&link, &times, false).is_err());
    }
}
