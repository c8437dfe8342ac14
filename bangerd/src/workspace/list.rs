//! What would go into a guest.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use banger_bus::{JobOutcome, Result};
use banger_workspace::Plan;

use super::Request;
use super::error::blocking;
use crate::core::progress::{JobContext, cancelled};
use crate::guest::stdio::{self, Stop};

/// Paths in one piece of output.
const PIECE: usize = 1000;

/// Writes the paths to `output`, each ended by a NUL. Who does not read holds up his job alone.
pub(crate) async fn list(request: Request, output: OwnedFd, ctx: &JobContext) -> Result<JobOutcome> {
    let plan = blocking(ctx, move |cancel| {
        let plan = Plan::new(&PathBuf::from(request.path), &request.options, cancel)?;
        let paths: Vec<_> = plan
            .list()
            .map(|path| path.as_os_str().as_bytes().to_vec())
            .collect();
        Ok((paths, plan.notes))
    });
    let (paths, notes) = plan.await?;
    let stop = Stop::new().map_err(stdio::no_thread)?;
    let writer = stop.writer("list", output).map_err(stdio::no_thread)?;
    let writing = async {
        for paths in paths.chunks(PIECE) {
            let mut piece = paths.join(&0);
            piece.push(0);
            if writer.sender.send(piece).await.is_err() {
                // Nobody reads the rest.
                return;
            }
        }
        drop(writer.sender);
        let _ = writer.done.await;
    };
    tokio::select! {
        () = writing => {}
        () = ctx.cancelled() => return Err(cancelled()),
    }
    Ok(JobOutcome {
        names: notes,
        ..JobOutcome::done()
    })
}
