//! The way into a running guest: the owner's key, SSH connections to its agent, and commands.

pub(crate) mod agent;
mod error;
pub(crate) mod exec;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod figures;
pub(crate) mod files;
pub(crate) mod keys;
pub(crate) mod known_hosts;
mod quote;
pub(crate) mod ssh_config;
pub(crate) mod stdio;

pub(crate) use agent::{Agent, Endpoint, Gone};
pub(crate) use keys::ClientKey;
pub(crate) use known_hosts::KnownHosts;
pub(crate) use ssh_config::SshConfig;
