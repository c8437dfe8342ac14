//! `banger system …`: system mode on this machine.

mod files;
mod host;
pub(crate) mod install;
mod layout;
mod manifest;
mod place;
pub(crate) mod restart;
pub(crate) mod status;
pub(crate) mod uninstall;
mod units;
