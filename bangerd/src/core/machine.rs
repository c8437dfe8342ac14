//! A VMM that runs, and the one task that watches it: its end, what its monitor tells, what
//! the guest says. Whatever ends a VMM, its end is noted and cleaned up here and nowhere else.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use banger_bus::{Error, ErrorKind};
use banger_model::guest::{GuestMessage, HostMessage};
use banger_model::{Event, SlotHandle, StopReason, VmState};
use banger_store::HeldSlot;
use banger_sys::pidfd::{Exit, Pidfd};
use banger_vmm::VmmEvent;
use futures_util::{FutureExt, StreamExt};
use rustix::process::Signal;
use tokio::sync::{Notify, SetOnce, mpsc, watch};

use super::capability::watch_console;
use super::control::{Ear, Line, Mouth};
use super::ended::{self, Traces};
use super::error::chain;
use super::monitor::{Monitor, is_firecracker};
use super::progress::JobContext;
use super::vm::{Vm, now_us};
use crate::helper::{Failure, Helper};

/// How long a guest that reported a failure may take for its last words on the console.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Restarts of a guest that has not once become ready, before it counts as unable to boot.
const MAX_RESTARTS: u32 = 3;
/// How long it may take until a VMM's monitor is reached.
const MONITOR_LIMIT: Duration = Duration::from_secs(10);
/// One restart is a burst of resets: a kernel tries several ways until one works.
const BURST: Duration = Duration::from_millis(200);
/// Longest text of a guest that is kept, in characters.
const MAX_TEXT: usize = 512;

/// One VMM process.
pub(super) struct Machine {
    process: Pidfd,
    killer: Killer,
    monitor: SetOnce<Monitor>,
    mouth: tokio::sync::Mutex<Option<Mouth>>,
    /// Set once the control channel was reached, or cannot be.
    tried: SetOnce<()>,
    phase: watch::Sender<Phase>,
    /// A halted guest hears nobody who wants to connect.
    resumed: Notify,
    /// Why it ends, once the daemon has decided that it does.
    ending: Mutex<Option<(StopReason, String)>>,
}

/// Who can end a VMM's process.
pub(super) enum Killer {
    /// We: it is ours.
    Signal,
    /// The helper: it has its slot's uid.
    Helper(Helper, SlotHandle),
}

/// How far the guest is, for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Booting,
    Ready,
    /// The process has ended, and all of it is noted and cleaned up.
    Ended,
}

/// What the watcher has seen.
#[derive(Default)]
struct Seen {
    traces: Traces,
    boot_id: String,
    /// Restarts since the guest was ready, and when the last one was.
    restarts: u32,
    restarted: Option<Instant>,
}

impl Killer {
    /// For the VMM of a slot.
    pub(super) fn of(helper: &Helper, held: HeldSlot) -> Self {
        Self::Helper(helper.clone(), held.handle)
    }
}

impl Machine {
    pub(super) fn new(process: Pidfd, killer: Killer) -> Arc<Self> {
        Arc::new(Self {
            process,
            killer,
            monitor: SetOnce::new(),
            mouth: tokio::sync::Mutex::new(None),
            tried: SetOnce::new(),
            phase: watch::Sender::new(Phase::Booting),
            resumed: Notify::new(),
            ending: Mutex::new(None),
        })
    }

    /// Waits until the guest is ready or all is over.
    pub(super) async fn booted(&self) -> Phase {
        self.wait(|phase| phase != Phase::Booting).await
    }

    /// Waits until the process has ended and all of it is cleaned up.
    pub(super) async fn ended(&self) {
        self.wait(|phase| phase == Phase::Ended).await;
    }

    async fn wait(&self, reached: impl Fn(Phase) -> bool) -> Phase {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as self.
        let found = phase.wait_for(|phase| reached(*phase)).await;
        found.map_or(Phase::Ended, |phase| *phase)
    }

    /// Ends the process at once, for this reason unless there is one already.
    ///
    /// # Errors
    /// When neither the helper nor the monitor is there to do it; the process goes on.
    pub(super) async fn end(&self, reason: StopReason, detail: &str) -> Result<(), Error> {
        self.will_end(reason, detail);
        let failure = match &self.killer {
            Killer::Signal => {
                // It may have ended by itself: what was wanted.
                let _ = self.process.send_signal(Signal::KILL);
                return Ok(());
            }
            Killer::Helper(helper, handle) => match helper.kill(*handle).await {
                Ok(()) | Err(Failure::NoSuchSlot) => return Ok(()),
                Err(failure) => failure,
            },
        };
        tracing::warn!(%failure, "The helper does not end a VMM: its monitor is asked");
        if let Some(monitor) = self.monitor.get()
            && monitor.quit().await
        {
            return Ok(());
        }
        self.may_go_on();
        Err(failure.into())
    }

    /// As [`Self::end`], for those who cannot wait.
    fn kill(self: &Arc<Self>, reason: StopReason, detail: &str) {
        self.will_end(reason, detail);
        let (machine, detail) = (self.clone(), detail.to_owned());
        tokio::spawn(async move {
            if let Err(error) = machine.end(reason, &detail).await {
                tracing::error!(%error, "A VMM that should end goes on");
            }
        });
    }

