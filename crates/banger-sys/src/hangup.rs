//! The other end of a pipe or socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::Interest;

use crate::pidfd::register_for;

/// Resolves when nobody can read any more what is written to `output`, a pipe or a unix socket.
/// Its file is watched only: neither read nor written, nor are its flags changed, which it
/// shares with other processes. Needs a tokio runtime.
///
/// # Errors
/// When the descriptor cannot be watched.
pub async fn hung_up(output: OwnedFd) -> io::Result<()> {
    // What there is to read, and that there will be no more of it, is of no account: an
    // interest in errors would register for both. Errors are reported anyway.
    let output = register_for(output, Interest::PRIORITY)?;
    loop {
        let mut guard = output.ready(Interest::PRIORITY | Interest::ERROR).await?;
        if is_hung_up(output.get_ref())? {
            return Ok(());
        }
        guard.clear_ready();
    }
}

fn is_hung_up(output: impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(&output, PollFlags::empty())];
    let now = rustix::time::Timespec::default();
    poll(&mut fds, Some(&now))?;
    Ok(fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::pin::pin;

    use super::*;

    /// Whether it is still pending once everything that is ready was handled.
    async fn pends(future: &mut (impl Future + Unpin)) -> bool {
        for _ in 0..8 {
            tokio::select! {
                biased;
                _ = &mut *future => return false,
                () = tokio::task::yield_now() => {}
            }
        }
        true
    }

    #[tokio::test]
    async fn a_pipe_without_its_reader_is_seen() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut waiting = pin!(hung_up(write));
        assert!(pends(&mut waiting).await);
        drop(read);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_hangs_up_when_its_peer_is_gone_and_not_before() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let mut waiting = pin!(hung_up(ours.into()));
        peer.write_all(b"of no account").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(pends(&mut waiting).await);
        drop(peer);
        waiting.await.unwrap();
    }
}
