//! QEMU, 7.0 or later.

pub mod args;

use std::path::PathBuf;

use crate::engine::{Accelerator, Engine, LaunchPlan, MachineSpec, PlanError};

/// An installed QEMU; [`crate::probe::find_qemu`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    pub binary: PathBuf,
    pub version: Version,
}

/// As in `QEMU emulator version 7.2.22`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub micro: u32,
}

impl Engine for Qemu {
    fn plan(&self, spec: MachineSpec) -> Result<LaunchPlan, PlanError> {
        args::plan(self, spec)
    }

    fn default_cmdline(&self, accelerator: Accelerator) -> String {
        args::default_cmdline(accelerator)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}