    /// Says why it is going to end. The first reason counts.
    pub(super) fn will_end(&self, reason: StopReason, detail: &str) {
        lock(&self.ending).get_or_insert_with(|| (reason, detail.to_owned()));
    }

    /// Takes the reason back: the guest was asked, and has not followed.
    pub(super) fn may_go_on(&self) {
        *lock(&self.ending) = None;
    }

    /// Asks the guest to shut down: its agent, else its power button. False when neither hears.
    pub(super) async fn ask_to_shut_down(&self) -> bool {
        // A VMM that was just found again is about to be reached.
        let reached = async {
            tokio::select! {
                _ = self.tried.wait() => {}
                () = self.ended() => {}
            }
        };
        let _ = tokio::time::timeout(MONITOR_LIMIT, reached).await;
        if let Some(monitor) = self.monitor.get() {
            // A halted machine hears nothing; one that runs does not mind.
            let _ = monitor.resume().await;
        }
        if self.tell(HostMessage::Poweroff).await {
            return true;
        }
        match self.monitor.get() {
            Some(monitor) => monitor.press_power_button().await.is_ok(),
            None => false,
        }
    }

    /// Sends a message to the guest; false when there is no way to it.
    pub(super) async fn tell(&self, message: HostMessage) -> bool {
        match &mut *self.mouth.lock().await {
            Some(mouth) => mouth.say(message).await.is_ok(),
            None => false,
        }
    }

    /// Halts the virtual CPUs, or lets them go on.
    ///
    /// # Errors
    /// When the monitor does not answer.
    pub(super) async fn halt(&self, halt: bool) -> Result<(), Error> {
        // A VMM that was just found again, or just started, is about to be reached.
        let monitor = tokio::time::timeout(MONITOR_LIMIT, self.monitor.wait())
            .await
            .map_err(|_| Error::new(ErrorKind::EngineFailed, "The VMM's monitor is not reached"))?;
        let done = match halt {
            true => monitor.pause().await,
            false => monitor.resume().await,
        };
        if !halt {
            self.resumed.notify_waiters();
        }
        done.map_err(Error::from)
    }
}

/// Has a machine watched to its end. `adopted`: it was started by an earlier daemon.
pub(super) fn spawn_watch(vm: &Arc<Vm>, machine: Arc<Machine>, adopted: bool) {
    tokio::spawn(watch(vm.clone(), machine, adopted));
}

