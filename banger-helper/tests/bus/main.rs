//! The helper on a system bus of the test's own.

mod authorization;
mod files;
mod generated;
mod program;
mod slots;
mod support;
