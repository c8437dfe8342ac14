//! Who may read and write the owner's own directories and files.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use banger_model::Dirs;
use rustix::process::geteuid;

use super::places::LOOK;
use super::report::{Report, Status};

/// More files than this are not named one by one.
const MOST_NAMED: usize = 3;

/// Who besides the owner may look at something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    None,
    Read,
}

/// Why a mode is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wrong {
    what: &'static str,
    mode: u32,
    wanted: u32,
    status: Status,
}

pub(super) fn check(report: &mut Report, dirs: &Dirs) {
    for (name, path, others) in [
        ("directory-config", &dirs.config, Others::Read),
        ("directory-state", &dirs.state, Others::None),
        ("directory-data", &dirs.data, Others::Read),
        ("directory-cache", &dirs.cache, Others::Read),
        ("directory-runtime", &dirs.runtime, Others::None),
    ] {
        directory(report, name, path, others);
    }
    files(report, dirs);
}

fn directory(report: &mut Report, name: &str, directory: &Path, others: Others) {
    let shown = directory.display();
    let meta = match fs::metadata(directory) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return report.info(name, format!("{shown} is not there yet"));
        }
        Err(error) => return report.failure(name, format!("Cannot look at {shown}: {error}"), LOOK),
    };
    if !meta.is_dir() {
        return report.failure(name, format!("{shown} is not a directory"), "Move it away.");
    }
    if meta.uid() != geteuid().as_raw() {
        return foreign(report, name, directory, &meta);
    }
    match judge(&meta, others) {
        None => report.ok(name, shown.to_string()),
        Some(wrong) => {
            let message = format!("{shown} {} (mode {:o})", wrong.what, wrong.mode);
            let hint = format!("chmod {:o} {shown}", wrong.wanted);
            report.fixable(name, wrong.status, message, &hint, || {
                set_mode(directory, wrong.wanted)
            });
        }
    }
}

/// Keys, the database, and what else is for nobody but the owner.
fn files(report: &mut Report, dirs: &Dirs) {
    const NAME: &str = "private-files";
    let mut wrong = Vec::new();
    for (path, others) in private(dirs) {
        // Not there, or not to be seen: its directory was reported.
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_symlink() {
            continue;
        }
        if meta.uid() != geteuid().as_raw() {
            return foreign(report, NAME, &path, &meta);
        }
        if let Some(found) = judge(&meta, others) {
            wrong.push((path, found));
        }
    }
    let Some(status) = wrong.iter().map(|(_, wrong)| wrong.status).max() else {
        return report.ok(NAME, "Keys, database and VMs are the owner's alone");
    };
    let named: Vec<_> = wrong
        .iter()
        .take(MOST_NAMED)
        .map(|(path, wrong)| format!("{} {} (mode {:o})", path.display(), wrong.what, wrong.mode))
        .collect();
    let mut message = named.join("; ");
    if let Some(more) = wrong.len().checked_sub(MOST_NAMED + 1) {
        message.push_str(&format!("; and {} more", more + 1));
    }
    let commands: Vec<_> = wrong
        .iter()
        .take(MOST_NAMED)
        .map(|(path, wrong)| format!("chmod {:o} {}", wrong.wanted, path.display()))
        .collect();
    let hint = commands.join(" && ");
    report.fixable(NAME, status, message, &hint, || {
        for (path, wrong) in &wrong {
            set_mode(path, wrong.wanted)?;
        }
        Ok(format!("Set the mode of {} file(s) or directories", wrong.len()))
    });
}

/// No disk, image or kernel is among them: their modes show the rights of slots (acl(5)).
fn private(dirs: &Dirs) -> Vec<(PathBuf, Others)> {
    let database = |ending: &str| {
        let mut path = dirs.database().into_os_string();
        path.push(ending);
        PathBuf::from(path)
    };
    let key = dirs.ssh_key();
    let mut paths: Vec<_> = ["", "-wal", "-shm"].map(database).into();
    paths.extend(key.parent().map(Path::to_owned));
    paths.extend([key.clone(), dirs.vms()]);
    for entry in fs::read_dir(dirs.vms()).into_iter().flatten().flatten() {
        paths.extend([entry.path(), entry.path().join("host_key")]);
    }
    let mut private: Vec<_> = paths.into_iter().map(|path| (path, Others::None)).collect();
    for readable in [dirs.known_hosts(), key.with_extension("pub"), dirs.config_file()] {
        private.push((readable, Others::Read));
    }
    private
}

fn foreign(report: &mut Report, name: &str, path: &Path, meta: &Metadata) {
    let hint = match geteuid() {
        // With the user's HOME, as sudo may leave it.
        uid if uid.is_root() => "You are root: run this as that user, or set HOME to your own.".to_owned(),
        uid => format!(
            "sudo chown -R --no-dereference {} {}",
            uid.as_raw(),
            path.display()
        ),
    };
    let message = format!("{} belongs to user {}", path.display(), meta.uid());
    report.failure(name, message, &hint);
}

/// Whether the state directory is another user's: then nothing below is this one's to change.
pub(super) fn are_foreign(dirs: &Dirs) -> bool {
    fs::metadata(&dirs.state).is_ok_and(|meta| meta.uid() != geteuid().as_raw())
}

fn judge(meta: &Metadata, others: Others) -> Option<Wrong> {
    let mode = meta.mode() & 0o7777;
    let own = if meta.is_dir() { 0o700 } else { 0o600 };
    let closed = match others {
        Others::None => 0o077,
        Others::Read => 0o022,
    };
    let wrong = |what, status| {
        Some(Wrong {
            what,
            mode: mode & 0o777,
            wanted: (mode & !closed) | own,
            status,
        })
    };
    if mode & own != own {
        wrong("is closed to its owner", Status::Failure)
    } else if mode & 0o022 != 0 {
        wrong("can be written by others", Status::Failure)
    } else if mode & closed != 0 {
        wrong("can be read by others", Status::Warning)
    } else {
        None
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<String, String> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map(|()| format!("chmod {mode:o} {}", path.display()))
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(mode: u32, others: Others) -> Option<(u32, Status)> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        judge(&fs::metadata(&path).unwrap(), others).map(|wrong| (wrong.wanted, wrong.status))
    }

    #[test]
    fn only_what_is_too_much_or_too_little_is_wrong() {
        assert_eq!(judged(0o600, Others::None), None);
        assert_eq!(judged(0o644, Others::Read), None);
        assert_eq!(judged(0o640, Others::None), Some((0o600, Status::Warning)));
        assert_eq!(judged(0o666, Others::Read), Some((0o644, Status::Failure)));
        assert_eq!(judged(0o400, Others::None), Some((0o600, Status::Failure)));
    }

    #[test]
    fn a_mode_is_set_only_when_that_is_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        let key = dirs.ssh_key();
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        fs::write(&key, "").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let mode = || fs::metadata(&key).unwrap().mode() & 0o777;
        let mut report = Report::default();
        check(&mut report, &dirs);
        assert_eq!((report.worst(), mode()), (Status::Warning, 0o644));
        assert!(report.text().contains("id_ed25519 can be read by others"));
        let mut report = Report::fixing();
        check(&mut report, &dirs);
        assert_eq!((report.worst(), mode()), (Status::Info, 0o600));
        let mut report = Report::default();
        check(&mut report, &dirs);
        assert!(!report.text().contains("chmod"), "{}", report.text());
    }
}