async fn watch(vm: Arc<Vm>, machine: Arc<Machine>, adopted: bool) {
    let core = vm.core().clone();
    let paths = core.paths(vm.id());
    let mut seen = Seen::default();
    let mut exited = pin!(machine.process.exited());
    let record = vm.record();
    // Before the VMM is told to start the guest, which then connects.
    let line = Line::of(&paths, is_firecracker(&record));
    let mut hearing = pin!(line.connect().fuse());
    let mut connecting = pin!(Monitor::connect(&record, &paths).fuse());
    let mut console = pin!(watch_console(&core, vm.id()));
    let mut stop_requests = core.stop_requests(&vm.record()).await;
    let mut events: Option<mpsc::Receiver<VmmEvent>> = None;
    let mut ear: Option<Ear> = None;
    let exit = loop {
        tokio::select! {
            exit = &mut exited => break exit,
            connected = &mut connecting => match connected {
                Ok(connected) => {
                    let _ = machine.monitor.set(connected.monitor);
                    events = connected.events;
                    if let Some(port) = connected.port {
                        vm.change(|record| record.ssh_port = port).noted().await;
                    }
                }
                Err(e) if adopted => tracing::warn!(vm = %vm.name(), error = %chain(&e), "The monitor of a running VMM cannot be reached"),
                // Its process may just be ending with an error of its own, which says more.
                Err(e) => after_last_words(&vm, &machine, StopReason::VmmFailed, &chain(&e)),
            },
            heard = &mut hearing => match heard {
                Ok((hears, mouth)) => {
                    *machine.mouth.lock().await = Some(mouth);
                    let _ = machine.tried.set(());
                    ear = Some(hears);
                }
                Err(e) => {
                    tracing::warn!(vm = %vm.name(), error = %e, "The guest's control channel cannot be reached");
                    let _ = machine.tried.set(());
                }
            },
            event = next(events.as_mut().map(mpsc::Receiver::recv)) => match event {
                Some(event) => on_event(&vm, &machine, &mut seen, &event).await,
                None => events = None,
            },
            message = next(ear.as_mut().map(Ear::next)) => match message {
                Some(message) => on_message(&vm, &machine, &mut seen, message).await,
                None => {
                    let again = ear.as_ref().is_some_and(|ear| line.connects_again(ear));
                    ear = None;
                    *machine.mouth.lock().await = None;
                    if again {
                        hearing.set(line.connect().fuse());
                    }
                }
            },
            Some(()) = stop_requests.next() => {
                let vm = vm.clone();
                tokio::spawn(async move {
                    if let Err(e) = vm.stop(&JobContext::silent(), None).await {
                        tracing::info!(vm = %vm.name(), error = %e, "A stop that systemd asked for was not done");
                    }
                });
            }
            () = machine.resumed.notified(), if ear.is_none() => hearing.set(line.connect().fuse()),
            () = &mut console => {}
        }
    };
    // The monitor's last event may still be on its way; the connection ends with the process.
    if let Some(events) = &mut events {
        let rest = async {
            while let Some(event) = events.recv().await {
                on_event(&vm, &machine, &mut seen, &event).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    }
    let exit = exit.unwrap_or(Exit::Unknown);
    if is_firecracker(&record) {
        seen.traces
            .of_firecracker(exit, &super::capability::tail(&paths.console()));
    }
    let decided = lock(&machine.ending).clone();
    let stderr = super::capability::tail(&paths.vmm_log());
    let (reason, detail) = decided.unwrap_or_else(|| ended::why(exit, &seen.traces, &stderr));
    vm.note_end(&machine, reason, &detail).await;
    machine.phase.send_replace(Phase::Ended);
}

/// What a future gives, or nothing ever where there is no future.
async fn next<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn on_event(vm: &Arc<Vm>, machine: &Arc<Machine>, seen: &mut Seen, event: &VmmEvent) {
    tracing::debug!(vm = %vm.name(), ?event, "Monitor event");
    match event {
        VmmEvent::Shutdown { reason, .. } => seen.traces.shutdown = Some(reason.clone()),
        VmmEvent::GuestPanicked => seen.traces.panicked = true,
        VmmEvent::Reset { guest: true } => {
            if seen.restarted.is_none_or(|last| last.elapsed() > BURST) {
                seen.restarts += 1;
            }
            seen.restarted = Some(Instant::now());
            if vm.state() == VmState::Starting && seen.restarts > MAX_RESTARTS {
                machine.kill(
                    StopReason::BootFailed,
                    &format!("The guest restarted {MAX_RESTARTS} times without becoming ready"),
                );
            } else {
                machine.phase.send_if_modified(|phase| {
                    let was = *phase == Phase::Ready;
                    if was {
                        *phase = Phase::Booting;
                    }
                    was
                });
                vm.change_state(&[VmState::Running, VmState::Paused], VmState::Starting)
                    .await;
            }
        }
        VmmEvent::Stop => vm.change_state(&[VmState::Running], VmState::Paused).await,
        VmmEvent::Resume => vm.change_state(&[VmState::Paused], VmState::Running).await,
        VmmEvent::Reset { guest: false } | VmmEvent::Powerdown => {}
    }
}

async fn on_message(vm: &Arc<Vm>, machine: &Arc<Machine>, seen: &mut Seen, message: GuestMessage) {
    match message {
        GuestMessage::Ready {
            boot_id,
            init,
            uptime_ms,
            version,
        } => {
            tracing::debug!(vm = %vm.name(), uptime_ms, version = %clean(&version), "The guest is ready");
            let again = boot_id == seen.boot_id;
            // Whoever starts it furnishes it himself.
            let rebooted = !again && !seen.boot_id.is_empty();
            seen.traces.ending = false;
            seen.boot_id = boot_id;
            seen.restarts = 0;
            let init = clean(&init);
            let mut started = false;
            vm.change(|record| {
                started = record.state == VmState::Starting;
                if started {
                    record.state = VmState::Running;
                    record.state_detail.clear();
                }
                record.init = init;
                if !again || record.ready_us == 0 {
                    record.ready_us = now_us();
                }
            })
            .noted()
            .await;
            if started {
                vm.tell(Event::VmStarted);
            }
            if rebooted {
                furnish(vm);
            }
            machine.phase.send_if_modified(|phase| {
                let was = *phase == Phase::Booting;
                if was {
                    *phase = Phase::Ready;
                }
                was
            });
        }
        GuestMessage::Ending => seen.traces.ending = true,
        GuestMessage::Failed { stage, message } => {
            let text = format!("The guest cannot boot: {}: {}", clean(&stage), clean(&message));
            after_last_words(vm, machine, StopReason::BootFailed, &text);
        }
    }
}

/// Does in a guest that has restarted by itself what was done in it when it was started.
fn furnish(vm: &Arc<Vm>) {
    let vm = vm.clone();
    tokio::spawn(async move {
        let silent = JobContext::silent();
        if let Err(error) = vm.core().publish().furnish(&vm, &silent).await {
            tracing::warn!(vm = %vm.name(), %error, "A guest that has restarted lacks something");
        }
    });
}

/// Ends a machine that is lost, after the time that its last words may need.
fn after_last_words(vm: &Arc<Vm>, machine: &Arc<Machine>, reason: StopReason, detail: &str) {
    tracing::warn!(vm = %vm.name(), detail, "A VM is given up");
    if reason == StopReason::BootFailed {
        machine.will_end(reason, detail);
    }
    let (machine, detail) = (machine.clone(), detail.to_owned());
    tokio::spawn(async move {
        if tokio::time::timeout(LAST_WORDS, machine.ended()).await.is_err() {
            machine.kill(reason, &detail);
        }
    });
}

/// A guest's text as it may reach a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect()
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
