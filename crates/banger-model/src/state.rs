//! States: small closed sets, each a word on the bus, in the database and in `--json`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A word that belongs to no state of its set: it comes from a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Unknown {what}: {word:?}")]
pub struct UnknownWord {
    pub what: &'static str,
    pub word: String,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|known| known.as_str() == word)
                    .ok_or_else(|| UnknownWord { what: $what, word: word.to_owned() })
            }
        }
    };
}

words!(
    /// Where a VM is in its life.
    VmState, "VM state" {
        /// Its disk is being made; it has never run.
        Creating = "creating",
        /// It exists and nothing of it runs.
        Stopped = "stopped",
        /// Its VMM runs and the guest has not announced itself yet.
        Starting = "starting",
        /// The guest's agent answers.
        Running = "running",
        /// Its virtual CPUs are halted by the owner.
        Paused = "paused",
        /// The guest was asked to shut down.
        Stopping = "stopping",
        /// It is being taken apart.
        Deleting = "deleting",
    }
);

words!(
    /// Why a VM is stopped.
    StopReason, "stop reason" {
        /// It has not been started yet.
        Never = "never-started",
        /// The owner stopped it.
        Requested = "requested",
        /// The owner killed it, or it did not shut down in time.
        Killed = "killed",
        /// The guest powered itself off.
        GuestPoweroff = "guest-poweroff",
        /// The guest's kernel panicked.
        GuestPanic = "guest-panic",
        /// The guest never announced itself.
        BootTimeout = "boot-timeout",
        /// The guest's init reported that it cannot boot.
        BootFailed = "boot-failed",
        /// The VMM ended by itself, with an error.
        VmmFailed = "vmm-failed",
        /// The VMM was ended by a signal that did not come from banger.
        VmmKilled = "vmm-killed",
        /// It was found gone: the host rebooted, or its VMM ended unobserved.
        Vanished = "vanished",
    }
);

words!(
    /// How a job ended. The set is closed: clients may match on it.
    JobResult, "job result" {
        Done = "done",
        Cancelled = "cancelled",
        Failed = "failed",
        Timeout = "timeout",
    }
);

impl VmState {
    /// Whether a VMM process belongs to this state.
    pub const fn is_live(self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Running | Self::Paused | Self::Stopping
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for state in VmState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        for reason in StopReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert_eq!(
            "asleep".parse::<VmState>().unwrap_err().to_string(),
            "Unknown VM state: \"asleep\""
        );
    }
}
