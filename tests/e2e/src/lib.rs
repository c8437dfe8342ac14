//! The rig of the end-to-end tests: a user of its own for each test (home, directories,
//! daemon), a shared read-only store of images, and an audit of what is left behind.

mod audit;
mod bus;
pub mod disk;
mod guest;
pub mod layer;
pub mod layout;
mod nested;
mod processes;
pub mod proxy;
mod pty;
pub mod registry;
pub mod repository;
mod rig;
pub mod samples;
mod store;
mod systemd;
pub mod trace;
pub mod tree;
mod watch;
pub mod workspace;

pub use audit::Audit;
pub use bus::Bus;
pub use nested::Nested;
pub use pty::Pty;
pub use rig::{Out, Rig, finished};
pub use store::{BARE, Content, DEBIAN, KERNEL, TOOLS, mke2fs};
pub use systemd::{ALICE, BOB, Machine, NOBODY, Person, State};
pub use watch::line_with;

/// Says why a test cannot run here. Fails the test instead where `BANGER_TEST_REQUIRE` names
/// its rung.
///
/// # Panics
/// When the rung is required.
#[allow(clippy::print_stdout, reason = "the line is for people and for scripts/test")]
pub fn skipped(rung: &str, why: &str) {
    let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == rung),
        "The rung {rung} is required here and cannot run: {why}"
    );
    println!("skipped: {why}");
}

/// Whether a program is on PATH.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}
