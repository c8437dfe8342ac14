//! Where to read a VM's console.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use banger_model::SlotHandle;
use banger_store::VmRecord;

use super::capability::VmPaths;
use crate::systemd;

/// A console's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Console {
    /// In the user's journal, under the VM's scope.
    Journal {
        unit: String,
        /// When the last run began, in microseconds since 1970; 0 for never.
        started_us: u64,
    },
    /// In the system's journal, under the scope of the slot that the VM holds: the helper reads
    /// it for us.
    Slot(SlotHandle),
    /// In files, the older one first. Either may be missing.
    Files {
        old: PathBuf,
        /// Whether `old` is of the last run too: its beginning, moved aside because it grew.
        old_is_of_this_boot: bool,
        new: PathBuf,
    },
}

impl Console {
    /// A run that writes to the journal leaves no file behind.
    pub(super) fn of(paths: &VmPaths, vm: &VmRecord) -> Self {
        let (old, new) = (paths.old_console(), paths.console());
        let started_us = vm.started_us;
        if started_us != 0 && !new.exists() && paths.vmm_log().exists() {
            return match vm.slot {
                Some(held) => Self::Slot(held.handle),
                None => Self::Journal {
                    unit: systemd::unit_name(vm.id),
                    started_us,
                },
            };
        }
        let written_us = old.metadata().map_or(0, |file| {
            u64::try_from(file.mtime()).unwrap_or(0) * 1_000_000
                + u64::try_from(file.mtime_nsec()).unwrap_or(0) / 1000
        });
        Self::Files {
            old,
            old_is_of_this_boot: written_us > started_us,
            new,
        }
    }
}
