//! Plain data of banger: what a VM, an image, a kernel and a job are called, what they are
//! made of and in which states they can be. No I/O: everything here can be built, compared
//! and tested without a machine.

pub mod agent;
pub mod config;
pub mod dirs;
pub mod event;
pub mod figures;
pub mod guest;
pub mod id;
pub mod image;
pub mod limits;
pub mod name;
pub mod signal;
pub mod size;
pub mod slot;
pub mod spec;
pub mod ssh_config;
pub mod state;
pub mod workspace;

pub use config::Config;
pub use dirs::Dirs;
pub use event::Event;
pub use id::VmId;
pub use image::{ImageConfig, Process};
pub use name::{ImageName, KernelName, VmName};
pub use size::Size;
pub use slot::{GuestBridge, Slot, SlotHandle};
pub use spec::{EngineChoice, NetworkMode, VmSpec};
pub use state::{JobResult, StopReason, VmState};
pub use workspace::Workspace;
