//! What a daemon that was killed left. The next one removes it when it starts.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use banger_model::{Dirs, VmId};

use super::known::Known;
use super::report::{Report, Status};

/// How the names of what is being built begin.
const BUILD: &str = ".tmp-";
/// More than these are not named.
const MOST_NAMED: usize = 3;

/// Puts it in order where that is wanted, as a daemon that starts does.
pub(super) async fn check(report: &mut Report, dirs: &Dirs, known: &Known) {
    const NAME: &str = "leftovers";
    if let Known::Daemon(..) | Known::Unknown(_) = known {
        // What it works on is not left over.
        return report.ok(NAME, "The daemon runs, and put in order what it found");
    }
    let found = find(dirs, known);
    if found.is_empty() {
        return report.ok(NAME, "None");
    }
    let outcome = if report.fixes() {
        let done = crate::serve::put_in_order(dirs).await;
        let left = find(dirs, &Known::find(dirs).await);
        Some(done.and_then(|()| match left.is_empty() {
            true => Ok(format!("Put in order: {}", named(&found))),
            false => Err(format!("{} stays", named(&left))),
        }))
    } else {
        None
    };
    let message = format!("A daemon that was killed left {}", named(&found));
    let hint = "Nothing has to be done: the next daemon puts it in order when it starts.";
    report.repaired(NAME, Status::Info, message, hint, outcome);
}

fn named(found: &[String]) -> String {
    let text = found[..found.len().min(MOST_NAMED)].join(", ");
    match found.len().checked_sub(MOST_NAMED) {
        Some(more) if more > 0 => format!("{text} and {more} more"),
        _ => text,
    }
}

/// Each in words for people.
fn find(dirs: &Dirs, known: &Known) -> Vec<String> {
    let mut found = Vec::new();
    if is_dead(&dirs.socket()) {
        found.push(format!("the socket {}", dirs.socket().display()));
    }
    if let Known::Unsettled = known {
        found.push("changes that are not in the database yet".to_owned());
    }
    for directory in [dirs.images(), dirs.kernels(), dirs.cache.join("initramfs")] {
        let built = entries(&directory).filter(|(name, _)| name.starts_with(BUILD));
        found.extend(built.map(|(_, path)| format!("{}, half-made", path.display())));
    }
    // Without the VMs nobody can say whose a directory is.
    if let Known::Database(guests) = known {
        let of_nobody = |directory: PathBuf| {
            entries(&directory).filter(|(name, _)| {
                name.parse::<VmId>()
                    .is_ok_and(|id| !guests.iter().any(|guest| guest.id == id))
            })
        };
        let lasting = of_nobody(dirs.vms());
        // Another state directory may have its VMs in the same runtime directory.
        let of_a_run = of_nobody(dirs.runtime.join("vms")).filter(|(name, path)| {
            fs::read_link(path.join("state")).is_ok_and(|owner| owner == dirs.vms().join(name))
        });
        let orphans = lasting.chain(of_a_run);
        found.extend(orphans.map(|(_, path)| format!("{} of no VM", path.display())));
    }
    found
}

fn entries(directory: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

fn is_dead(socket: &Path) -> bool {
    let is_socket = fs::symlink_metadata(socket).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket && matches!(UnixStream::connect(socket), Err(e) if e.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_left_is_told_from_what_is_used() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        for directory in [&dirs.runtime, &dirs.vms(), &dirs.images()] {
            fs::create_dir_all(directory).unwrap();
        }
        let none = || Known::Database(Vec::new());
        assert_eq!(find(&dirs, &none()), Vec::<String>::new());
        let listener = UnixListener::bind(dirs.socket()).unwrap();
        fs::create_dir(dirs.images().join("debian")).unwrap();
        fs::create_dir(dirs.vms().join("notes")).unwrap();
        assert_eq!(find(&dirs, &none()), Vec::<String>::new());

        drop(listener);
        let orphan = dirs.vms().join(VmId::from_bytes([7; 16]).to_string());
        fs::create_dir(&orphan).unwrap();
        fs::create_dir(dirs.images().join(".tmp-banger-1")).unwrap();
        let found = find(&dirs, &none());
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[2].contains(orphan.to_str().unwrap()), "{found:?}");
        // A VM that is only in the log of the database has a directory too.
        let unsettled = find(&dirs, &Known::Unsettled);
        assert!(!named(&unsettled).contains("of no VM"), "{unsettled:?}");
    }
}
