//! Starting a VM.

use std::sync::Arc;
use std::time::Duration;

use banger_bus::{Error, ErrorKind};
use banger_model::{StopReason, VmState};
use banger_store::VmRecord;

use super::capability::Kind;
use super::machine::Phase;
use super::plan::Desired;
use super::progress::{JobContext, cancelled};
use super::steps::{Ending, Run};
use super::vm::Vm;
use crate::fail_point::fail_point;

/// How long a guest may take under KVM until it is ready.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// And where it is emulated.
const EMULATED_BOOT_LIMIT: Duration = Duration::from_secs(600);

impl Vm {
    /// Starts the VM and waits until its guest is ready. One whose guest does not come up is
    /// stopped again, with the reason in its state. Cancelled, it is stopped again too.
    ///
    /// # Errors
    /// `WrongState`, `Busy`, `EngineUnavailable`, `EngineFailed`, `BootFailed` and others.
    pub(crate) async fn start(
        self: &Arc<Self>,
        ctx: &JobContext,
        boot_limit: Option<Duration>,
    ) -> Result<(), Error> {
        let _turn = ctx.take(self, "start", false).await?;
        self.start_in_turn(ctx, boot_limit).await
    }

    pub(super) async fn start_in_turn(
        self: &Arc<Self>,
        ctx: &JobContext,
        boot_limit: Option<Duration>,
    ) -> Result<(), Error> {
        let state = self.state();
        if state != VmState::Stopped {
            return Err(self.wrong_state(&format!("is {state}"), "Only a stopped VM can be started."));
        }
        let run = Run {
            boot_limit,
            ..Run::new(self, ctx)
        };
        run.boot().await
    }

    /// Notes why the last start did not come to a VMM.
    async fn note_failed_start(self: &Arc<Self>, before: &VmRecord, e: &Error) {
        if self.machine().is_some() {
            // It could not be ended: it runs, and is watched.
            return;
        }
        self.change(|record| {
            if record.state == VmState::Starting {
                record.state = VmState::Stopped;
                record.vmm = None;
                record.unit.clear();
                record.started_us = before.started_us;
                record.stop_reason = before.stop_reason;
                if e.kind != ErrorKind::Cancelled {
                    record.stop_reason = Some(StopReason::VmmFailed);
                    record.state_detail.clone_from(&e.message);
                }
            }
        })
        .noted()
        .await;
    }
}

impl Run<'_> {
    /// From a stopped VM to a guest that is up; back to a stopped VM where that fails.
    pub(super) async fn boot(&self) -> Result<(), Error> {
        self.vm.core().warm_up(self.vm.spec().engine);
        fail_point!("start.begin");
        let before = self.vm.record();
        self.vm
            .change(|record| {
                record.state = VmState::Starting;
                record.state_detail.clear();
            })
            .done()
            .await?;
        let Err(e) = self.boot_from(&before).await else {
            return Ok(());
        };
        // What is left of the try goes, whoever wants to stop us.
        let silent = JobContext::silent();
        let back = Run {
            ending: match e.kind {
                ErrorKind::Cancelled => {
                    Ending::Killed(StopReason::Killed, "Its start was cancelled".to_owned())
                }
                _ => Ending::Killed(StopReason::VmmFailed, e.message.clone()),
            },
            ..Run::new(self.vm, &silent)
        };
        if let Err(undone) = back.reach(Desired::Stopped).await {
            tracing::warn!(vm = %self.vm.name(), error = %undone, "A failed start was not undone as a whole");
        }
        self.vm.note_failed_start(&before, &e).await;
        Err(e)
    }

    async fn boot_from(&self, record: &VmRecord) -> Result<(), Error> {
        fail_point!("start.state");
        for kind in Kind::PREPARE.iter().copied().flatten() {
            kind.capability().plan(&self.site(record))?;
        }
        self.ctx.stage("Starting the VMM");
        self.reach(Desired::Running).await
    }

    /// Waits for the guest.
    pub(super) async fn await_ready(&self) -> Result<(), Error> {
        self.ctx.stage("Waiting for the guest");
        let machine = self.vm.live()?;
        let emulated = self.vm.record().accelerator == "tcg";
        let limit = self
            .boot_limit
            .unwrap_or(if emulated { EMULATED_BOOT_LIMIT } else { BOOT_LIMIT });
        tokio::select! {
            phase = machine.booted() => match phase {
                Phase::Booting | Phase::Ready => {}
                Phase::Ended => return Err(self.not_booted()),
            },
            () = self.ctx.cancelled() => return Err(cancelled()),
            () = tokio::time::sleep(limit) => {
                let detail = format!("The guest did not become ready within {} seconds", limit.as_secs());
                machine.end(StopReason::BootTimeout, &detail).await?;
                machine.ended().await;
                return Err(self.not_booted());
            }
        }
        fail_point!("start.ready");
        tokio::select! {
            furnished = self.vm.core().publish().furnish(self.vm, self.ctx) => furnished?,
            () = machine.ended() => return Err(self.not_booted()),
        }
        Ok(())
    }

    /// The error of a guest that did not come up, from what was noted about its end.
    fn not_booted(&self) -> Error {
        let record = self.vm.record();
        let reason = record.stop_reason.unwrap_or(StopReason::BootFailed);
        let kind = match reason {
            StopReason::VmmFailed | StopReason::VmmKilled => ErrorKind::EngineFailed,
            StopReason::Killed | StopReason::Requested => ErrorKind::Cancelled,
            _ => ErrorKind::BootFailed,
        };
        let detail = if record.state_detail.is_empty() {
            format!("Its VMM ended: {reason}")
        } else {
            record.state_detail
        };
        let name = self.vm.name();
        Error::new(kind, format!("VM {name} did not come up: {detail}"))
            .hint(format!("Its console: `banger vm logs {name}`."))
    }
}
