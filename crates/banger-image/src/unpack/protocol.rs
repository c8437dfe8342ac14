//! What the two sides of the unpacker say to each other: one JSON text per message of a
//! SEQPACKET socket, open files beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use banger_sys::landlock::Enforcement;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, send, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::chain;
use crate::ext4::Seed;
use crate::layer::Compression;

/// Bytes of one message; a unix socket takes twice as many.
const MAX_MESSAGE: usize = 64 << 10;
/// Open files with one message.
const MAX_FILES: usize = 2;
/// Bytes of a manifest in one reply; as JSON they are four times as many at most.
pub(super) const PART: usize = 8 << 10;
/// Characters of a reason that a reply has.
const MAX_TEXT: usize = 2000;

/// What the parent asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// With the file that becomes a file system.
    Start {
        seed: Seed,
        /// Bytes of the target's file system that must stay free.
        reserve: u64,
    },
    /// With the file of the layer.
    Layer {
        size: u64,
        compression: Compression,
        diff_id: Digest,
    },
    Finish,
    /// With the bundle, and the empty file that its content goes to.
    Bundle {
        /// As in [`Request::Start`].
        reserve: u64,
    },
    #[cfg(test)]
    Misbehave(super::tests::Misdeed),
}

/// What the child answers. Nothing of it is trusted beyond its form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reply {
    Confined(Enforcement),
    /// Stored bytes of the layer or the bundle that were read.
    Progress(u64),
    /// A part of the bundle's manifest.
    Manifest(Vec<u8>),
    Done,
    Finished {
        size: u64,
        content: u64,
        files: u32,
    },
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// The layer is bad.
    Refused,
    NoSpace,
    NoQuota,
    /// Something else went wrong.
    Failed,
}

/// Why something was not done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    text: String,
}

impl Failure {
    /// With the texts of an error and of what caused it, as far as a message takes them.
    pub(super) fn new(kind: Kind, error: &dyn std::error::Error) -> Self {
        let text = chain(error).chars().take(MAX_TEXT).collect();
        Self { kind, text }
    }

    /// One short line, whoever wrote it.
    pub(super) fn text(&self) -> String {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        self.text.chars().take(MAX_TEXT).map(plain).collect()
    }
}

pub(super) fn send_message(
    socket: impl AsFd,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if files.is_empty() {
        send(socket, &text, SendFlags::NOSIGNAL)?;
        return Ok(());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(&text)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The next message and the files beside it; `None` when the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        match recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            // CONNRESET says that the other side left something unread; what it sent comes after.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            other => break other?,
        }
    };
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..received.bytes])?, files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let failure = Failure {
            kind: Kind::Refused,
            text: "a\u{1b}[31m\nb".to_owned() + &"c".repeat(1 << 20),
        };
        let text = failure.text();
        assert!(text.starts_with("a [31m bccc"), "{text}");
        assert_eq!(text.len(), MAX_TEXT);
    }

    /// Longer than a message, the reason would be lost with it.
    #[test]
    fn a_long_reason_comes_through() {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let error = io::Error::other("\u{1}".repeat(1 << 20));
        let failure = Failure::new(Kind::Refused, &error);
        send_message(&theirs, &Reply::Failed(failure), &[]).unwrap();
        let Some((Reply::Failed(failure), _)) = receive(&ours).unwrap() else {
            panic!()
        };
        assert_eq!(failure.text(), " ".repeat(MAX_TEXT));
    }
}
