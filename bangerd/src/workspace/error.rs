//! Errors of `banger-workspace` on the bus, and its blocking work beside the runtime.

use std::error::Error as _;

use banger_bus::{Error, ErrorKind, Result};
use banger_workspace::{Cancel, ErrorKind as Kind};
use tokio::task::spawn_blocking;

use crate::core::progress::JobContext;

/// Does blocking work that ends when the job is cancelled.
pub(super) async fn blocking<T: Send + 'static>(
    ctx: &JobContext,
    work: impl FnOnce(&Cancel) -> banger_workspace::Result<T> + Send + 'static,
) -> Result<T> {
    let cancel = ctx.cancel().blocking().clone();
    let done = spawn_blocking(move || work(&cancel)).await;
    let stopped = |_| Error::new(ErrorKind::Failed, "Work on the workspace ended unexpectedly");
    done.map_err(stopped)?.map_err(on_bus)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn on_bus(error: banger_workspace::Error) -> Error {
    let kind = match error.kind() {
        Kind::BadRepository => ErrorKind::BadRepository,
        Kind::MissingTool => ErrorKind::MissingTool,
        Kind::InvalidArgument => ErrorKind::InvalidArgument,
        Kind::Cancelled => ErrorKind::Cancelled,
        Kind::Timeout => ErrorKind::Timeout,
        Kind::NoSpace => ErrorKind::NoSpace,
        Kind::WouldOverwrite => ErrorKind::WouldOverwrite,
        Kind::BadGuest => ErrorKind::BadGuest,
        Kind::Failed => ErrorKind::Failed,
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // The second line of an error of the bus is its hint.
    let text = Error::new(kind, text.replace('\n', " "));
    match error.hint() {
        Some(hint) => text.hint(hint),
        None => text,
    }
}
