//! What a daemon finds when it starts: every VM is compared with what is there, what was begun
//! is finished or undone, and what belongs to no VM is removed. A second pass does nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_bus::Error;
use banger_model::{Event, StopReason, VmId, VmState};
use banger_store::{Intent, Operation, VmRecord};
use banger_sys::pidfd::{Pidfd, ProcessIdentity};

use super::capability::{archives, remove_tree};
use super::launch::note_process;
use super::machine::{self, Killer, Machine};
use super::plan::{Desired, Step, Vmm, plan};
use super::progress::JobContext;
use super::registry::Core;
use super::steps::Run;
use super::vm::Vm;

/// What a recovery did, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Repairs {
    /// VMs whose VMM runs on and is watched again.
    pub adopted: usize,
    /// VMs whose VMM was found gone.
    pub ended: usize,
    /// VMs of which the rest of a run was removed.
    pub cleaned: usize,
    /// Half-made and half-deleted VMs that were removed.
    pub removed: usize,
    /// Directories, sockets and scopes of no VM.
    pub orphans: usize,
}

impl Core {
    /// Brings what is and what is known together, and publishes every VM.
    ///
    /// # Errors
    /// When the database cannot be read. What fails for one VM is noted with it.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<Repairs, Error> {
        let (rows, intents) = self
            .database()
            .call(|store| Ok((store.vms()?, store.intents()?)))
            .done()
            .await?;
        let mut repairs = Repairs::default();
        for row in rows {
            if self.get(row.id).is_none() {
                self.recover_vm(row, &intents, &mut repairs).await;
            }
        }
        self.remove_orphans(&mut repairs).await;
        archives::sweep(self.dirs());
        if repairs != Repairs::default() {
            tracing::info!(?repairs, "Repaired what an earlier daemon left");
        }
        Ok(repairs)
    }

    async fn recover_vm(self: &Arc<Self>, row: VmRecord, intents: &[Intent], repairs: &mut Repairs) {
        let begun = |operation| intents.iter().any(|i| i.vm == row.id && i.operation == operation);
        let unfinished = begun(Operation::Create);
        let unwanted = unfinished || begun(Operation::Delete) || row.state == VmState::Deleting;
        let mut process = find_process(&row);
        let vm = Vm::new(self, row, unfinished);
        self.insert(&vm);
        if process.is_none() {
            process = self.find_unnoted(&vm).await;
        }
        self.publish().vm_added(&vm);
        let alive = process.is_some();
        let desired = match (unwanted, alive) {
            (true, _) => Desired::Absent,
            (false, true) => Desired::Running,
            (false, false) => Desired::Stopped,
        };
        let steps = match plan(desired, &vm.observe(alive)) {
            Ok(steps) => steps,
            Err(lost) => return note_damage(&vm, &lost.to_string()).await,
        };
        if let Some(process) = process {
            adopt(&vm, process);
            repairs.adopted += usize::from(!unwanted);
        }
        repairs.ended += usize::from(steps.contains(&Step::NoteGone));
        repairs.removed += usize::from(unwanted);
        repairs.cleaned += usize::from(steps.iter().any(|step| matches!(step, Step::CleanUp(_))));
        let done = if unwanted {
            vm.delete_in_turn().await
        } else if desired == Desired::Stopped {
            Run::new(&vm, &JobContext::silent()).reach(Desired::Stopped).await
        } else {
            Ok(())
        };
        if let Err(e) = done {
            tracing::warn!(vm = %vm.name(), error = %e, "A VM was not repaired as a whole");
            note_damage(&vm, &e.message).await;
        } else if desired == Desired::Stopped {
            settle(&vm).await;
            if vm.record().slot.is_some() {
                note_damage(&vm, "the helper is gone, which has its slot").await;
            }
        }
    }

    /// The VMM of a VM whose daemon ended between the launch and the note of it.
    async fn find_unnoted(&self, vm: &Arc<Vm>) -> Option<Pidfd> {
        let record = vm.record();
        let held = record
            .slot
            .filter(|_| record.vmm.is_none() && record.state == VmState::Starting)?;
        let (process, identity) = self.unnoted_process(held).await?;
        vm.change(|record| note_process(record, identity, Some(held.slot)))
            .noted()
            .await;
        Some(process)
    }

    /// Removes what lies in our directories and belongs to no VM. A name that is no id is not
    /// ours; a runtime directory or a scope of another state directory is somebody else's.
    async fn remove_orphans(self: &Arc<Self>, repairs: &mut Repairs) {
        let vms = self.dirs().vms();
        for (id, directory) in named_by_id(&vms) {
            if self.get(id).is_none() {
                report(&directory, remove_tree(&directory), repairs);
            }
        }
        for (id, directory) in named_by_id(&self.dirs().runtime.join("vms")) {
            let paths = self.paths(id);
            let ours = std::fs::read_link(paths.owner_link()).is_ok_and(|owner| owner == paths.directory);
            if ours && self.get(id).is_none() {
                report(&directory, remove_tree(&directory), repairs);
            }
        }
        for (unit, id) in self.runner().scopes(&vms).await {
            if self.get(id).is_none() {
                tracing::info!(unit, "Removing a scope of no VM");
                self.runner().kill(&unit).await;
                self.runner().gone(&unit).await;
                repairs.orphans += 1;
            }
        }
    }
}

