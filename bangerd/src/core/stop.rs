//! Stopping, killing and restarting a VM, and what is noted when it has ended.

use std::sync::Arc;
use std::time::Duration;

use banger_bus::Error;
use banger_model::{StopReason, VmState};

use super::capability::Kind;
use super::machine::Machine;
use super::plan::Desired;
use super::progress::{JobContext, cancelled};
use super::steps::{Ending, Run};
use super::vm::Vm;
use crate::fail_point::fail_point;

/// How long a guest may take to shut down.
const STOP_LIMIT: Duration = Duration::from_secs(30);

impl Vm {
    /// Asks the guest to shut down and waits; ends its VMM when `limit` (30 s by default) is
    /// over. Cancelled, the guest is left to itself.
    ///
    /// # Errors
    /// `WrongState`, `Busy`, `Cancelled`.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        ctx: &JobContext,
        limit: Option<Duration>,
    ) -> Result<(), Error> {
        let _turn = ctx.take(self, "stop", false).await?;
        self.stop_in_turn(ctx, limit).await
    }

    /// Ends the VMM at once; another operation is cancelled for it.
    ///
    /// # Errors
    /// `WrongState` when it does not run.
    pub(crate) async fn kill(self: &Arc<Self>, ctx: &JobContext) -> Result<(), Error> {
        let turn = ctx.take(self, "kill", true).await?;
        if self.machine().is_none() && turn.interrupted {
            // The operation that was cancelled has ended it.
            return Ok(());
        }
        self.live()?;
        let run = Run {
            ending: Ending::Killed(StopReason::Killed, String::new()),
            ..Run::new(self, ctx)
        };
        run.reach(Desired::Stopped).await
    }

    /// Stops it when it runs, and starts it.
    ///
    /// # Errors
    /// As [`Vm::stop`] and [`Vm::start`].
    pub(crate) async fn restart(
        self: &Arc<Self>,
        ctx: &JobContext,
        stop_limit: Option<Duration>,
        boot_limit: Option<Duration>,
    ) -> Result<(), Error> {
        let _turn = ctx.take(self, "restart", false).await?;
        if self.machine().is_some() {
            self.stop_in_turn(ctx, stop_limit).await?;
        }
        self.start_in_turn(ctx, boot_limit).await
    }

    async fn stop_in_turn(self: &Arc<Self>, ctx: &JobContext, limit: Option<Duration>) -> Result<(), Error> {
        self.live()?;
        let run = Run {
            ending: Ending::Asked(limit.unwrap_or(STOP_LIMIT)),
            ..Run::new(self, ctx)
        };
        run.reach(Desired::Stopped).await
    }

    /// Notes the end of a watched machine, and removes what its run leaves. Only its watcher
    /// calls this.
    pub(super) async fn note_end(self: &Arc<Self>, machine: &Arc<Machine>, reason: StopReason, detail: &str) {
        self.tell_end(reason, detail);
        if let Err(e) = self.clean_after_run().await {
            tracing::warn!(vm = %self.name(), error = %e, "What a run left was not removed as a whole");
        }
        self.note_stopped(reason, detail).await;
        if self
            .machine()
            .is_some_and(|current| Arc::ptr_eq(&current, machine))
        {
            self.set_machine(None);
        }
    }

    /// Notes the end of a machine that nobody watched.
    pub(super) async fn note_gone(self: &Arc<Self>) {
        self.core().scope_gone(&self.record()).await;
        let (reason, detail) = (
            StopReason::Vanished,
            "Its VMM was found gone: it ended while the daemon was away",
        );
        self.tell_end(reason, detail);
        self.note_stopped(reason, detail).await;
    }

    async fn note_stopped(self: &Arc<Self>, reason: StopReason, detail: &str) {
        self.change(|record| {
            if record.state != VmState::Deleting {
                record.state = VmState::Stopped;
            }
            record.stop_reason = Some(reason);
            detail.clone_into(&mut record.state_detail);
            record.vmm = None;
            record.unit.clear();
            record.ssh_port = 0;
        })
        .noted()
        .await;
    }

    async fn clean_after_run(self: &Arc<Self>) -> Result<(), Error> {
        fail_point!("stop.exited");
        self.core().scope_gone(&self.record()).await;
        let silent = JobContext::silent();
        let run = Run::new(self, &silent);
        let mut cleaned = Ok(());
        for wave in Kind::PREPARE.iter().rev() {
            cleaned = run.clean_up(wave).await.and(cleaned);
        }
        fail_point!("stop.cleaned");
        cleaned
    }
}

impl Run<'_> {
    /// Ends the machine and waits until its watcher has noted and cleaned up everything.
    pub(super) async fn end_vmm(&self) -> Result<(), Error> {
        fail_point!("stop.begin");
        let Some(machine) = self.vm.machine() else {
            return Ok(());
        };
        match &self.ending {
            Ending::Killed(reason, detail) => machine.end(*reason, detail).await?,
            Ending::Asked(limit) => self.ask(&machine, *limit).await?,
        }
        machine.ended().await;
        fail_point!("stop.noted");
        Ok(())
    }

    async fn ask(&self, machine: &Machine, limit: Duration) -> Result<(), Error> {
        let before = self.vm.state();
        self.ctx.stage("Shutting the guest down");
        self.vm
            .change(|record| record.state = VmState::Stopping)
            .noted()
            .await;
        machine.will_end(StopReason::Requested, "");
        let asked = machine.ask_to_shut_down().await;
        fail_point!("stop.asked");
        if !asked {
            self.ctx
                .message("The guest cannot be asked to shut down: its VMM is ended");
            return machine
                .end_instead("The guest could not be asked to shut down")
                .await;
        }
        tokio::select! {
            () = machine.ended() => Ok(()),
            () = self.ctx.cancelled() => {
                machine.may_go_on();
                let back = if before == VmState::Paused { VmState::Running } else { before };
                self.vm.change_state(&[VmState::Stopping], back).await;
                Err(cancelled())
            }
            () = tokio::time::sleep(limit) => {
                let detail = format!("The guest did not shut down within {} seconds", limit.as_secs());
                self.ctx.message(&detail);
                machine.end_instead(&detail).await
            }
        }
    }
}

impl Machine {
    /// Ends a machine that was asked and did not follow.
    async fn end_instead(&self, detail: &str) -> Result<(), Error> {
        self.may_go_on();
        self.end(StopReason::Killed, detail).await
    }
}
