//! One VM: what is known about it, who may work on it, and what the world is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use banger_bus::{Error, ErrorKind, VmInfo};
use banger_model::guest::HostMessage;
use banger_model::{StopReason, VmId, VmSpec, VmState, Workspace};
use banger_store::VmRecord;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use super::capability::Kind;
use super::console::Console;
use super::machine::{Machine, lock};
use super::plan::{Observed, Vmm};
use super::progress::{Cancel, JobContext};
use super::registry::Core;
use super::store::Pending;
use crate::helper::Helper;

/// A VM of the owner. Its operations are in the files of their names.
pub(crate) struct Vm {
    id: VmId,
    core: Arc<Core>,
    pub(super) record: Mutex<VmRecord>,
    /// Held while a change is made and told, so that changes are told in their order.
    telling: Mutex<()>,
    /// Its creation has not been finished.
    unfinished: AtomicBool,
    /// It is deleted; whoever still holds it holds a memory.
    gone: AtomicBool,
    /// Held by the one operation that may work on it.
    turn: AsyncMutex<()>,
    at_work: Mutex<Option<(&'static str, Cancel)>>,
    machine: Mutex<Option<Arc<Machine>>>,
    /// Held by the one who changes its workspace.
    pub(super) at_workspace: AsyncMutex<()>,
}

/// Where a guest's agent is reached, and the key that it must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentAddress {
    pub socket: SocketAddr,
    /// A line of authorized_keys(5).
    pub host_key: String,
}

/// The right to work on a VM, until dropped.
pub(super) struct Turn<'a> {
    vm: &'a Vm,
    _held: AsyncMutexGuard<'a, ()>,
    /// Another operation was cancelled for this one.
    pub(super) interrupted: bool,
}

impl Vm {
    pub(super) fn new(core: &Arc<Core>, record: VmRecord, unfinished: bool) -> Arc<Self> {
        Arc::new(Self {
            id: record.id,
            core: core.clone(),
            record: Mutex::new(record),
            telling: Mutex::new(()),
            unfinished: AtomicBool::new(unfinished),
            gone: AtomicBool::new(false),
            turn: AsyncMutex::new(()),
            at_work: Mutex::new(None),
            machine: Mutex::new(None),
            at_workspace: AsyncMutex::new(()),
        })
    }

    pub(crate) fn id(&self) -> VmId {
        self.id
    }

    /// Its name as it is now. Not to be asked for while its record is changed.
    pub(crate) fn name(&self) -> String {
        lock(&self.record).spec.name.to_string()
    }

    /// What it should be, as it is now.
    pub(crate) fn spec(&self) -> VmSpec {
        lock(&self.record).spec.clone()
    }

    pub(crate) fn state(&self) -> VmState {
        lock(&self.record).state
    }

    /// Whether a VMM runs or an operation is under way: the daemon must not leave.
    pub(crate) fn is_busy(&self) -> bool {
        lock(&self.machine).is_some() || lock(&self.at_work).is_some()
    }

    /// Everything that is known, as it is now.
    pub(crate) fn info(&self) -> VmInfo {
        self.info_of(&lock(&self.record))
    }

    /// Where the guest's agent listens.
    ///
    /// # Errors
    /// `WrongState` when the VM does not run, `GuestUnreachable` when its guest is not up.
    pub(crate) fn agent(&self) -> Result<AgentAddress, Error> {
        let record = self.record();
        match record.state {
            VmState::Running | VmState::Stopping if record.ssh_port != 0 => Ok(AgentAddress {
                socket: SocketAddr::from((host_of(&record), record.ssh_port)),
                host_key: record.host_key,
            }),
            VmState::Paused => Err(self.wrong_state("is paused", "Resume it first.")),
            state if state.is_live() => Err(Error::new(
                ErrorKind::GuestUnreachable,
                format!("VM {} is {state}: its guest is not up", self.name()),
            )),
            _ => Err(self.not_running()),
        }
    }

    /// Where its console's text is.
    pub(crate) fn console(&self) -> Console {
        Console::of(&self.core.paths(self.id), &lock(&self.record))
    }

    /// Who has its slot.
    pub(crate) fn helper(&self) -> &Helper {
        self.core.helper()
    }

