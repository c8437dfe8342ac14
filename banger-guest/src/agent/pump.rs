//! A running session: its input and output moved, its end told to the client.

use std::os::fd::AsFd;
use std::sync::Arc;

use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Error};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::Notify;

use super::backlog::QueueOut;
use super::exit::{Outcome, name_of, outcome};
use super::process::{NotStarted, Started};
use super::terminal::Terminal;

/// SSH_EXTENDED_DATA_STDERR.
pub(super) const STDERR: u32 = 1;
/// One piece of output; clients take packets of half of it as a rule.
const PIECE: usize = 64 << 10;
/// A larger pipe means fewer turns between the process and this one.
const PIPE: usize = 1 << 20;

/// The client's end of a session.
pub(super) struct Client {
    pub(super) write: Arc<ChannelWriteHalf<Msg>>,
    pub(super) handle: Handle,
}

/// Tells the client why there is no process.
pub(super) async fn refuse(client: Client, why: NotStarted) {
    let message = format!("banger: {}\n", why.message);
    let _ = client
        .write
        .extended_data_bytes(STDERR, message.into_bytes())
        .await;
    finish(&client, Outcome::Status(why.status)).await;
}

/// Runs a session to the end of its process and of its output, or until the client has gone.
pub(super) async fn run(mut started: Started, input: QueueOut, client: Client, gone: Arc<Notify>) {
    let group = started.group.clone();
    tokio::select! {
        result = exchange(&mut started, input, &client) => {
            if let Some(outcome) = result {
                finish(&client, outcome).await;
            }
        }
        () = gone.notified() => {
            group.signal(Signal::HUP);
            // The process' end of what it reads and writes closes with ours.
            drop(started.terminal.take());
            drop((started.child.stdin.take(), started.child.stdout.take(), started.child.stderr.take()));
            let _ = started.child.wait().await;
            group.set_reaped();
        }
    }
}

/// Moves data until the process has ended and its output is through.
async fn exchange(started: &mut Started, input: QueueOut, client: &Client) -> Option<Outcome> {
    let child = &mut started.child;
    let group = &started.group;
    // Output that others still hold may come long after.
    let wait = async |child: &mut Child| {
        let status = child.wait().await;
        group.set_reaped();
        status
    };
    let status = if let Some(terminal) = &started.terminal {
        let typed = type_in(terminal, input);
        let shown = async {
            let status = tokio::select! {
                // Everything that had the terminal open has closed it.
                _ = show(terminal, client) => wait(child).await,
                status = wait(child) => status,
            };
            // What the process wrote last may still be there; what others who keep the
            // terminal write later is not waited for.
            loop {
                let rest = terminal.read_rest();
                if rest.is_empty() || client.write.data_bytes(rest).await.is_err() {
                    break;
                }
            }
            status
        };
        until(shown, typed).await
    } else {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let fed = feed(stdin, input);
        let finished = async {
            let out = forward(stdout, client, None);
            let err = forward(stderr, client, Some(STDERR));
            let (_, _, status) = tokio::join!(out, err, wait(child));
            status
        };
        until(finished, fed).await
    };
    status.ok().map(outcome)
}

/// Waits for `main`, with `side` on the way for as long as it lasts.
async fn until<T>(main: impl Future<Output = T>, side: impl Future<Output = ()>) -> T {
    tokio::pin!(main);
    tokio::select! {
        result = &mut main => result,
        () = side => main.await,
    }
}

/// Writes what the client sends to the process, and closes its input when that ends.
async fn feed(stdin: Option<ChildStdin>, mut input: QueueOut) {
    let Some(mut stdin) = stdin else { return };
    enlarge(&stdin);
    while let Some(data) = input.next().await {
        if stdin.write_all(&data).await.is_err() {
            // The process reads no more; dropping the queue drops what else arrives.
            return;
        }
    }
}

/// Sends what the process writes to the client.
async fn forward(
    stream: Option<impl AsyncRead + AsFd + Unpin>,
    client: &Client,
    kind: Option<u32>,
) -> Result<(), Error> {
    let Some(mut stream) = stream else {
        return Ok(());
    };
    enlarge(&stream);
    loop {
        let mut data = Vec::with_capacity(PIECE);
        if stream.read_buf(&mut data).await? == 0 {
            return Ok(());
        }
        match kind {
            Some(kind) => client.write.extended_data_bytes(kind, data).await?,
            None => client.write.data_bytes(data).await?,
        }
    }
}

async fn type_in(terminal: &Terminal, mut input: QueueOut) {
    while let Some(data) = input.next().await {
        if terminal.write_all(&data).await.is_err() {
            return;
        }
    }
    let _ = terminal.end_input().await;
}

async fn show(terminal: &Terminal, client: &Client) -> Result<(), Error> {
    loop {
        let data = terminal.read().await?;
        if data.is_empty() {
            return Ok(());
        }
        client.write.data_bytes(data).await?;
    }
}

/// Tells the client how it ended, and that nothing more comes.
pub(super) async fn finish(client: &Client, outcome: Outcome) {
    let id = client.write.id();
    // A client that has gone wants to know nothing.
    let _ = match outcome {
        Outcome::Status(status) => client.handle.exit_status_request(id, status).await,
        Outcome::Signal { number, core_dumped } => {
            let (name, text) = (name_of(number), String::new());
            client
                .handle
                .exit_signal_request(id, name, core_dumped, text.clone(), text)
                .await
        }
    };
    let _ = client.write.eof().await;
    let _ = client.write.close().await;
}

fn enlarge(pipe: impl AsFd) {
    // A smaller pipe works as well.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
}
