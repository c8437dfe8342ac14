//! The end of a console in the system's journal, kept in a file for the time after the run.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use banger_bus::Error;
use banger_bus::helper::LogReadOptions;
use banger_model::SlotHandle;
use banger_model::limits::MAX_CONSOLE_BYTES;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::blocking;
use crate::core::error;
use crate::helper::Helper;

/// How many lines are kept; a longer console is in the journal still.
const LINES: u32 = 10_000;
/// How long reading may take: nobody waits longer for the end of a VM.
const LIMIT: Duration = Duration::from_secs(5);
/// What is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// Writes the newest lines of a slot's last run to `file`, or why they are not there.
///
/// # Errors
/// When the file cannot be written.
pub(super) async fn keep(helper: &Helper, handle: SlotHandle, file: &Path) -> Result<(), Error> {
    let text = match tokio::time::timeout(LIMIT, read(helper, handle)).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => not_kept(&error),
        Err(_) => not_kept(&"reading it took too long"),
    };
    let file = file.to_owned();
    blocking(move || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut file| file.write_all(&text))
            .map_err(|e| error::io("write", &file, &e))
    })
    .await
}

fn not_kept(why: &dyn std::fmt::Display) -> Vec<u8> {
    tracing::warn!(%why, "A console is not kept");
    format!("(The console is in the system's journal, where an administrator reads it: {why}.)\n")
        .into_bytes()
}

async fn read(helper: &Helper, handle: SlotHandle) -> Result<Vec<u8>, Error> {
    let broken = |e: io::Error| error::failed("Cannot read the console", &e);
    let (reader, writer) = io::pipe().map_err(broken)?;
    let options = LogReadOptions {
        lines: Some(LINES),
        follow: Some(false),
    };
    helper.open_log(handle, options, writer.into()).await?;
    let mut reader = Receiver::from_owned_fd(reader.into()).map_err(broken)?;
    let bound = usize::try_from(MAX_CONSOLE_BYTES).unwrap_or(usize::MAX);
    let mut text = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let length = reader.read(&mut piece).await.map_err(broken)?;
        if length == 0 {
            break;
        }
        text.extend_from_slice(&piece[..length]);
        if text.len() > 2 * bound {
            text.drain(..text.len() - bound);
        }
    }
    text.drain(..text.len().saturating_sub(bound));
    Ok(text)
}
