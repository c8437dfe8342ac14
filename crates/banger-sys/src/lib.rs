//! What the rest of banger needs from the kernel and what cannot be had without `unsafe`, or
//! what is easy to get wrong: processes by descriptor, launching a confined program,
//! Landlock, a filter of system calls, the journal's stream, file events, and the question
//! whether KVM works.
//!
//! This is the only crate that may contain `unsafe`; everything it offers is safe to call.

pub mod cancel;
pub mod clock;
pub mod fail_point;
pub mod file;
pub mod guest;
pub mod hangup;
pub mod inotify;
pub mod journal;
pub mod kvm;
pub mod landlock;
pub mod launch;
pub mod listen;
pub mod netns;
pub mod pidfd;
pub mod tap;
pub mod worker;

mod confine;
mod identity;
mod seccomp;