    /// Halts the virtual CPUs.
    ///
    /// # Errors
    /// `WrongState`, `Busy`, `EngineFailed`.
    pub(crate) async fn pause(self: &Arc<Self>) -> Result<(), Error> {
        let _turn = self.turn("pause", &Cancel::new(), false).await?;
        match self.state() {
            VmState::Running => {}
            VmState::Paused => return Ok(()),
            state => return Err(self.wrong_state(&format!("is {state}"), "Only a running VM can be paused.")),
        }
        self.live()?.halt(true).await?;
        self.change_state(&[VmState::Running], VmState::Paused).await;
        Ok(())
    }

    /// Lets the virtual CPUs go on, and sets the guest's clock, which stood still.
    ///
    /// # Errors
    /// `WrongState`, `Busy`, `EngineFailed`.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<(), Error> {
        let _turn = self.turn("resume", &Cancel::new(), false).await?;
        match self.state() {
            VmState::Paused => {}
            VmState::Running => return Ok(()),
            state => return Err(self.wrong_state(&format!("is {state}"), "Only a paused VM can be resumed.")),
        }
        let machine = self.live()?;
        machine.halt(false).await?;
        machine.tell(HostMessage::SetTime { unix_us: now_us() }).await;
        self.change_state(&[VmState::Paused], VmState::Running).await;
        Ok(())
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn record(&self) -> VmRecord {
        lock(&self.record).clone()
    }

    pub(super) fn machine(&self) -> Option<Arc<Machine>> {
        lock(&self.machine).clone()
    }

    pub(super) fn set_machine(&self, machine: Option<Arc<Machine>>) {
        *lock(&self.machine) = machine;
    }

    pub(super) fn set_finished(&self) {
        self.unfinished.store(false, Ordering::SeqCst);
    }

    pub(super) fn set_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    /// Its machine, for what needs one that runs.
    pub(super) fn live(&self) -> Result<Arc<Machine>, Error> {
        self.machine().ok_or_else(|| self.not_running())
    }

    pub(super) fn wrong_state(&self, what: &str, hint: &str) -> Error {
        Error::new(ErrorKind::WrongState, format!("VM {} {what}", self.name())).hint(hint)
    }

    fn not_running(&self) -> Error {
        self.wrong_state(
            "does not run",
            &format!("Start it: `banger vm start {}`.", self.name()),
        )
    }

    /// What there is of it, as [`super::plan::plan`] wants to know it. `unwatched`: whether a
    /// VMM that this daemon does not watch is known to run.
    pub(super) fn observe(&self, unwatched: bool) -> Observed {
        let made = Kind::MAKE.iter().flat_map(|wave| wave.iter());
        let vmm = if self.machine().is_some() {
            Vmm::Watched
        } else if unwatched {
            Vmm::Unwatched
        } else if lock(&self.record).vmm.is_some() {
            Vmm::Gone
        } else {
            Vmm::None
        };
        Observed {
            row: !self.gone.load(Ordering::SeqCst),
            unfinished: self.unfinished.load(Ordering::SeqCst),
            made: made
                .copied()
                .filter(|kind| kind.capability().is_made(&self.core, self.id))
                .collect(),
            run_left: self.core.paths(self.id).runtime.symlink_metadata().is_ok()
                || lock(&self.record).slot.is_some(),
            vmm,
        }
    }

