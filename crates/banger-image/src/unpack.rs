//! Layers into a file system, by a process that can do nothing else.
//!
//! What decompresses and parses the bytes of strangers is a child of this program: it has no
//! privilege, no network, no files but those it is given, few system calls, and limits of
//! memory, time and space. One session makes one file system; its layers are given in their
//! order, while later ones may still be on their way.

mod child;
mod error;
mod protocol;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use banger_sys::landlock::Enforcement;
use rustix::fs::fstatvfs;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

pub use child::run_child;
pub use error::UnpackError;

use crate::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result, home};
use crate::ext4::{Seed, Summary};
use crate::group::{Group, ready_in};
use crate::layer::{Compression, Limits};
use protocol::{Failure, Kind, Reply, Request, receive, send_message};

/// What the child may map, in bytes. It is not meant to use a third of it.
const ADDRESS_SPACE: u64 = 768 << 20;
/// Processor time of the child: 64 GiB of content take less.
const CPU_SECONDS: u64 = 30 * 60;
/// Bytes of a bundle's manifest.
const MAX_MANIFEST: usize = 1 << 20;
/// What stays free in the target's file system: so many bytes, or a twentieth of a small one.
const RESERVE: u64 = 512 << 20;
const RESERVE_PART: u64 = 20;
/// From one word of the child to the next: it tells of each MiB that it has read.
const SILENCE: Duration = Duration::from_secs(10 * 60);
/// From the end of what the child says to its own end. A large one takes a moment to go.
const ENDING: Duration = Duration::from_secs(10);

/// How to start the child: a program whose entry calls [`run_child`].
#[derive(Debug, Clone)]
pub struct Unpacker {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

/// A layer as it was fetched.
#[derive(Debug)]
pub struct Layer {
    /// Read from where it stands.
    pub blob: File,
    /// Bytes of the blob.
    pub size: u64,
    pub compression: Compression,
    /// What its content must be.
    pub diff_id: Digest,
}

/// A file system in the making. Dropped, the child ends and the target is none.
#[derive(Debug)]
pub struct Session {
    /// Gone once it was waited for.
    group: Option<Group>,
    socket: OwnedFd,
    cancel: Cancel,
    target: File,
    /// Where the target is, for people.
    path: PathBuf,
    reserve: u64,
    silence: Duration,
    ending: Duration,
}

impl Unpacker {
    /// This very program (even when its file was replaced meanwhile) with the subcommand
    /// `image-unpack`.
    pub fn this_program() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            arguments: vec!["image-unpack".into()],
        }
    }

    /// Starts a child that makes a file system of `target`, an empty file open for writing. It
    /// ends with `cancel`, with the session, and with this program.
    ///
    /// # Errors
    /// When the child cannot be started.
    pub fn start(&self, target: File, seed: Seed, cancel: &Cancel) -> Result<Session> {
        let mut session = self.spawn(target, cancel)?;
        let request = Request::Start {
            seed,
            reserve: session.reserve,
        };
        let target = session.target.try_clone().map_err(socket_error)?;
        match session.ask(&request, &[target.as_fd()], &mut |_| {})? {
            Reply::Done => Ok(session),
            _ => Err(UnpackError::Protocol.into()),
        }
    }

    /// Unpacks a bundle to `target`, an empty file open for writing, and returns what the child
    /// says is its manifest: to be parsed again. `progress` gets how many bytes of the bundle
    /// were read so far.
    ///
    /// # Errors
    /// [`UnpackError::Refused`] with what is wrong with it, and as [`Session::layer`].
    pub fn bundle(
        &self,
        bundle: &File,
        target: File,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let mut session = self.spawn(target, cancel)?;
        let request = Request::Bundle {
            reserve: session.reserve,
        };
        let target = session.target.try_clone().map_err(socket_error)?;
        let mut reply = session.ask(&request, &[bundle.as_fd(), target.as_fd()], progress)?;
        let mut json = Vec::new();
        loop {
            match reply {
                Reply::Manifest(part) if json.len() + part.len() <= MAX_MANIFEST => {
                    json.extend_from_slice(&part);
                }
                Reply::Done => return Ok(json),
                _ => return Err(UnpackError::Protocol.into()),
            }
            reply = session.answer(progress)?;
        }
    }

    fn spawn(&self, target: File, cancel: &Cancel) -> Result<Session> {
        cancel.check()?;
        let path = path_of(&target);
        let space = fstatvfs(&target).map_err(Error::os("look at", &path))?;
        let reserve = RESERVE.min(space.f_blocks.saturating_mul(space.f_frsize) / RESERVE_PART);
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| socket_error(error.into()))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let group = Group::start(&mut command, cancel).map_err(Error::io("run", &self.program))?;
        Ok(Session {
            group: Some(group),
            socket,
            cancel: cancel.clone(),
            target,
            path,
            reserve,
            silence: SILENCE,
            ending: ENDING,
        })
    }
}

