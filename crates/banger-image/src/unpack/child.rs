//! The confined side of the unpacker.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use banger_model::limits::MAX_DISK_BYTES;
use banger_sys::worker::Worker;
use rustix::fs::fstatvfs;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::protocol::{Failure, Kind, PART, Reply, Request, receive, send_message};
use super::{ADDRESS_SPACE, CPU_SECONDS};
use crate::bundle::{self, BundleError};
use crate::ext4::{WriteError, Writer};
use crate::layer::{self, Decompressor, Layer, LayerError, Limits};

const NAME: &CStr = c"banger-unpack";
/// The largest file; how much of it may be no hole, the space that must stay free says.
const FILE_BYTES: u64 = MAX_DISK_BYTES;
const OPEN_FILES: u64 = 16;
/// Stored bytes from one report of progress to the next.
const STEP: u64 = 1 << 20;

/// The whole of the child: call it first thing in `main`, before any thread and runtime
/// exists. Returns when the parent is gone or has got its file system.
pub fn run_child() -> ExitCode {
    if socket_type(io::stdin()) != Ok(SocketType::SEQPACKET) {
        _ = writeln!(io::stderr(), "This command is started by bangerd with a socket");
        return ExitCode::FAILURE;
    }
    // It was started by a link, whose name says nothing to who looks at processes.
    _ = rustix::thread::set_name(NAME);
    let worker = Worker {
        address_space: ADDRESS_SPACE,
        file_bytes: FILE_BYTES,
        open_files: OPEN_FILES,
        cpu_seconds: CPU_SECONDS,
    };
    let confined = worker
        .confine(Decompressor::start)
        .map_err(|error| Failure::new(Kind::Failed, &error));
    let served = confined.and_then(|(enforcement, decompressor)| {
        tell(&Reply::Confined(enforcement));
        serve(&decompressor)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&Reply::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

/// A parent that is gone needs no reply.
fn tell(reply: &Reply) -> bool {
    send_message(io::stdin(), reply, &[]).is_ok()
}

/// What is being made.
struct Work {
    writer: Writer,
    /// The same file, to see how full its file system is.
    target: File,
    reserve: u64,
    /// Bytes of content that further layers may have.
    left: u64,
}

fn serve(decompressor: &Decompressor) -> Result<(), Failure> {
    let mut work = None;
    loop {
        let (request, files) = match receive(io::stdin()) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error) => return Err(Failure::new(Kind::Failed, &error)),
        };
        let mut files = files.into_iter();
        let reply = match request {
            Request::Start { seed, reserve } => {
                work = Some(Work::start(files.next(), seed, reserve)?);
                Reply::Done
            }
            Request::Layer {
                size,
                compression,
                diff_id,
            } => {
                let layer = Layer {
                    size,
                    compression,
                    diff_id,
                };
                let work = work.as_mut().ok_or_else(out_of_turn)?;
                work.layer(decompressor, files.next(), &layer)?;
                Reply::Done
            }
            Request::Finish => work.take().ok_or_else(out_of_turn)?.finish()?,
            Request::Bundle { reserve } => {
                let (bundle, target) = (files.next(), files.next());
                read_bundle(bundle, target, reserve)?;
                Reply::Done
            }
            #[cfg(test)]
            Request::Misbehave(misdeed) => {
                misdeed.commit();
                Reply::Done
            }
        };
        tell(&reply);
    }
}

impl Work {
    fn start(target: Option<OwnedFd>, seed: crate::ext4::Seed, reserve: u64) -> Result<Self, Failure> {
        let target = File::from(target.ok_or_else(out_of_turn)?);
        let copy = target
            .try_clone()
            .map_err(|error| Failure::new(Kind::Failed, &error))?;
        Ok(Self {
            writer: Writer::new(copy, seed).map_err(|error| failure(&LayerError::from(error)))?,
            target,
            reserve,
            left: Limits::default().bytes,
        })
    }

    fn layer(
        &mut self,
        decompressor: &Decompressor,
        blob: Option<OwnedFd>,
        layer: &Layer,
    ) -> Result<(), Failure> {
        let blob = File::from(blob.ok_or_else(out_of_turn)?);
        let limits = Limits {
            bytes: self.left,
            ..Limits::default()
        };
        let mut progress = Told::default();
        let mut progress = |read| {
            if !progress.tell(read) {
                return Err(LayerError::Cancelled);
            }
            room(&self.target, self.reserve)
        };
        let bytes = layer::apply(
            decompressor,
            blob,
            layer,
            &mut self.writer,
            &limits,
            &mut progress,
        )
        .map_err(|error| failure(&error))?;
        self.left -= bytes;
        Ok(())
    }

    fn finish(self) -> Result<Reply, Failure> {
        room(&self.target, self.reserve).map_err(|error| failure(&error))?;
        let summary = self
            .writer
            .finish()
            .map_err(|error| failure(&LayerError::from(error)))?;
        Ok(Reply::Finished {
            size: summary.size,
            content: summary.content,
            files: summary.files,
        })
    }
}

/// How far the parent knows the work to be.
#[derive(Default)]
struct Told(u64);

impl Told {
    /// Says whether somebody listens.
    fn tell(&mut self, read: u64) -> bool {
        if read - self.0 < STEP {
            return true;
        }
        self.0 = read;
        tell(&Reply::Progress(read))
    }
}

/// Unpacks a bundle, and tells its manifest.
fn read_bundle(bundle: Option<OwnedFd>, target: Option<OwnedFd>, reserve: u64) -> Result<(), Failure> {
    let bundle = File::from(bundle.ok_or_else(out_of_turn)?);
    let target = File::from(target.ok_or_else(out_of_turn)?);
    let mut told = Told::default();
    let mut stopped = None;
    let manifest = bundle::read(bundle, &target, &bundle::Limits::default(), |read| {
        let goes_on = if told.tell(read) {
            room(&target, reserve)
        } else {
            Err(LayerError::Cancelled)
        };
        goes_on.map_err(|error| {
            stopped = Some(error);
            io::ErrorKind::Other.into()
        })
    });
    let json = manifest.and_then(|manifest| manifest.to_json());
    let json = match (stopped, json) {
        (Some(error), _) => return Err(failure(&error)),
        (None, Err(BundleError::Write(error))) => return Err(failure(&WriteError::Write(error).into())),
        (None, Err(error)) => return Err(Failure::new(Kind::Refused, &error)),
        (None, Ok(json)) => json,
    };
    for part in json.chunks(PART) {
        tell(&Reply::Manifest(part.to_owned()));
    }
    Ok(())
}

/// A bomb ends before it has filled the disk, whatever else is written there meanwhile.
fn room(target: &File, reserve: u64) -> Result<(), LayerError> {
    let found = fstatvfs(target).map_err(|error| LayerError::from(WriteError::Write(error.into())))?;
    if found.f_bavail.saturating_mul(found.f_frsize) < reserve {
        return Err(LayerError::NoSpace { quota: false });
    }
    Ok(())
}

fn failure(error: &LayerError) -> Failure {
    let kind = match error {
        LayerError::NoSpace { quota: false } => Kind::NoSpace,
        LayerError::NoSpace { quota: true } => Kind::NoQuota,
        LayerError::Read(_)
        | LayerError::Start(_)
        | LayerError::Cancelled
        | LayerError::Archive(WriteError::Write(_)) => Kind::Failed,
        _ => Kind::Refused,
    };
    Failure::new(kind, error)
}

fn out_of_turn() -> Failure {
    Failure::new(Kind::Failed, &io::Error::other("A request out of turn"))
}