    /// Takes the VM for one operation. `force` cancels another that is under way and waits
    /// until it has stopped; without it the VM is busy then.
    ///
    /// # Errors
    /// `Busy`; `NoSuchVm` when it was deleted meanwhile.
    pub(super) async fn turn(
        &self,
        operation: &'static str,
        cancel: &Cancel,
        force: bool,
    ) -> Result<Turn<'_>, Error> {
        let (held, interrupted) = match self.turn.try_lock() {
            Ok(held) => (held, false),
            Err(_) if force => {
                if let Some((_, other)) = &*lock(&self.at_work) {
                    other.cancel();
                }
                (self.turn.lock().await, true)
            }
            Err(_) => return Err(self.busy()),
        };
        if self.gone.load(Ordering::SeqCst) {
            return Err(Error::new(
                ErrorKind::NoSuchVm,
                format!("VM {} is deleted", self.name()),
            ));
        }
        *lock(&self.at_work) = Some((operation, cancel.clone()));
        Ok(Turn {
            vm: self,
            _held: held,
            interrupted,
        })
    }

    fn busy(&self) -> Error {
        let operation = lock(&self.at_work)
            .as_ref()
            .map_or("another operation", |(name, _)| *name);
        Error::new(
            ErrorKind::Busy,
            format!("VM {} is busy: {operation} is under way", self.name()),
        )
        .hint("Wait for it, or cancel it.")
    }

    /// Changes what is known, tells it, and writes it down in this order of the calls.
    pub(super) fn change(self: &Arc<Self>, change: impl FnOnce(&mut VmRecord)) -> Pending<()> {
        let _in_order = lock(&self.telling);
        let (before, after, written) = {
            let mut record = lock(&self.record);
            let before = self.info_of(&record);
            change(&mut record);
            let copy = record.clone();
            let written = self.core.database().call(move |store| store.update(&copy));
            (before, self.info_of(&record), written)
        };
        if before != after {
            self.core.publish().vm_changed(self, &before, &after);
        }
        written
    }

    /// Moves on to a state from one of others, and nowhere from elsewhere.
    pub(super) async fn change_state(self: &Arc<Self>, from: &[VmState], to: VmState) {
        if !from.contains(&self.state()) {
            return;
        }
        self.change(|record| {
            if from.contains(&record.state) {
                record.state = to;
            }
        })
        .noted()
        .await;
    }

    fn info_of(&self, record: &VmRecord) -> VmInfo {
        let live = record.state.is_live();
        let address = if live && record.ssh_port != 0 {
            host_of(record).to_string()
        } else {
            String::new()
        };
        let stopped = record.state == VmState::Stopped;
        let workspace =
            |of: fn(&Workspace) -> &String| record.workspace.as_ref().map(of).cloned().unwrap_or_default();
        VmInfo {
            id: self.id.to_string(),
            name: record.spec.name.to_string(),
            state: record.state.to_string(),
            stop_reason: record
                .stop_reason
                .filter(|_| stopped)
                .map(|reason: StopReason| reason.to_string())
                .unwrap_or_default(),
            state_detail: record.state_detail.clone(),
            image: record.spec.image.to_string(),
            kernel: record.kernel.to_string(),
            engine: record.engine.clone(),
            accelerator: record.accelerator.clone(),
            vcpus: record.spec.vcpus,
            memory_mib: record.spec.memory_mib,
            disk_bytes: record.spec.disk_bytes,
            network: record.spec.network.as_str().to_owned(),
            labels: record.spec.labels.clone(),
            address,
            ssh_port: if live { record.ssh_port.into() } else { 0 },
            host_key: record.host_key.clone(),
            pid: record.vmm.as_ref().map_or(0, |vmm| vmm.pid),
            unit: record.unit.clone(),
            directory: self.core.paths(self.id).directory.display().to_string(),
            init: record.init.clone(),
            workspace: workspace(|it| &it.host_path),
            workspace_path: workspace(|it| &it.guest_path),
            workspace_commit: workspace(|it| &it.commit),
            workspace_mode: workspace(|it| &it.mode),
            published_ports: record
                .spec
                .ports
                .iter()
                .map(|(host, guest)| (*host, *guest))
                .collect(),
            created_us: record.created_us,
            started_us: record.started_us,
            ready_us: record.ready_us,
        }
    }
}

/// Where the host reaches the guest.
fn host_of(record: &VmRecord) -> Ipv4Addr {
    record
        .slot
        .map_or(Ipv4Addr::LOCALHOST, |held| held.slot.address(held.bridge))
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.vm.at_work) = None;
    }
}

impl JobContext {
    /// Takes a VM for the operation of this job, see [`Vm::turn`].
    pub(super) async fn take<'a>(
        &self,
        vm: &'a Vm,
        operation: &'static str,
        force: bool,
    ) -> Result<Turn<'a>, Error> {
        self.about(vm.id);
        vm.turn(operation, self.cancel(), force).await
    }
}

/// Microseconds since 1970 (UTC).
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
