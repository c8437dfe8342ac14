//! banger's owner daemon: policy and state.

mod bus;
#[path = "core"]
mod core {
    pub(crate) mod progress;
}
mod guest;
mod jobs;

fn main() {}
