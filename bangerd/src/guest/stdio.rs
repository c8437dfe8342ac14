//! The caller's standard streams: descriptors of any kind, which are his.
//!
//! A descriptor's O_NONBLOCK belongs to the open file that the caller shares with us, often his
//! terminal, so it is left alone, and regular files cannot be waited for anyway. So each stream
//! has a thread that blocks, and a descriptor that tells it to stop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, read, write};
use tokio::sync::mpsc;

/// What is read at once, in bytes.
const CHUNK: usize = 64 << 10;
/// Chunks that wait between a thread and the connection.
const QUEUE: usize = 4;
/// What a pipe that can be written to takes without blocking (POSIX: at least 512; Linux: a page).
const PIPE_BUF: usize = 4096;

/// Stops the threads of one command's streams when it is dropped.
pub(crate) struct Stop(Arc<OwnedFd>);

impl Stop {
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?)))
    }

    /// Reads a stream in a thread. The receiver ends with the stream, or when it stops.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn reader(&self, fd: OwnedFd) -> io::Result<mpsc::Receiver<Vec<u8>>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let stop = self.0.clone();
        spawn("stdin", move || read_all(&fd, &stop, &sender))?;
        Ok(receiver)
    }

    /// Writes a stream in a thread, which ends when all senders are gone and all is written. The
    /// sender is closed when nobody reads the stream any more.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn writer<B>(&self, name: &'static str, fd: OwnedFd) -> io::Result<Writer<B>>
    where
        B: AsRef<[u8]> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (written, done) = tokio::sync::oneshot::channel();
        let stop = self.0.clone();
        spawn(name, move || {
            write_all(&fd, &stop, receiver);
            // The descriptor first: who waits for the end may look at the file's other end.
            drop(fd);
            let _ = written.send(());
        })?;
        Ok(Writer { sender, done })
    }
}

/// One output stream.
pub(crate) struct Writer<B> {
    pub(crate) sender: mpsc::Sender<B>,
    /// Resolves when everything is written and the descriptor is closed.
    pub(crate) done: tokio::sync::oneshot::Receiver<()>,
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn no_thread(error: io::Error) -> banger_bus::Error {
    banger_bus::Error::new(
        banger_bus::ErrorKind::LimitExceeded,
        format!("Cannot take the command's streams: {error}"),
    )
}

impl Drop for Stop {
    fn drop(&mut self) {
        // Its counter cannot be full, and nobody ever takes it.
        let _ = write(&*self.0, &1u64.to_ne_bytes());
    }
}

fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        // It holds one buffer, on the heap.
        .stack_size(64 << 10)
        .spawn(work)
        .map(drop)
}

fn read_all(fd: &OwnedFd, stop: &OwnedFd, sender: &mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        if !wait(fd, PollFlags::IN, stop) {
            return;
        }
        match read(fd, &mut buffer[..]) {
            Ok(0) => return,
            Ok(length) => {
                if sender.blocking_send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // EIO of a terminal that is gone, EISDIR, EBADF of a descriptor that only writes: no input.
            Err(error) => {
                tracing::debug!(%error, "A command's input ended");
                return;
            }
        }
    }
}

fn write_all<B: AsRef<[u8]>>(fd: &OwnedFd, stop: &OwnedFd, mut receiver: mpsc::Receiver<B>) {
    // A pipe that is ready takes this much at once; more could block past the wish to stop. A
    // regular file and a terminal do not block for long.
    let fifo = rustix::fs::fstat(fd)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo);
    let piece = if fifo { PIPE_BUF } else { CHUNK };
    while let Some(chunk) = receiver.blocking_recv() {
        let mut rest = chunk.as_ref();
        while !rest.is_empty() {
            if !wait(fd, PollFlags::OUT, stop) {
                return;
            }
            match write(fd, &rest[..rest.len().min(piece)]) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => {
                    tracing::debug!(%error, "A command's output ended");
                    return;
                }
            }
        }
    }
}

/// Waits until the stream is ready, or broken. False when it is time to stop.
fn wait(fd: &OwnedFd, flags: PollFlags, stop: &OwnedFd) -> bool {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(fd.as_fd(), flags),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) if !fds[1].revents().is_empty() => return false,
            Ok(_) if !fds[0].revents().is_empty() => return true,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn pipes_files_and_null_are_read_to_their_end() {
        let stop = Stop::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"pipe").unwrap();
        drop(writer);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"file").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        for (fd, text) in [
            (OwnedFd::from(reader), &b"pipe"[..]),
            (file.into(), b"file"),
            (File::open("/dev/null").unwrap().into(), b""),
            (File::open("/").unwrap().into(), b""),
        ] {
            let mut receiver = stop.reader(fd).unwrap();
            let mut all = Vec::new();
            while let Some(chunk) = receiver.recv().await {
                all.extend(chunk);
            }
            assert_eq!(all, text);
        }
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_stopped() {
        let stop = Stop::new().unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let mut receiver = stop.reader(reader.into()).unwrap();
        drop(stop);
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn output_is_whole_and_a_closed_reader_is_noticed() {
        let stop = Stop::new().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let out = stop.writer::<Vec<u8>>("stdout", writer.into()).unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        let mut expected = Vec::new();
        for n in 0..40u8 {
            out.sender.send(vec![n; 20_000]).await.unwrap();
            expected.extend(vec![n; 20_000]);
        }
        drop(out.sender);
        out.done.await.unwrap();
        assert_eq!(reading.await.unwrap(), expected);

        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let out = stop.writer::<Vec<u8>>("stdout", writer.into()).unwrap();
        out.sender.send(b"x".to_vec()).await.unwrap();
        out.sender.closed().await;
    }

    #[tokio::test]
    async fn a_writer_that_waits_is_stopped() {
        let stop = Stop::new().unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        let out = stop.writer::<Vec<u8>>("stdout", writer.into()).unwrap();
        // More than a pipe holds.
        out.sender.send(vec![0; 4 << 20]).await.unwrap();
        drop(stop);
        out.sender.closed().await;
    }
}
