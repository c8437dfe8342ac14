//! The kernel's file systems, and the way from the initramfs to the root disk.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};

use crate::paths;

/// Where the root disk is mounted before it is the root.
pub(super) const NEW_ROOT: &str = "/newroot";

/// What every program expects, in the order in which it is mounted.
const EARLY: [(&str, &str, MountFlags, &std::ffi::CStr); 4] = [
    ("proc", "/proc", SAFE, c""),
    ("sysfs", "/sys", SAFE, c""),
    ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
    (
        "tmpfs",
        "/run",
        MountFlags::NOSUID.union(MountFlags::NODEV),
        c"mode=0755,size=20%,nr_inodes=800k",
    ),
];
const SAFE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Mounts what the initramfs itself needs.
pub(super) fn mount_early() -> io::Result<()> {
    for (kind, place, flags, data) in EARLY {
        fs::create_dir_all(place)?;
        match mount(kind, place, kind, flags, data) {
            // The kernel may have mounted devtmpfs.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => return Err(named(place, error)),
        }
    }
    mount_below_dev()
}

/// Terminals and shared memory, which an image without an init would lack.
fn mount_below_dev() -> io::Result<()> {
    for (kind, place, flags, data) in [
        (
            "devpts",
            "/dev/pts",
            MountFlags::NOSUID.union(MountFlags::NOEXEC),
            c"mode=0620,gid=5,ptmxmode=0666",
        ),
        (
            "tmpfs",
            "/dev/shm",
            MountFlags::NOSUID.union(MountFlags::NODEV),
            c"mode=1777",
        ),
    ] {
        fs::create_dir_all(place)?;
        match mount(kind, place, kind, flags, data) {
            Ok(()) | Err(Errno::BUSY | Errno::NODEV) => {}
            Err(error) => return Err(named(place, error)),
        }
    }
    Ok(())
}

/// Copies this program and the identity to where they outlive the initramfs.
pub(super) fn keep_program() -> io::Result<()> {
    fs::create_dir_all(paths::RUN)?;
    fs::copy("/init", paths::PROGRAM)?;
    fs::set_permissions(paths::PROGRAM, fs::Permissions::from_mode(0o755))?;
    let identity = format!("/{}", banger_model::guest::IDENTITY_PATH);
    // The permissions come with the copy.
    fs::copy(&identity, paths::IDENTITY)?;
    fs::set_permissions(paths::IDENTITY, fs::Permissions::from_mode(0o600))?;
    // What stays in the initramfs stays in memory for good.
    fs::remove_file("/init")?;
    fs::remove_dir_all("/banger")
}

/// Makes the root disk the root of everything, with the kernel's file systems in it.
pub(super) fn switch_root() -> io::Result<()> {
    for (_, place, ..) in EARLY {
        let target = format!("{NEW_ROOT}{place}");
        // A link would lead out of the new root, into the initramfs: such an image gets none.
        match fs::symlink_metadata(&target) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                fs::remove_file(&target)?;
                fs::create_dir(&target)?;
            }
            Err(_) => fs::create_dir(&target)?,
        }
        mount_move(place, &target).map_err(|error| named(place, error))?;
    }
    rustix::process::chdir(NEW_ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn named(place: &str, error: Errno) -> io::Error {
    io::Error::other(format!("{place}: {error}"))
}
