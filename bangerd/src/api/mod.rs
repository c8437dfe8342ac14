//! The contract of the bus on top of what the daemon is made of: decode, check, call, reply.

mod agents;
mod log;
mod manager;
mod publish;
mod services;
#[cfg(test)]
mod tests;
mod vm;

pub(crate) use manager::{Manager, rows as defaults};
pub(crate) use publish::Publisher;
pub(crate) use services::Services;
