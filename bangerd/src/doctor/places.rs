//! The owner's directories, database, images and kernels.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use banger_image::{image, kernel};
use banger_model::{Dirs, Size};
use banger_store::{SCHEMA_VERSION, Store};
use rustix::fs::{StatVfs, statfs, statvfs};
use rustix::process::geteuid;

use super::report::{Report, Status};
use crate::core::error::chain;

/// Less free space than this is worth a word: an image and a kernel take about that.
const LITTLE_SPACE: u64 = 4 << 30;
/// What to do about a place that cannot be looked at.
const LOOK: &str = "See who owns it and what its mode is, with ls -ld, and make it yours.";
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

pub(super) fn directories(report: &mut Report, dirs: &Dirs) {
    let ours = [
        ("config", &dirs.config),
        ("state", &dirs.state),
        ("data", &dirs.data),
        ("cache", &dirs.cache),
        ("runtime", &dirs.runtime),
    ];
    for (name, directory) in ours {
        permissions(report, &format!("directory-{name}"), directory, name == "config");
    }
    for (name, directory) in [("space-state", &dirs.state), ("space-data", &dirs.data)] {
        space(report, name, directory);
    }
    copies(report, dirs);
}

/// The configuration may be read by others; what else is there is the owner's alone.
fn permissions(report: &mut Report, name: &str, directory: &Path, readable: bool) {
    let shown = directory.display();
    match std::fs::metadata(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            report.info(name, format!("{shown} is not there yet"));
        }
        Err(error) => report.failure(name, format!("Cannot look at {shown}: {error}"), LOOK),
        Ok(meta) if !meta.is_dir() => {
            report.failure(name, format!("{shown} is not a directory"), "Move it away.");
        }
        Ok(meta) if meta.uid() != geteuid().as_raw() => report.failure(
            name,
            format!("{shown} belongs to user {}", meta.uid()),
            "Give it back to yourself with chown.",
        ),
        Ok(meta) if meta.mode() & 0o022 != 0 => report.warning(
            name,
            format!(
                "{shown} can be written by others (mode {:o})",
                meta.mode() & 0o777
            ),
            &format!("chmod go-w {shown}"),
        ),
        Ok(meta) if !readable && meta.mode() & 0o077 != 0 => report.info(
            name,
            format!("{shown} can be read by others (mode {:o})", meta.mode() & 0o777),
        ),
        Ok(_) => report.ok(name, shown.to_string()),
    }
}

fn space(report: &mut Report, name: &str, directory: &Path) {
    let place = existing(directory);
    match statvfs(&place) {
        Ok(found) => {
            let free = free_bytes(&found);
            let message = format!(
                "{} MiB free below {}",
                Size::from_bytes(free).mib(),
                place.display()
            );
            if free < LITTLE_SPACE {
                report.warning(name, message, "Make room: an image takes some GiB.");
            } else {
                report.ok(name, message);
            }
        }
        Err(error) => report.warning(name, format!("Cannot look at {}: {error}", place.display()), LOOK),
    }
}

/// How root disks are copied from images: told from the type of the file system alone.
fn copies(report: &mut Report, dirs: &Dirs) {
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
