//! Flow control towards the client.
//!
//! The SSH library opens a channel's window again as soon as data has arrived, whether or not
//! a process has taken it, and would rather stop the whole connection than keep data: a
//! process that reads as it writes (`cat`) could then never go on. So what arrives is kept
//! here, and the window is all but closed while too much is kept: the library's hook gives
//! the size to which it opens the window next, which cannot be nothing, and two bytes is the
//! least that still makes it ask again. Between two such questions reading from the client
//! pauses, until there is room or for [`PAUSE`]: what else the client has to say (that *its*
//! window is open again) comes by the same way.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// A channel's window, in bytes: above the product of delay and bandwidth on one machine.
pub(super) const WINDOW: u32 = 4 << 20;
/// The window of a connection that keeps too much.
const TRICKLE: u32 = 2;
/// What a connection may keep before its windows are closed, and below which they open.
/// A channel's window comes on top.
const HIGH: usize = 4 << 20;
const LOW: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(10);

/// What one connection keeps for its processes.
#[derive(Default)]
pub(super) struct Backlog {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    pause: Option<Pin<Box<Sleep>>>,
    reader: Option<Waker>,
}

impl Backlog {
    /// The window to which the library opens a channel next, when it is `current` now.
    pub(super) fn next_window(&self, current: u32) -> u32 {
        let mut kept = self.lock();
        if kept.bytes < HIGH {
            return WINDOW;
        }
        if current == TRICKLE {
            kept.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
        }
        TRICKLE
    }

    /// A queue for what arrives on one channel.
    pub(super) fn queue(self: &Arc<Self>) -> (QueueIn, QueueOut) {
        let queue = Arc::new(Mutex::new(Queue::default()));
        let input = QueueIn {
            queue: Arc::clone(&queue),
            backlog: Arc::clone(self),
        };
        let output = QueueOut {
            queue,
            backlog: Arc::clone(self),
        };
        (input, output)
    }

    fn add(&self, bytes: usize) {
        self.lock().bytes += bytes;
    }

    fn remove(&self, bytes: usize) {
        let mut kept = self.lock();
        kept.bytes = kept.bytes.saturating_sub(bytes);
        if kept.bytes <= LOW && kept.pause.take().is_some() {
            wake(&mut kept.reader);
        }
    }

    fn poll_reading(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut kept = self.lock();
        let Some(pause) = &mut kept.pause else {
            return Poll::Ready(());
        };
        if pause.as_mut().poll(context).is_ready() {
            kept.pause = None;
            return Poll::Ready(());
        }
        kept.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Vec<u8>>,
    /// The client has sent everything, or the process takes no more.
    ended: bool,
    gone: bool,
    waker: Option<Waker>,
}

/// The client's end of a queue.
pub(super) struct QueueIn {
    queue: Arc<Mutex<Queue>>,
    backlog: Arc<Backlog>,
}

impl QueueIn {
    /// Keeps what has arrived, or drops it where nobody takes it any more.
    pub(super) fn push(&self, data: &[u8]) {
        let mut queue = lock(&self.queue);
        if queue.gone || queue.ended || data.is_empty() {
            return;
        }
        self.backlog.add(data.len());
        queue.chunks.push_back(data.to_vec());
        wake(&mut queue.waker);
    }

    /// Whether nobody takes what arrives any more.
    pub(super) fn is_gone(&self) -> bool {
        lock(&self.queue).gone
    }

    /// Nothing more will arrive.
    pub(super) fn end(&self) {
        let mut queue = lock(&self.queue);
        queue.ended = true;
        wake(&mut queue.waker);
    }
}

impl Drop for QueueIn {
    fn drop(&mut self) {
        self.end();
    }
}

/// The process's end of a queue.
pub(super) struct QueueOut {
    queue: Arc<Mutex<Queue>>,
    backlog: Arc<Backlog>,
}

impl QueueOut {
    /// The next piece, or none at the end.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let chunk = poll_fn(|context| {
            let mut queue = lock(&self.queue);
            match queue.chunks.pop_front() {
                Some(chunk) => Poll::Ready(Some(chunk)),
                None if queue.ended => Poll::Ready(None),
                None => {
                    queue.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await?;
        self.backlog.remove(chunk.len());
        Some(chunk)
    }
}

impl Drop for QueueOut {
    fn drop(&mut self) {
        let mut queue = lock(&self.queue);
        queue.gone = true;
        let rest: usize = queue.chunks.drain(..).map(|chunk| chunk.len()).sum();
        drop(queue);
        self.backlog.remove(rest);
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The connection, of which reading pauses while too much is kept.
pub(super) struct PacedStream {
    pub(super) stream: TcpStream,
    pub(super) backlog: Arc<Backlog>,
}

impl AsyncRead for PacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.backlog.poll_reading(context));
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_window_closes_when_too_much_is_kept_and_opens_when_it_is_taken() {
        let backlog = Arc::new(Backlog::default());
        let (input, mut output) = backlog.queue();
        assert_eq!(backlog.next_window(WINDOW), WINDOW);
        let piece = vec![0; HIGH / 4];
        for _ in 0..4 {
            input.push(&piece);
        }
        assert_eq!(backlog.next_window(WINDOW), TRICKLE);
        assert!(backlog.lock().pause.is_none());
        assert_eq!(backlog.next_window(TRICKLE), TRICKLE);
        assert!(backlog.lock().pause.is_some());
        for _ in 0..3 {
            assert_eq!(output.next().await.unwrap().len(), HIGH / 4);
        }
        assert!(backlog.lock().pause.is_none(), "reading goes on at once");
        assert_eq!(backlog.next_window(TRICKLE), WINDOW);
    }

    #[tokio::test]
    async fn a_pause_ends_by_itself() {
        let backlog = Arc::new(Backlog::default());
        let (input, _output) = backlog.queue();
        input.push(&vec![0; HIGH]);
        backlog.next_window(TRICKLE);
        poll_fn(|context| backlog.poll_reading(context)).await;
    }

    #[tokio::test]
    async fn what_nobody_takes_is_not_kept() {
        let backlog = Arc::new(Backlog::default());
        let (input, output) = backlog.queue();
        input.push(b"one");
        drop(output);
        input.push(b"two");
        assert_eq!(backlog.lock().bytes, 0);
    }

    #[tokio::test]
    async fn the_end_comes_after_everything() {
        let backlog = Arc::new(Backlog::default());
        let (input, mut output) = backlog.queue();
        input.push(b"one");
        input.end();
        input.push(b"late");
        assert_eq!(output.next().await.as_deref(), Some(&b"one"[..]));
        assert_eq!(output.next().await, None);
    }
}
