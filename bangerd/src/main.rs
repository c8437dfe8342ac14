//! banger's owner daemon: policy and state.

mod bus;
mod catalog;
mod config;
#[path = "core"]
mod core {
    pub(crate) mod error;
    pub(crate) mod progress;
    pub(crate) mod sources;
}
mod guest;
mod jobs;

fn main() {}
