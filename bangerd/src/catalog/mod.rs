//! Images and kernels: what is here, on the bus, and what can be pulled.

mod error;
mod image;
mod kernel;
mod library;
mod offers;
mod turns;

pub(crate) use library::Library;
pub(crate) use offers::host as host_catalog;
