//! What both daemons tell the journal, each with an id that a program can look for and
//! `systemd/banger.catalog` explains (`journalctl -x`, `journalctl MESSAGE_ID=…`).

macro_rules! events {
    ($($(#[$doc:meta])* $event:ident = $id:literal $name:literal),+ $(,)?) => {
        /// An event. Ids are for ever: what means another thing gets another one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Event {
            $($(#[$doc])* $event),+
        }

        impl Event {
            pub const ALL: &'static [Self] = &[$(Self::$event),+];

            /// `MESSAGE_ID=`: 32 lower-case hexadecimal digits.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$event => $id),+
                }
            }

            /// `BANGER_EVENT=`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$event => $name),+
                }
            }
        }
    };
}

events!(
    VmCreated = "2ced80d1a21e4576b84f1a2c874800ff" "vm-created",
    VmDeleted = "47287b8c69a34ccdb73605e819c2b8bc" "vm-deleted",
    /// Its guest is up.
    VmStarted = "c73a962e389e4fd8a05bc61b7fc44b82" "vm-started",
    /// As somebody asked, or as the guest shut down by itself.
    VmStopped = "dabb399076e74244823cb7082eead8f8" "vm-stopped",
    /// Any other end of a VM that ran.
    VmDied = "229d317ba81f46afb2e8aa03e4573371" "vm-died",
    /// A daemon that started found it running.
    VmAdopted = "cf09e9af638c4f819b90d8a4deae57e4" "vm-adopted",
    /// Its guest did not come up.
    BootFailed = "0e5c53d635de4625a86150e60529dbac" "boot-failed",
    SlotAcquired = "5e35fbef124a4c368684ec887fb1135c" "slot-acquired",
    SlotReleased = "3e85b36aa3ed4cf4ac2774c40126f8a1" "slot-released",
    /// The helper has started a VMM in its scope.
    VmmLaunched = "292f621791d548369b61f3fcbf1fc05a" "vmm-launched",
    /// An administrator ended somebody's VMM.
    VmmEvicted = "062f13f504b04d85bb639c838be4f23c" "vmm-evicted",
    /// polkit refused a call of the helper's.
    AuthorizationDenied = "2bd7b703ad534f878818f3b66c985883" "authorization-denied",
    /// The host asks an owner's daemon for names of VMs.
    NamesRouted = "cbb946d2581b4c3191a4d2da6a762747" "names-routed",
    /// It asks nobody any more.
    NamesWithdrawn = "f32fd146fe4441db95bb27100d59be60" "names-withdrawn",
    NetworkMade = "2803ad3f787a4db2aeb9766eacac43e5" "network-made",
    /// Something of the guests' network had been changed by somebody else.
    NetworkRepaired = "564d280db84c4059a9c3ac5a0fc589e1" "network-repaired",
);

impl Event {
    /// The event of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|event| event.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Each entry of a message catalogue begins with such a line.
    const ENTRY: &str = "-- ";

    #[test]
    fn ids_and_names_are_one_events_only() {
        let ids: HashSet<_> = Event::ALL.iter().map(|event| event.id()).collect();
        assert_eq!(ids.len(), Event::ALL.len());
        for event in Event::ALL {
            let id = event.id();
            assert!(
                id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                "{id}"
            );
            assert_eq!(Event::of_name(event.name()), Some(*event));
        }
    }

    #[test]
    fn the_documents_list_each_and_nothing_else() {
        let listed: Vec<_> = include_str!("../../../docs/logging.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .filter_map(|(name, rest)| Some((name, rest.split_once(" | ")?.0)))
            .filter(|(_, id)| id.len() == 32)
            .collect();
        let known: Vec<_> = Event::ALL
            .iter()
            .map(|event| (event.name(), event.id()))
            .collect();
        assert_eq!(listed, known, "in the same order");
    }

    #[test]
    fn the_catalogue_explains_each_and_nothing_else() {
        let catalogue = include_str!("../../../systemd/banger.catalog");
        let explained: Vec<_> = catalogue
            .lines()
            .filter_map(|line| line.strip_prefix(ENTRY))
            .collect();
        let known: Vec<_> = Event::ALL.iter().map(|event| event.id()).collect();
        assert_eq!(explained, known, "in the same order");
        for entry in catalogue.split("\n-- ").skip(1) {
            let (head, text) = entry.split_once("\n\n").unwrap();
            let names: Vec<_> = head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(": "))
                .collect();
            let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["Subject", "Defined-By", "Documentation"], "{entry}");
            assert!(!text.trim().is_empty(), "{entry}");
        }
    }
}
