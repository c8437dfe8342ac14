//! The program as a user runs it, against a daemon that only pretends: everything goes through
//! the real contract, on a private socket in a temporary directory.

mod develop;
mod exec;
mod fake;
mod host;
mod images;
mod list;
mod pull;
mod results;
mod run;
mod screen;
mod session_bus;
mod ssh;
mod ssh_config;
mod start;
mod workspace;
