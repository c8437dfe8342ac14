//! The file by which ssh pins the guests' keys, against the keys of the VMs.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use banger_model::Dirs;

use super::known::Known;
use super::report::{Report, Status};
use crate::core::error::chain;
use crate::guest::KnownHosts;

/// The owner's own text is never lost by it: banger writes the whole file at each change.
pub(super) fn check(report: &mut Report, dirs: &Dirs, known: &Known) {
    const NAME: &str = "known-hosts";
    let guests = match known {
        Known::Daemon(_, guests) | Known::Database(guests) => guests,
        Known::Unsettled => return report.info(NAME, "The next daemon writes it when it starts"),
        Known::Unknown(_) => return report.info(NAME, "Not compared: the daemon does not say its VMs"),
    };
    let path = dirs.known_hosts();
    let keys: Vec<_> = guests
        .iter()
        .filter(|guest| !guest.host_key.is_empty())
        .map(|guest| (guest.id, guest.host_key.clone()))
        .collect();
    let wanted: BTreeSet<String> = keys
        .iter()
        .map(|(id, key)| format!("{} {key}", KnownHosts::alias(*id)))
        .collect();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => format!("{error}\n"),
    };
    let there: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    if there == wanted {
        return report.ok(NAME, path.display().to_string());
    }
    let message = format!(
        "{} has not the keys of your {} VM(s): ssh would refuse a guest, or not know it",
        path.display(),
        keys.len()
    );
    let hint = "The next daemon writes it when it starts, and each change of a VM does.";
    report.fixable(NAME, Status::Warning, message, hint, || {
        let hosts = KnownHosts::new(&dirs.state);
        match hosts.reset(keys) {
            Ok(()) => Ok(format!("Wrote {}", path.display())),
            Err(error) => Err(chain(&error)),
        }
    });
}

#[cfg(test)]
mod tests {
    use banger_model::VmId;

    use super::super::known::Guest;
    use super::*;

    #[test]
    fn a_file_that_lacks_a_key_is_written_when_that_is_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        fs::create_dir_all(&dirs.state).unwrap();
        let guest = Guest {
            id: VmId::from_bytes([3; 16]),
            name: "a".to_owned(),
            agent: None,
            is_public: false,
            host_key: "ssh-ed25519 AAAA".to_owned(),
        };
        let known = Known::Database(vec![guest]);
        let mut report = Report::default();
        check(&mut report, &dirs, &known);
        assert_eq!(report.worst(), Status::Warning);
        assert!(!dirs.known_hosts().exists());
        let mut report = Report::fixing();
        check(&mut report, &dirs, &known);
        let mut again = Report::default();
        check(&mut again, &dirs, &known);
        assert_eq!((report.worst(), again.worst()), (Status::Ok, Status::Ok));
    }
}
