//! The helper on a system bus of the test's own.

#![allow(clippy::print_stdout, reason = "a test says why it is skipped")]

mod authorization;
mod crash;
mod files;
mod generated;
mod launch;
mod program;
mod slots;
mod support;
mod table;
