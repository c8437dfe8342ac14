//! The client of the guest's file service, see [`banger_model::agent`]. Files are read and
//! written in threads of their own, which block; channels lead to the connection.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use banger_bus::{Error, ErrorKind, Result};
use banger_files::{Packed, Packer, Root, Rules, Unpacked, unpack};
use banger_model::agent::{
    Failure, FailureKind, MAX_ANSWER, MAX_FAILURE, MAX_LIST, MAX_REQUEST, PutAnswer, Request, SUBSYSTEM, Stat,
};
use banger_model::size::Size;
use bytes::{Buf, Bytes};
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::agent::{Agent, Lease};
use super::error::Error as Broken;
use crate::core::progress::{JobContext, cancelled};

/// How long a small answer may take: a guest under emulation starts a process for it.
const LIMIT: Duration = Duration::from_secs(30);
/// Pieces that wait between a thread and the connection.
const QUEUE: usize = 8;
/// The extended data stream of standard error (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// What to write into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    /// A directory of the guest.
    pub(crate) root: String,
    /// Make it where it is not there.
    pub(crate) make_root: bool,
    /// Replace what is there even where it is of another type.
    pub(crate) replace: bool,
    /// User and group of everything; else those of the stream.
    pub(crate) owner: Option<(u32, u32)>,
    /// Paths below the root that are removed first.
    pub(crate) remove: Vec<PathBuf>,
}

/// Asks for something that is answered by one document, which is the guest's word.
///
/// # Errors
/// When the agent does not answer, or refuses.
pub(crate) async fn ask<T: DeserializeOwned>(agent: &Arc<Agent>, request: &Request) -> Result<T> {
    let answer = small(agent, request, &[]).await?;
    serde_json::from_slice(&answer).map_err(|_| bad_guest())
}

/// What is at paths below a directory of the guest, in their order.
///
/// # Errors
/// When the agent does not answer, or refuses, or there are too many paths.
pub(crate) async fn stat(agent: &Arc<Agent>, root: &str, paths: &[PathBuf]) -> Result<Vec<Option<Stat>>> {
    let mut found = Vec::with_capacity(paths.len());
    // An answer is bounded, so long lists are several questions.
    for paths in paths.chunks(MAX_ANSWER / 256) {
        let list = list(paths)?;
        let request = Request::Stat {
            root: root.to_owned(),
            list: list.len() as u64,
        };
        let answer = small(agent, &request, &list).await?;
        let before = found.len();
        for line in answer.split_inclusive(|byte| *byte == b'\n') {
            found.push(serde_json::from_slice(line).map_err(|_| bad_guest())?);
        }
        if found.len() - before != paths.len() {
            return Err(bad_guest());
        }
    }
    Ok(found)
}

/// Writes files into the guest. `pack` runs in a thread and gives them to the packer, which is
/// finished after it.
///
/// # Errors
/// When a file of the host cannot be read, or the guest cannot write one, or the job is cancelled.
pub(crate) async fn put<P>(
    agent: &Arc<Agent>,
    put: Put,
    ctx: &JobContext,
    pack: P,
) -> Result<(PutAnswer, Packed)>
where
    P: FnOnce(&mut Packer<Pipe>) -> std::result::Result<(), banger_files::Error> + Send + 'static,
{
    let list = list(&put.remove)?;
    let request = Request::Put {
        root: put.root,
        make_root: put.make_root,
        replace: put.replace,
        owner: put.owner,
        remove: list.len() as u64,
    };
    let session = Session::open(agent, ctx).await?;
    let (sender, pieces) = mpsc::channel(QUEUE);
    let watch = watch(ctx);
    let packing = spawn_blocking(move || {
        let mut packer = Packer::new(Pipe(sender), watch);
        pack(&mut packer)?;
        packer.finish().map(|(_, packed)| packed)
    });
    let write = &session.write;
    let sending = async {
        write.data_bytes(line(&request)?).await.map_err(Broken::from)?;
        if !list.is_empty() {
            write.data_bytes(list).await.map_err(Broken::from)?;
        }
        let packed = send(write, pieces, packing).await?;
        write.eof().await.map_err(Broken::from)?;
        Ok::<_, Error>(packed)
    };
    let mut answer = Vec::new();
    let answering = answer_of(session.read, Sink::Memory(&mut answer));
    let done = async {
        let (mut packed, mut ended) = (None, None);
        tokio::pin!(sending, answering);
        while packed.is_none() || ended.is_none() {
            tokio::select! {
                result = &mut sending, if packed.is_none() => match result {
                    Ok(result) => packed = Some(result),
                    Err(error) => {
                        // A guest that takes no more says why.
                        if error.kind == ErrorKind::GuestUnreachable && ended.is_none() {
                            answering.await?;
                        }
                        return Err(error);
                    }
                },
                result = &mut answering, if ended.is_none() => {
                    result?;
                    ended = Some(());
                }
            }
        }
        packed.ok_or_else(bad_guest)
    };
    let result = guarded(agent, ctx, done).await;
    // Whatever the guest still does, nobody waits for it.
    let _ = session.write.close().await;
    let packed = result?;
    let answer = serde_json::from_slice(&answer).map_err(|_| bad_guest())?;
    Ok((answer, packed))
}

