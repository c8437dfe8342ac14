//! Where each kind of file must lie to be read by whom it is for.

use std::path::{Path, PathBuf};

/// The prefix below which banger is installed, and the directories that follow from it.
///
/// A package owns `/usr`. An administrator's own programs go to `/usr/local`, and what its readers
/// do not look for there goes to `/etc`, or to `/usr/share` where they know no other place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    prefix: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vendor,
    Local,
    /// A prefix of which nobody knows.
    Other,
}

/// The kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Programs for people.
    Bin,
    /// Programs for programs.
    Libexec,
    SystemUnit,
    UserUnit,
    /// Activation by the session bus.
    SessionService,
    /// Activation by the system bus.
    SystemService,
    /// The system bus's policy.
    BusPolicy,
    PolkitActions,
    PolkitRules,
    Sysusers,
    /// systemd-networkd.
    Network,
    NetworkManager,
    /// The journal's message catalogue.
    Catalog,
    /// Introspection data.
    Interfaces,
    Documents,
}

impl Layout {
    pub(super) fn new(prefix: &Path) -> Self {
        let kind = if prefix == Path::new("/usr") {
            Kind::Vendor
        } else if prefix == Path::new("/usr/local") {
            Kind::Local
        } else {
            Kind::Other
        };
        Self {
            prefix: prefix.to_owned(),
            kind,
        }
    }

    pub(super) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Where files of a kind lie.
    pub(super) fn directory(&self, place: Place) -> PathBuf {
        match place {
            Place::Bin => self.prefix.join("bin"),
            Place::Libexec => self.prefix.join("lib/banger"),
            Place::Interfaces => self.prefix.join("share/dbus-1/interfaces"),
            Place::Documents => self.prefix.join("share/doc/banger"),
            Place::SystemUnit => self.systemd("systemd/system"),
            Place::UserUnit => self.systemd("systemd/user"),
            Place::Network => self.systemd("systemd/network"),
            Place::Sysusers => self.systemd("sysusers.d"),
            // Read from no directory below /etc.
            Place::Catalog => self.usr().join("lib/systemd/catalog"),
            Place::SessionService => self.usr().join("share/dbus-1/services"),
            Place::SystemService => self.usr().join("share/dbus-1/system-services"),
            Place::BusPolicy => self.vendor_or_etc("share/dbus-1/system.d", "dbus-1/system.d"),
            Place::PolkitRules => self.vendor_or_etc("share/polkit-1/rules.d", "polkit-1/rules.d"),
            Place::NetworkManager => self.vendor_or_etc("lib/NetworkManager/conf.d", "NetworkManager/conf.d"),
            // Before polkit 125 there is no other place.
            Place::PolkitActions => PathBuf::from("/usr/share/polkit-1/actions"),
        }
    }

    fn systemd(&self, below: &str) -> PathBuf {
        match self.kind {
            Kind::Vendor | Kind::Local => self.prefix.join("lib").join(below),
            Kind::Other => Path::new("/etc").join(below),
        }
    }

    fn usr(&self) -> &Path {
        match self.kind {
            Kind::Vendor => Path::new("/usr"),
            Kind::Local | Kind::Other => Path::new("/usr/local"),
        }
    }

    fn vendor_or_etc(&self, vendor: &str, etc: &str) -> PathBuf {
        match self.kind {
            Kind::Vendor => self.prefix.join(vendor),
            Kind::Local | Kind::Other => Path::new("/etc").join(etc),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_owns_usr_and_an_administrator_does_not() {
        let of = |prefix: &str, place| {
            let dir = Layout::new(Path::new(prefix)).directory(place);
            dir.to_str().unwrap().to_owned()
        };
        for (place, vendor, local, other) in [
            (
                Place::Libexec,
                "/usr/lib/banger",
                "/usr/local/lib/banger",
                "/opt/b/lib/banger",
            ),
            (
                Place::SystemUnit,
                "/usr/lib/systemd/system",
                "/usr/local/lib/systemd/system",
                "/etc/systemd/system",
            ),
            (
                Place::SystemService,
                "/usr/share/dbus-1/system-services",
                "/usr/local/share/dbus-1/system-services",
                "/usr/local/share/dbus-1/system-services",
            ),
            (
                Place::BusPolicy,
                "/usr/share/dbus-1/system.d",
                "/etc/dbus-1/system.d",
                "/etc/dbus-1/system.d",
            ),
            (
                Place::PolkitActions,
                "/usr/share/polkit-1/actions",
                "/usr/share/polkit-1/actions",
                "/usr/share/polkit-1/actions",
            ),
            (
                Place::PolkitRules,
                "/usr/share/polkit-1/rules.d",
                "/etc/polkit-1/rules.d",
                "/etc/polkit-1/rules.d",
            ),
        ] {
            assert_eq!(
                [of("/usr", place), of("/usr/local", place), of("/opt/b", place)],
                [vendor, local, other],
                "{place:?}"
            );
        }
    }
}
