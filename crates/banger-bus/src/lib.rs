//! The D-Bus contract of banger: the one place where a method, a property, a signal, an option
//! or an error is described. `bangerd` implements the traits of [`api`]; clients use the proxies
//! that come from the same blocks. `dbus/` holds the introspection XML, and a test holds both
//! together.
//!
//! Long work returns a job at once. A client subscribes to [`JobProxy`]'s `Removed` *before* the
//! call that makes the job, so that it misses nothing however short the job is.

pub mod api;
mod error;
pub mod helper;
mod info;
mod job;
mod manager;
mod objects;
mod options;
pub mod path;
mod vm;

pub use error::{Error, ErrorKind, Result};
pub use helper::{HelperObject, HelperObjectProxy as HelperProxy};
pub use info::{ImageInfo, InfoError, JobInfo, JobPart, KernelInfo, ListeningPort, VmInfo};
pub use job::{
    JobObject, JobObjectProxy as JobProxy, JobOutcome, ProcessObject, ProcessObjectProxy as ProcessProxy,
};
pub use manager::{ManagerObject, ManagerObjectProxy as ManagerProxy};
pub use objects::{
    ImageObject, ImageObjectProxy as ImageProxy, KernelObject, KernelObjectProxy as KernelProxy,
};
pub use options::{
    CopyOptions, CreateOptions, DeleteOptions, ExecOptions, ExportOptions, ImportKernelOptions, LogOptions,
    PruneOptions, PullOptions, RegisterOptions, SetOptions, StartOptions, StopOptions,
    WorkspaceExportOptions, WorkspaceOptions,
};
pub use vm::{VmObject, VmObjectProxy as VmProxy};

/// The well-known name of the daemon on the session bus.
pub const SERVICE: &str = "org.banger.Manager";
/// The version of this contract. Additions keep it; a client may rely on everything that the
/// version it was written for had.
pub const INTERFACE_VERSION: u32 = 1;
