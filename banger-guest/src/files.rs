//! The file service (see [`banger_model::agent`]): a process of its own, root's, that takes one
//! request on its standard input and answers on its standard output.

mod answer;
mod get;
mod list;
mod put;
mod tell;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use banger_model::agent::{Failure, FailureKind, MAX_REQUEST, Request};
use rustix::pipe::fcntl_setpipe_size;
use serde::Serialize;

use answer::Refusal;

/// What is read at once, and what a pipe holds, in bytes: each switch between the agent and this
/// process costs, under emulation above all.
const BUFFER: usize = 256 << 10;

/// Answers one request.
pub(crate) fn serve() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let failure = refusal.failure();
            let line = serde_json::to_string(&failure).unwrap_or_default();
            // Nobody may listen any more.
            let _ = writeln!(io::stderr(), "{line}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Refusal> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    for pipe in [&input, &output] {
        // Where it is no pipe, or the limit is lower, it stays as it is.
        let _ = fcntl_setpipe_size(pipe, BUFFER);
    }
    answer_to(BufReader::with_capacity(BUFFER, input), output)
}

/// Takes the request and answers it.
fn answer_to(mut input: impl BufRead, output: impl Write) -> Result<(), Refusal> {
    match request(&mut input)? {
        Request::Put {
            root,
            make_root,
            replace,
            owner,
            remove,
        } => {
            let put = put::Put {
                root,
                make_root,
                replace,
                owner,
                remove,
            };
            tell(output, &put::put(&put, input)?)
        }
        Request::Get { path, follow, name } => get::get(&path, follow, &name, output),
        Request::Stat { root, list } => list::stat(&root, list, input, output),
        Request::Look { path, follow } => tell(output, &tell::look(&path, follow)?),
        Request::Which { program } => tell(output, &tell::which(&program)),
    }
}

/// One line of bounded length.
fn request(input: &mut impl BufRead) -> Result<Request, Refusal> {
    let mut line = Vec::new();
    input.take(MAX_REQUEST as u64).read_until(b'\n', &mut line)?;
    let line = line
        .strip_suffix(b"\n")
        .ok_or_else(|| bad("The request has no end"))?;
    serde_json::from_slice(line).map_err(|_| bad("The request is not understood"))
}

fn bad(message: &str) -> Refusal {
    Refusal::Told(Failure {
        kind: FailureKind::BadRequest,
        path: String::new(),
        message: message.to_owned(),
    })
}

/// Sends an answer that is one line of JSON.
fn tell(mut output: impl Write, answer: &impl Serialize) -> Result<(), Refusal> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::from)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()?;
    Ok(())
}

#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;
