//! Where a running VM's figures are.

use std::path::PathBuf;

use banger_bus::Error;
use banger_store::VmmProcess;

use super::vm::Vm;

/// What is measured of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    pub vmm: VmmProcess,
    /// The VMM's own scope; empty where it has none.
    pub unit: String,
    /// Its root disk.
    pub disk: PathBuf,
}

impl Vm {
    /// What there is to measure.
    ///
    /// # Errors
    /// `WrongState` when no VMM runs.
    pub(crate) fn measured(&self) -> Result<Measured, Error> {
        self.live()?;
        let record = self.record();
        let disk = self.core().paths(self.id()).root_disk();
        Ok(Measured {
            vmm: record
                .vmm
                .ok_or_else(|| self.wrong_state("has only begun to start", "Try again."))?,
            unit: record.unit,
            disk,
        })
    }
}