fn report(path: &Path, removed: Result<(), Error>, repairs: &mut Repairs) {
    match removed {
        Ok(()) => {
            tracing::info!(path = %path.display(), "Removed a directory of no VM");
            repairs.orphans += 1;
        }
        Err(e) => tracing::warn!(error = %e, "A directory of no VM stays"),
    }
}

fn named_by_id(directory: &Path) -> Vec<(VmId, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect()
}

/// The VMM of a row, when exactly that process still runs.
fn find_process(row: &VmRecord) -> Option<Pidfd> {
    let vmm = row.vmm.as_ref()?;
    let identity = ProcessIdentity {
        pid: vmm.pid,
        start_time: vmm.start_time,
        boot_id: vmm.boot_id.clone(),
    };
    match Pidfd::open_checked(&identity) {
        Ok(process) => process.filter(Pidfd::is_alive),
        Err(e) => {
            tracing::warn!(pid = vmm.pid, error = %e, "Whether a VMM runs cannot be told");
            None
        }
    }
}

fn adopt(vm: &Arc<Vm>, process: Pidfd) {
    vm.tell(Event::VmAdopted);
    let killer = match vm.record().slot {
        Some(held) => Killer::of(vm.core().helper(), held),
        None => Killer::Signal,
    };
    let machine = Machine::new(process, killer);
    let stopping = vm.state() == VmState::Stopping;
    if stopping {
        machine.will_end(StopReason::Requested, "");
    }
    vm.set_machine(Some(machine.clone()));
    machine::spawn_watch(vm, machine, true);
    if stopping {
        // The earlier daemon may have died before it asked the guest, and nobody else counts the
        // time that the guest has. A guest that was asked does not mind to be asked again.
        let vm = vm.clone();
        tokio::spawn(async move {
            if let Err(e) = vm.stop(&JobContext::silent(), None).await {
                tracing::info!(vm = %vm.name(), error = %e, "A stop that was begun before was not ended");
            }
        });
    }
}

/// A VM that was about to start or stop when the daemon ended, and has no VMM.
async fn settle(vm: &Arc<Vm>) {
    if vm.observe(false).vmm == Vmm::None && vm.state() != VmState::Stopped {
        vm.change(|record| {
            record.state = VmState::Stopped;
            record.stop_reason = Some(StopReason::Vanished);
            record.state_detail = "The daemon ended before its VMM had started".to_owned();
        })
        .noted()
        .await;
    }
}

async fn note_damage(vm: &Arc<Vm>, what: &str) {
    tracing::warn!(vm = %vm.name(), what, "A VM is damaged");
    vm.change(|record| {
        if record.state != VmState::Deleting {
            record.state = VmState::Stopped;
            record.stop_reason.get_or_insert(StopReason::Vanished);
            record.vmm = None;
            record.unit.clear();
        }
        record.state_detail = format!("Damaged: {what}");
    })
    .noted()
    .await;
}
