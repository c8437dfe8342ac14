//! Room in the owner's directories, his database, images and kernels.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use banger_image::{image, kernel};
use banger_model::{Dirs, Size};
use banger_store::{SCHEMA_VERSION, Store};
use rustix::fs::{StatVfs, statfs, statvfs};

use super::report::{Report, Status};
use crate::core::error::chain;

/// Less free space than this is worth a word: an image and a kernel take about that.
const LITTLE_SPACE: u64 = 4 << 30;
/// With less than this, or a twentieth of a smaller file system, hardly anything can be written.
const FULL: u64 = 64 << 20;
const MAKE_ROOM: &str = "Make room: `banger image prune` and `banger vm prune` show what they would free with --dry-run; an image takes some GiB.";
/// What to do about a place that cannot be looked at.
pub(super) const LOOK: &str = "See who owns it and what its mode is, with ls -ld, and make it yours.";
/// What to do about a database that cannot be used.
const DATABASE: &str = "Update banger if a newer one made it; else move it away, and banger makes a new one.";
/// Types of file systems by their magic numbers (statfs(2)), and whether they can share blocks
/// between files. XFS can where it was made so, as mkfs.xfs does since 2019.
const FILE_SYSTEMS: [(i64, &str, bool); 8] = [
    (0xEF53, "ext4", false),
    (0x9123_683E, "btrfs", true),
    (0x5846_5342, "xfs", true),
    (0x0102_1994, "tmpfs", false),
    (0x794C_7630, "overlay", false),
    (0x6969, "nfs", false),
    (0xCA45_1A4E, "bcachefs", true),
    (0x2FC1_2FC1, "zfs", false),
];

pub(super) fn space(report: &mut Report, dirs: &Dirs) {
    for (name, directory) in [
        ("space-state", &dirs.state),
        ("space-data", &dirs.data),
        ("space-cache", &dirs.cache),
        ("space-runtime", &dirs.runtime),
    ] {
        // Of sockets and locks there is little.
        let little = if name == "space-runtime" {
            FULL
        } else {
            LITTLE_SPACE
        };
        space_of(report, name, directory, little);
    }
}

fn space_of(report: &mut Report, name: &str, directory: &Path, little: u64) {
    let place = existing(directory);
    let found = match statvfs(&place) {
        Ok(found) => found,
        Err(error) => {
            return report.warning(name, format!("Cannot look at {}: {error}", place.display()), LOOK);
        }
    };
    let free = free_bytes(&found);
    let shown = place.display();
    let message = format!("{} MiB free below {shown}", Size::from_bytes(free).mib());
    // Some file systems, btrfs among them, count no inodes.
    let no_inodes = found.f_files > 0 && found.f_favail == 0;
    // A runtime directory of a few MiB is small, not full.
    if free < FULL.min(found.f_blocks.saturating_mul(found.f_frsize) / 20) || no_inodes {
        let what = if no_inodes { "has no inode left" } else { "is full" };
        report.failure(
            name,
            format!("The file system of {shown} {what}: {message}"),
            MAKE_ROOM,
        );
    } else if free < little {
        report.warning(name, message, MAKE_ROOM);
    } else {
        report.ok(name, message);
    }
}

/// How root disks are copied from images: told from the type of the file system alone.
pub(super) fn copies(report: &mut Report, dirs: &Dirs) {
    let (data, state) = (existing(&dirs.data), existing(&dirs.state));
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    let kind = statfs(&state).ok().and_then(|found| {
        #[allow(clippy::useless_conversion, reason = "the type differs between architectures")]
        let magic = i64::from(found.f_type);
        FILE_SYSTEMS.iter().find(|(known, ..)| *known == magic)
    });
    let (kind, shares) = kind.map_or(("unknown", false), |(_, kind, shares)| (*kind, *shares));
    if shares && device(&data) == device(&state) {
        report.ok(
            "copy-on-write",
            format!("{kind}: a VM's disk shares its blocks with the image"),
        );
    } else if shares {
        report.info(
            "copy-on-write",
            "Images and VMs are on different file systems: disks are copied",
        );
    } else {
        report.info(
            "copy-on-write",
            format!("{kind}: a VM's disk is a sparse copy of the image"),
        );
    }
}

pub(super) fn database(report: &mut Report, dirs: &Dirs) {
    let path = dirs.database();
    let store = match Store::open_read_only(&path) {
        Ok(Some(store)) => store,
        Ok(None) => return report.info("database", "Not there yet"),
        Err(error) => {
            report.failure("database", chain(&error), DATABASE);
            return report.detail(path.display().to_string());
        }
    };
    match store.quick_check() {
        Ok(None) => {}
        Ok(Some(problem)) => {
            report.failure(
                "database",
                format!("Damaged: {problem}"),
                "Restore it from a backup, or move it away.",
            );
            return report.detail(path.display().to_string());
        }
        Err(error) => return report.failure("database", chain(&error), DATABASE),
    }
    match store.vms() {
        Ok(vms) => report.ok(
            "database",
            format!(
                "Whole; {} VM(s); this program's version is {SCHEMA_VERSION}",
                vms.len()
            ),
        ),
        Err(error) => report.failure("database", chain(&error), DATABASE),
    }
    report.detail(path.display().to_string());
}

pub(super) fn stores(report: &mut Report, dirs: &Dirs) {
    let images =
        image::list(&dirs.images()).map(|images| names(images.iter().map(|image| image.name.to_string())));
    let kernels = kernel::list(&dirs.kernels())
        .map(|kernels| names(kernels.iter().map(|kernel| kernel.name.to_string())));
    for (name, found, pull) in [
        (
            "images",
            images,
            "banger image pull debian-bookworm, or let vm run do it.",
        ),
        (
            "kernels",
            kernels,
            "banger kernel pull debian-6.1, or let vm run do it.",
        ),
    ] {
        match found {
            Ok(names) if names.is_empty() => report.add(name, Status::Info, "None yet", pull),
            Ok(names) => report.ok(name, names),
            Err(error) => report.failure(name, chain(&error), LOOK),
        }
    }
}

fn names(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The nearest directory that is there.
fn existing(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|ancestor| ancestor.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

fn free_bytes(found: &StatVfs) -> u64 {
    found.f_bavail.saturating_mul(found.f_frsize)
}
