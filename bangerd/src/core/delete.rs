//! Deleting a VM.

use std::sync::Arc;

use banger_bus::{Error, ErrorKind};
use banger_model::{Event, StopReason, VmState};
use banger_store::{NewIntent, Operation};

use super::capability::{Doomed, blocking};
use super::plan::Desired;
use super::progress::JobContext;
use super::steps::{Ending, Run};
use super::vm::{Vm, now_us};
use crate::fail_point::fail_point;

impl Vm {
    /// Deletes the VM and everything of it. With `force` also when it runs, and another
    /// operation is cancelled for it. From its first step on it cannot be cancelled.
    ///
    /// # Errors
    /// `WrongState` when it runs and `force` is not given; when something could not be removed
    /// the VM stays, and can be deleted again.
    pub(crate) async fn delete(self: &Arc<Self>, ctx: &JobContext, force: bool) -> Result<(), Error> {
        let _turn = ctx.take(self, "delete", force).await?;
        if self.machine().is_some() && !force {
            return Err(self.wrong_state(
                &format!("is {}", self.state()),
                &format!(
                    "Stop it first, or delete it with force: `banger vm delete --force {}`.",
                    self.name()
                ),
            ));
        }
        ctx.check()?;
        ctx.stage("Deleting");
        fail_point!("delete.begin");
        let intent = NewIntent {
            vm: self.id(),
            operation: Operation::Delete,
            created_us: now_us(),
        };
        match self
            .core()
            .database()
            .call(move |store| store.begin(&intent))
            .done()
            .await
        {
            // What frees space must not need any: a crash in between leaves a damaged VM, which
            // says so and can be deleted again.
            Err(e) if e.kind == ErrorKind::NoSpace => {
                tracing::warn!(vm = %self.name(), "Deleting without a note of it: the disk is full");
            }
            begun => begun?,
        }
        fail_point!("delete.intent");
        self.change(|record| record.state = VmState::Deleting)
            .noted()
            .await;
        fail_point!("delete.state");
        self.delete_in_turn().await
    }

    /// Deletes what was decided to be deleted.
    pub(super) async fn delete_in_turn(self: &Arc<Self>) -> Result<(), Error> {
        let silent = JobContext::silent();
        let run = Run {
            ending: Ending::Killed(StopReason::Killed, "It was deleted".to_owned()),
            ..Run::new(self, &silent)
        };
        let deleted = self.take_apart(&run).await;
        if let Err(e) = &deleted {
            self.change(|record| record.state_detail.clone_from(&e.message))
                .noted()
                .await;
        }
        deleted?;
        fail_point!("delete.done");
        Ok(())
    }

    async fn take_apart(self: &Arc<Self>, run: &Run<'_>) -> Result<(), Error> {
        if self.machine().is_some() {
            run.end_vmm().await?;
        }
        fail_point!("delete.ended");
        run.reach(Desired::Absent).await
    }
}

impl Run<'_> {
    /// Forgets a VM of which nothing is left.
    pub(super) async fn forget(&self) -> Result<(), Error> {
        fail_point!("delete.unmade");
        let id = self.vm.id();
        let core = self.vm.core();
        let forgotten = core.database().call(move |store| store.forget(id)).done().await;
        match forgotten {
            Err(e) if e.kind == ErrorKind::NoSpace => {
                // Its own disk is what fills the file system until the last hold of it goes.
                blocking({
                    let doomed = self.parts.take().doomed;
                    move || {
                        drop(doomed.map(Doomed::into_file));
                        Ok(())
                    }
                })
                .await?;
                core.database().call(move |store| store.forget(id)).done().await?;
            }
            forgotten => forgotten?,
        }
        self.vm.set_gone();
        core.remove(id);
        fail_point!("delete.forgotten");
        core.publish().vm_removed(id);
        self.vm.tell(Event::VmDeleted);
        Ok(())
    }
}
