//! The engine trait and its engines: what a machine should be, turned into a process to
//! launch, and the conversation with that process while it runs. Nothing here decides
//! whether a machine should run.

pub mod engine;
pub mod firecracker;
pub mod probe;
pub mod qemu;
pub mod qmp;

mod footprint;
mod roots;

pub use engine::{
    Accelerator, Channels, ConsoleSink, Engine, EngineKind, LaunchPlan, MachineSpec, MachineType, Network,
    PlanError, TapNetwork, UserNetwork,
};
pub use firecracker::Firecracker;
pub use footprint::{TASKS_MAX, memory_max};
pub use qemu::Qemu;
pub use qmp::{Qmp, QmpError, VmmEvent};
