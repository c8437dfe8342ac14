//! A process that works on a stranger's bytes: it keeps its standard streams, gets open files
//! over the socket that is its standard input, and can reach nothing else.

use std::io;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};

use crate::confine::{close_range, drop_capabilities};
use crate::landlock::{Confinement, Enforcement, restrict};
use crate::seccomp;

/// The limits of a worker. A lower one that is there already stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Of all that is mapped, in bytes.
    pub address_space: u64,
    /// The largest file that it may write, in bytes.
    pub file_bytes: u64,
    pub open_files: u64,
    /// Processor time of all threads.
    pub cpu_seconds: u64,
}

/// Why a process could not be confined. It must not go on.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {what}")]
pub struct WorkerError {
    what: &'static str,
    source: io::Error,
}

impl Worker {
    /// Confines this process, forever: no privilege, no files but the standard streams and
    /// those that it receives, no network, no other process, and no threads but those that
    /// `start` makes. A system call beyond that ends it with SIGSYS. To be called first thing in
    /// `main`, while there is one thread. Says how much of it Landlock enforces too; without
    /// Landlock the filter of system calls stands alone.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn confine<T>(&self, start: impl FnOnce() -> io::Result<T>) -> Result<(Enforcement, T), WorkerError> {
        let failed = |what| move |source| WorkerError { what, source };
        close_range(3, i32::MAX, 0).map_err(failed("close what is open"))?;
        rustix::process::umask(Mode::from_raw_mode(0o777));
        std::env::set_current_dir("/").map_err(failed("change to /"))?;
        rustix::thread::set_no_new_privs(true).map_err(|e| failed("set no-new-privileges")(e.into()))?;
        drop_capabilities().map_err(failed("drop the capabilities"))?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|e| failed("forbid to be traced")(e.into()))?;
        let nothing = Confinement {
            files: Vec::new(),
            tcp_bind: Some(Vec::new()),
            tcp_connect: Some(Vec::new()),
            scoped: true,
        };
        let enforcement = restrict(&nothing, |_| None).map_err(failed("set up Landlock"))?;
        self.limit().map_err(failed("set the resource limits"))?;
        keep_allocator_from_files();
        // They have all of the above from this thread, and get the filter with it.
        let started = start().map_err(failed("start its threads"))?;
        seccomp::restrict().map_err(|e| failed("set up the filter of system calls")(io::Error::other(e)))?;
        Ok((enforcement, started))
    }

    fn limit(&self) -> io::Result<()> {
        for (resource, value) in [
            (Resource::As, self.address_space),
            (Resource::Core, 0),
            (Resource::Cpu, self.cpu_seconds),
            (Resource::Fsize, self.file_bytes),
            (Resource::Nofile, self.open_files),
        ] {
            let hard = getrlimit(resource).maximum;
            let value = Some(hard.map_or(value, |hard| hard.min(value)));
            setrlimit(
                resource,
                Rlimit {
                    current: value,
                    maximum: value,
                },
            )?;
        }
        Ok(())
    }
}

/// glibc reads a file to learn how many arenas there may be, and another one before it makes an
/// arena smaller. One arena needs neither; it also saves 64 MiB of address space per thread.
fn keep_allocator_from_files() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        // What an arena that is there already can have at most.
        (libc::M_TRIM_THRESHOLD, 64 << 20),
    ] {
        // SAFETY: changes a number in the allocator, under its lock.
        unsafe { libc::mallopt(option, value) };
    }
}
