//! How an operation tells its job where it is, and how the job stops it.

use std::sync::Arc;

use banger_bus::{Error, ErrorKind};
use banger_image::Part;
use banger_model::VmId;
use tokio::sync::watch;

/// Where an operation says how far it is. Called from several threads: cheap, never blocking.
pub(crate) trait Report: Send + Sync + 'static {
    /// A new stage begins; the fraction is unknown again.
    fn stage(&self, stage: &str);
    /// How much of the stage is done, 0 to 1.
    fn fraction(&self, done: f64);
    /// A detail or a warning for people.
    fn message(&self, text: &str);
    /// Where one of several things is that go on at once.
    fn part(&self, _: &Part<'_>) {}
    /// Which VM the operation is about, once that is known.
    fn about(&self, _: VmId) {}
}

/// Reports nothing: for what the daemon does by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silent;

impl Report for Silent {
    fn stage(&self, _: &str) {}
    fn fraction(&self, _: f64) {}
    fn message(&self, _: &str) {}
}

/// A wish to stop. Clones stop the same operation; it cannot be taken back.
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    wanted: Arc<watch::Sender<bool>>,
    /// The same wish for blocking work, whose children it ends.
    blocking: banger_image::Cancel,
}

/// Every operation's companion: its job's ear and its job's brake.
#[derive(Clone)]
pub(crate) struct JobContext {
    report: Arc<dyn Report>,
    cancel: Cancel,
}

impl Cancel {
    pub(crate) fn new() -> Self {
        Self {
            wanted: Arc::new(watch::channel(false).0),
            blocking: banger_image::Cancel::new(),
        }
    }

    /// Safe at any time and more than once.
    pub(crate) fn cancel(&self) {
        self.wanted.send_replace(true);
        self.blocking.cancel();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        *self.wanted.borrow()
    }

    /// Resolves when the operation is to stop, at once when it already is.
    pub(crate) async fn cancelled(&self) {
        // The sender lives as long as self, so this ends by the wish only.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// For calls into `banger_image`.
    pub(crate) fn blocking(&self) -> &banger_image::Cancel {
        &self.blocking
    }
}

impl JobContext {
    pub(crate) fn new(report: Arc<dyn Report>, cancel: Cancel) -> Self {
        Self { report, cancel }
    }

    /// For work that nobody follows.
    pub(crate) fn silent_until(cancel: Cancel) -> Self {
        Self::new(Arc::new(Silent), cancel)
    }

    /// For work that nobody follows and nobody cancels.
    pub(crate) fn silent() -> Self {
        Self::new(Arc::new(Silent), Cancel::new())
    }

    pub(crate) fn stage(&self, stage: &str) {
        self.report.stage(stage);
    }

    pub(crate) fn message(&self, text: &str) {
        self.report.message(text);
    }

    pub(crate) fn about(&self, vm: VmId) {
        self.report.about(vm);
    }

    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    pub(crate) async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// # Errors
    /// `Cancelled` once the job was cancelled.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            Err(cancelled())
        } else {
            Ok(())
        }
    }
}

/// The error of an operation that was stopped by its caller.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "Cancelled")
}

impl banger_image::Progress for JobContext {
    fn stage(&self, stage: &str) {
        self.report.stage(stage);
    }

    fn fraction(&self, done: f64) {
        self.report.fraction(done);
    }

    fn message(&self, text: &str) {
        self.report.message(text);
    }

    fn part(&self, part: &Part<'_>) {
        self.report.part(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wish_reaches_those_who_wait_and_those_who_come_later() {
        let cancel = Cancel::new();
        let ctx = JobContext::new(Arc::new(Silent), cancel.clone());
        assert_eq!(ctx.check(), Ok(()));
        let waiting = tokio::spawn({
            let ctx = ctx.clone();
            async move { ctx.cancelled().await }
        });
        cancel.cancel();
        waiting.await.unwrap();
        ctx.cancelled().await;
        assert_eq!(ctx.check().unwrap_err().kind, ErrorKind::Cancelled);
        assert!(cancel.blocking().is_cancelled());
    }
}