impl Session {
    /// Applies a layer on top of those before it. `progress` gets how many bytes of the blob
    /// were read so far.
    ///
    /// # Errors
    /// [`Error::Layer`] with what is wrong with it, [`Error::NoSpace`], [`Error::Cancelled`],
    /// [`Error::Unpack`]. The session is of no use afterwards.
    pub fn layer(&mut self, layer: &Layer, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let request = Request::Layer {
            size: layer.size,
            compression: layer.compression,
            diff_id: layer.diff_id,
        };
        let mut bounded = |read: u64| progress(read.min(layer.size));
        match self.ask(&request, &[layer.blob.as_fd()], &mut bounded) {
            Ok(Reply::Done) => Ok(()),
            Ok(_) => Err(UnpackError::Protocol.into()),
            Err(Error::Unpack(source @ UnpackError::Refused(_))) => Err(Error::Layer {
                diff_id: layer.diff_id,
                source,
            }),
            Err(error) => Err(error),
        }
    }

    /// Makes a file system of the layers. The target is not synced.
    ///
    /// # Errors
    /// As [`Session::layer`].
    pub fn finish(mut self) -> Result<Summary> {
        let Reply::Finished { size, content, files } = self.ask(&Request::Finish, &[], &mut |_| {})? else {
            return Err(UnpackError::Protocol.into());
        };
        let len = self
            .target
            .metadata()
            .map_err(Error::io("look at", &self.path))?
            .len();
        if size != len || content > Limits::default().bytes {
            return Err(UnpackError::Protocol.into());
        }
        Ok(Summary { size, content, files })
    }

    /// Sends a request and waits for its end.
    fn ask(
        &mut self,
        request: &Request,
        files: &[BorrowedFd<'_>],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Reply> {
        self.cancel.check()?;
        // A child that ended has left its reason, or has a status.
        _ = send_message(&self.socket, request, files);
        self.answer(progress)
    }

    fn answer(&mut self, progress: &mut dyn FnMut(u64)) -> Result<Reply> {
        loop {
            if !ready_in(&self.socket, self.silence).map_err(socket_error)? {
                return Err(UnpackError::Silent.into());
            }
            match receive(&self.socket) {
                Ok(Some((Reply::Confined(enforcement), _))) => note(enforcement),
                Ok(Some((Reply::Progress(read), _))) => progress(read),
                Ok(Some((Reply::Failed(failure), _))) => return Err(self.failed(&failure)),
                Ok(Some((reply, _))) => return Ok(reply),
                Ok(None) => return Err(self.ended()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(UnpackError::Protocol.into());
                }
                Err(error) => return Err(socket_error(error)),
            }
        }
    }

    fn failed(&self, failure: &Failure) -> Error {
        match failure.kind {
            Kind::Refused => UnpackError::Refused(failure.text()).into(),
            Kind::Failed => UnpackError::Failed(failure.text()).into(),
            Kind::NoSpace | Kind::NoQuota => Error::NoSpace {
                path: home(&self.path),
                needed: self.reserve,
                quota: failure.kind == Kind::NoQuota,
            },
        }
    }

    /// The child closed its end without a word: somebody or something ended it, or it stays
    /// and is ended.
    fn ended(&mut self) -> Error {
        let status = self.group.take().map(|group| group.wait_for(self.ending));
        if let Err(cancelled) = self.cancel.check() {
            return cancelled.into();
        }
        match status {
            Some(Ok(Some(status))) => UnpackError::ended(status).into(),
            Some(Err(error)) => socket_error(error),
            Some(Ok(None)) | None => UnpackError::Protocol.into(),
        }
    }
}

fn note(enforcement: Enforcement) {
    match enforcement {
        Enforcement::Full => {}
        Enforcement::Partial | Enforcement::None => {
            tracing::debug!(
                ?enforcement,
                "Landlock is not there in full: the unpacker has its other limits"
            );
        }
    }
}

fn socket_error(error: io::Error) -> Error {
    UnpackError::Socket(error).into()
}

fn path_of(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(&link).unwrap_or_else(|_| Path::new(&link).to_owned())
}
