//! The sftp subsystem (draft-ietf-secsh-filexfer-02, version 3, with OpenSSH's extensions that
//! its clients ask for): a process of its own, started as the session's user, that speaks on
//! its standard input and output. Paths are the user's and the kernel checks them.

mod attributes;
mod extensions;
mod files;
mod handler;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use tokio::io::BufReader;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::oneshot;

use crate::console;
use handler::Server;

/// Serves until the client ends its side.
pub(crate) fn serve() -> ExitCode {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .and_then(|runtime| runtime.block_on(run()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::warn("The file server fails", &error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<()> {
    let input = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let output = Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let stream = tokio::io::join(BufReader::with_capacity(128 << 10, input), output);
    let (running, end) = oneshot::channel();
    russh_sftp::server::run(stream, Server::new(running)).await;
    // The server is dropped, and with it the sender, when the stream ends.
    let _ = end.await;
    Ok(())
}