/// Fetches what a [`Request::Get`] asks for and writes it below `root`.
///
/// # Errors
/// When the guest refuses, or sends what `rules` do not allow, or a file cannot be written, or the
/// job is cancelled.
pub(crate) async fn get(
    agent: &Arc<Agent>,
    request: &Request,
    root: Root,
    rules: Rules,
    ctx: &JobContext,
) -> Result<Unpacked> {
    let session = Session::open(agent, ctx).await?;
    let (sender, pieces) = mpsc::channel(QUEUE);
    let mut watch = watch(ctx);
    let unpacking = spawn_blocking(move || {
        let source = Source {
            pieces,
            piece: Bytes::new(),
        };
        unpack(source, &root, &rules, &mut watch)
    });
    let done = async {
        session
            .write
            .data_bytes(line(request)?)
            .await
            .map_err(Broken::from)?;
        session.write.eof().await.map_err(Broken::from)?;
        answer_of(session.read, Sink::Thread(&sender)).await
    };
    let taken = guarded(agent, ctx, done).await;
    let refused = sender.is_closed();
    drop(sender);
    let _ = session.write.close().await;
    let unpacked = unpacking.await.map_err(|_| stopped())?;
    ctx.check()?;
    match (taken, unpacked) {
        (Ok(()), unpacked) => unpacked.map_err(unpack_error),
        (Err(_), Err(error)) if refused => Err(unpack_error(error)),
        // What the guest says of its own failure is the cause of a stream that is cut.
        (Err(error), Err(banger_files::Error::Broken(_) | banger_files::Error::Stream(_)) | Ok(_)) => {
            Err(error)
        }
        (Err(_), Err(error)) => Err(unpack_error(error)),
    }
}

/// One session of the service.
struct Session {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    _lease: Lease,
}

impl Session {
    async fn open(agent: &Arc<Agent>, ctx: &JobContext) -> Result<Self> {
        guarded(agent, ctx, Self::request(agent)).await
    }

    async fn request(agent: &Arc<Agent>) -> Result<Self> {
        let (lease, channel) = agent.channel().await?;
        let (read, write) = channel.split();
        write
            .request_subsystem(true, SUBSYSTEM)
            .await
            .map_err(Broken::from)?;
        Ok(Self {
            read,
            write,
            _lease: lease,
        })
    }
}

/// Ends work that the guest's end or the job's brake makes vain.
async fn guarded<T>(
    agent: &Arc<Agent>,
    ctx: &JobContext,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        result = work => result,
        why = agent.hung_up() => Err(Broken::Gone(why).into()),
        () = ctx.cancelled() => Err(cancelled()),
    }
}

/// A request with little data, and its answer.
async fn small(agent: &Arc<Agent>, request: &Request, data: &[u8]) -> Result<Vec<u8>> {
    let ctx = JobContext::silent();
    let exchange = async {
        let session = Session::request(agent).await?;
        let write = &session.write;
        let sending = async {
            write.data_bytes(line(request)?).await.map_err(Broken::from)?;
            if !data.is_empty() {
                write.data_bytes(data.to_vec()).await.map_err(Broken::from)?;
            }
            write.eof().await.map_err(Broken::from)?;
            Ok::<_, Error>(())
        };
        let mut answer = Vec::new();
        let answering = answer_of(session.read, Sink::Memory(&mut answer));
        let result = tokio::try_join!(sending, answering);
        let _ = session.write.close().await;
        result.map(|_| answer)
    };
    let limited = async {
        let late = || Error::new(ErrorKind::GuestUnreachable, "The guest's agent does not answer");
        timeout(LIMIT, exchange).await.map_err(|_| late())?
    };
    guarded(agent, &ctx, limited).await
}

/// Sends what the thread makes. What stopped the thread is the cause.
async fn send(
    write: &ChannelWriteHalf<Msg>,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    packing: JoinHandle<std::result::Result<Packed, banger_files::Error>>,
) -> Result<Packed> {
    while let Some(piece) = pieces.recv().await {
        write.data_bytes(piece).await.map_err(Broken::from)?;
    }
    packing.await.map_err(|_| stopped())?.map_err(pack_error)
}

