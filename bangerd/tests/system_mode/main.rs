//! The daemon in system mode, on a system bus of the test's own: a helper that notes what it is
//! asked and has a `sleep` stand for each VMM, a polkit that answers as it is told, and a systemd
//! that knows the scopes. The daemon is the real program, and is killed where a test says so.

#![allow(clippy::print_stdout, reason = "a test says what it skips")]

mod fake;
mod points;
mod rig;
mod runs;
