//! Doing what a plan says, step by step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_bus::{Error, ErrorKind};
use banger_model::StopReason;
use futures_util::future::join_all;

use super::capability::{Kind, Parts, Site};
use super::plan::{Desired, Step, plan};
use super::progress::JobContext;
use super::vm::Vm;
use crate::fail_point;

/// How a VMM is ended.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// The guest is asked, and has this long.
    Asked(Duration),
    /// At once, for this reason.
    Killed(StopReason, String),
}

/// The way of one VM to one state.
pub(super) struct Run<'a> {
    pub(super) vm: &'a Arc<Vm>,
    pub(super) ctx: &'a JobContext,
    /// For a guest to become ready; by default as long as its accelerator needs.
    pub(super) boot_limit: Option<Duration>,
    pub(super) ending: Ending,
    pub(super) parts: Parts,
}

impl<'a> Run<'a> {
    pub(super) fn new(vm: &'a Arc<Vm>, ctx: &'a JobContext) -> Self {
        Self {
            vm,
            ctx,
            boot_limit: None,
            ending: Ending::Killed(StopReason::Killed, String::new()),
            parts: Parts::default(),
        }
    }

    /// Goes to a state from where the VM is.
    ///
    /// # Errors
    /// The first of a step that builds. Steps that tear down go on, and their errors are one.
    pub(super) async fn reach(&self, desired: Desired) -> Result<(), Error> {
        let steps = plan(desired, &self.vm.observe(false)).map_err(|lost| {
            Error::new(
                ErrorKind::Failed,
                format!("VM {} is damaged: {lost}", self.vm.name()),
            )
            .hint(format!("Delete it: `banger vm delete {}`.", self.vm.name()))
        })?;
        let mut failures = Vec::new();
        for step in steps {
            let began = Instant::now();
            let done = self.step(step, failures.is_empty()).await;
            tracing::debug!(vm = %self.vm.name(), ?step, elapsed_us = began.elapsed().as_micros(), ok = done.is_ok(), "Step");
            match (done, step) {
                (Ok(()), _) => {}
                (Err(e), Step::CleanUp(_) | Step::Unmake(_) | Step::RemoveRow) => failures.push(e),
                (Err(e), _) => return Err(e),
            }
        }
        together(failures)
    }

    async fn step(&self, step: Step, clean: bool) -> Result<(), Error> {
        match step {
            // The row is added where the VM gets its identity.
            Step::AddRow | Step::Adopt => Ok(()),
            Step::Make(kinds) => self.make(kinds).await,
            Step::Prepare(kinds) => self.prepare(kinds).await,
            Step::Launch => self.launch().await,
            Step::AwaitReady => self.await_ready().await,
            Step::EndVmm => self.end_vmm().await,
            Step::NoteGone => {
                self.vm.note_gone().await;
                Ok(())
            }
            Step::CleanUp(kinds) => self.clean_up(kinds).await,
            Step::Unmake(kinds) => self.unmake(kinds).await,
            // As long as something is left, something must know of it.
            Step::RemoveRow if !clean => Ok(()),
            Step::RemoveRow => self.forget().await,
        }
    }

    async fn make(&self, kinds: &[Kind]) -> Result<(), Error> {
        self.ctx.check()?;
        let record = self.vm.record();
        let site = self.site(&record);
        let parts = kinds.iter().map(async |kind| {
            kind.capability().make(&site, &self.parts).await?;
            pass("create", *kind).await
        });
        first_error(join_all(parts).await)
    }

    async fn prepare(&self, kinds: &[Kind]) -> Result<(), Error> {
        self.ctx.check()?;
        let record = self.vm.record();
        let site = self.site(&record);
        let parts = kinds.iter().map(async |kind| {
            let began = Instant::now();
            kind.capability().prepare(&site, &self.parts).await?;
            tracing::debug!(
                kind = kind.name(),
                elapsed_us = began.elapsed().as_micros(),
                "Prepared"
            );
            pass("start", *kind).await
        });
        first_error(join_all(parts).await)
    }

    pub(super) async fn clean_up(&self, kinds: &[Kind]) -> Result<(), Error> {
        let parts = kinds.iter().map(async |kind| {
            kind.capability().cleanup(self.vm.core(), self.vm.id()).await?;
            pass("stop", *kind).await
        });
        all_errors(join_all(parts).await)
    }

    async fn unmake(&self, kinds: &[Kind]) -> Result<(), Error> {
        let parts = kinds.iter().map(async |kind| {
            let capability = kind.capability();
            capability
                .unmake(self.vm.core(), self.vm.id(), &self.parts)
                .await?;
            pass("delete", *kind).await
        });
        all_errors(join_all(parts).await)
    }

    pub(super) fn site<'b>(&'b self, record: &'b banger_store::VmRecord) -> Site<'b> {
        Site {
            core: self.vm.core(),
            vm: record,
            ctx: self.ctx,
        }
    }
}

async fn pass(operation: &str, kind: Kind) -> Result<(), Error> {
    match fail_point::of(operation, kind) {
        Some(point) => fail_point::hit(point).await,
        None => Ok(()),
    }
}

fn first_error(results: Vec<Result<(), Error>>) -> Result<(), Error> {
    results.into_iter().collect()
}

fn all_errors(results: Vec<Result<(), Error>>) -> Result<(), Error> {
    together(results.into_iter().filter_map(Result::err).collect())
}

/// Several failures as one, of the first one's kind.
fn together(mut failures: Vec<Error>) -> Result<(), Error> {
    if failures.is_empty() {
        return Ok(());
    }
    let mut first = failures.remove(0);
    for other in failures {
        first.message.push_str("; ");
        first.message.push_str(&other.message);
    }
    Err(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_together() {
        let error = |kind, text: &str| Error::new(kind, text);
        assert_eq!(together(vec![]), Ok(()));
        assert_eq!(
            together(vec![
                error(ErrorKind::NoSpace, "a"),
                error(ErrorKind::Failed, "b")
            ]),
            Err(error(ErrorKind::NoSpace, "a; b"))
        );
    }
}
