//! Where the guest's own things lie once the root file system is mounted: all in a file
//! system in memory, so that an image is left as it was.

/// The directory of everything below.
pub(crate) const RUN: &str = "/run/banger";
/// This program, for everything that is started after the initramfs has gone.
pub(crate) const PROGRAM: &str = "/run/banger/banger-guest";
/// The identity, readable by root only.
pub(crate) const IDENTITY: &str = "/run/banger/identity.json";
/// The process id of the agent that listens.
pub(crate) const PID_FILE: &str = "/run/banger/agent.pid";
/// The signal by which the machine is to end, for a PID 1 that does not take signals yet.
pub(crate) const END: &str = "/run/banger/end";
/// What PID 1 of the image is, for the agent to report.
pub(crate) const INIT: &str = "/run/banger/init";
