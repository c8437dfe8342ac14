//! Images and kernels as bundles: exported, published, pulled again, and such as nobody should
//! pull.

mod fixture;
mod hostile;
mod hostile_kernels;
mod image;
mod kernel;
mod parts;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/registry.rs"]
mod server;
mod sources;
mod web;

use std::process;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

/// Not a test by itself: what reads bundles is this program again, as it is bangerd.
#[test]
fn child_entry() {
    if socket_type(std::io::stdin()) == Ok(SocketType::SEQPACKET) {
        let code = banger_image::unpack::run_child();
        process::exit(i32::from(code != process::ExitCode::SUCCESS));
    }
}