/// Where an answer goes.
enum Sink<'a> {
    Memory(&'a mut Vec<u8>),
    Thread(&'a mpsc::Sender<Bytes>),
}

impl Sink<'_> {
    async fn take(&mut self, data: Bytes) -> Result<()> {
        match self {
            Self::Memory(answer) if answer.len() + data.len() > MAX_ANSWER => Err(bad_guest()),
            Self::Memory(answer) => {
                answer.extend_from_slice(&data);
                Ok(())
            }
            // A thread that takes no more has an error of its own to tell.
            Self::Thread(sender) => sender.send(data).await.map_err(|_| stopped()),
        }
    }
}

/// Takes what the guest sends until the session's end, which must be a good one.
async fn answer_of(mut read: ChannelReadHalf, mut sink: Sink<'_>) -> Result<()> {
    let mut failure = Vec::new();
    let mut status = None;
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => sink.take(data).await?,
            ChannelMsg::ExtendedData { data, ext: STDERR } => {
                let room = MAX_FAILURE - failure.len();
                failure.extend_from_slice(&data[..data.len().min(room)]);
            }
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Failure => return Err(old_agent()),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    match status {
        Some(0) => Ok(()),
        Some(_) => Err(failed(&failure)),
        None => Err(Broken::Lost.into()),
    }
}

/// Where a packer writes to.
pub(crate) struct Pipe(mpsc::Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(bytes.to_vec())
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the connection brings.
struct Source {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Tells the job how much is done, and stops when it is cancelled.
fn watch(ctx: &JobContext) -> impl FnMut(u64) -> io::Result<()> + Send + 'static {
    let ctx = ctx.clone();
    let mut told = 0;
    move |bytes| {
        if ctx.cancel().is_cancelled() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // A piece in five hundred is what a person can see.
        if bytes >= told + (1 << 20) {
            told = bytes;
            ctx.message(&format!("{} copied", Size::from_bytes(bytes & !0xf_ffff)));
        }
        Ok(())
    }
}

fn line(request: &Request) -> Result<Vec<u8>> {
    let mut line =
        serde_json::to_vec(request).map_err(|error| Error::new(ErrorKind::Failed, error.to_string()))?;
    line.push(b'\n');
    if line.len() > MAX_REQUEST {
        return Err(Error::new(ErrorKind::InvalidArgument, "The path is too long"));
    }
    Ok(line)
}

fn list(paths: &[PathBuf]) -> Result<Vec<u8>> {
    let mut list = Vec::new();
    for path in paths {
        list.extend_from_slice(path.as_os_str().as_bytes());
        list.push(0);
    }
    if list.len() as u64 > MAX_LIST {
        return Err(Error::new(ErrorKind::LimitExceeded, "Too many paths"));
    }
    Ok(list)
}

/// What the guest says of its failure, for people: it may lie, and has a bound.
fn failed(line: &[u8]) -> Error {
    let Ok(failure) = serde_json::from_slice::<Failure>(line.trim_ascii_end()) else {
        return Error::new(
            ErrorKind::Failed,
            "The guest's file service failed and does not say why",
        );
    };
    let text: String = failure
        .message
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(1000)
        .collect();
    match failure.kind {
        FailureKind::NoSpace => Error::new(ErrorKind::NoSpace, format!("The guest's disk is full: {text}"))
            .hint("Make room in the guest, or give it a larger disk."),
        FailureKind::NotFound | FailureKind::Conflict => {
            Error::new(ErrorKind::InvalidArgument, format!("In the guest: {text}"))
        }
        FailureKind::BadRequest | FailureKind::ReadOnly | FailureKind::Failed => {
            Error::new(ErrorKind::Failed, format!("In the guest: {text}"))
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn pack_error(error: banger_files::Error) -> Error {
    files_error(&error, ErrorKind::Failed)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unpack_error(error: banger_files::Error) -> Error {
    files_error(&error, ErrorKind::BadGuest)
}

fn files_error(error: &banger_files::Error, bad: ErrorKind) -> Error {
    use banger_files::Kind;
    let kind = match error.kind() {
        Kind::BadStream => bad,
        Kind::NotFound | Kind::Conflict => ErrorKind::InvalidArgument,
        Kind::NoSpace => ErrorKind::NoSpace,
        Kind::Stream => ErrorKind::GuestUnreachable,
        Kind::ReadOnly | Kind::Failed => ErrorKind::Failed,
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    Error::new(kind, format!("{error}{}", cause.unwrap_or_default()))
}

fn bad_guest() -> Error {
    Error::new(
        ErrorKind::BadGuest,
        "The guest's file service gave no usable answer",
    )
}

fn stopped() -> Error {
    Error::new(ErrorKind::Failed, "The copying stopped")
}

fn old_agent() -> Error {
    Error::new(ErrorKind::WrongState, "The guest's agent has no file service")
        .hint("It is of an older version: restart the VM.")
}
