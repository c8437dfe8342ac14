//! Launching a slot's VMM, in steps each of which leaves either nothing or what the next helper
//! finds again: a process that waits at its barrier ends with this one, a scope is found by its
//! name, a VMM runs only when it was written down.

mod engines;
mod files;
mod log;
mod options;
mod scope;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, LaunchEngine};
use banger_model::guest::ROOT_SERIAL;
use banger_model::{Event, Slot};
use banger_sys::landlock::{Confinement, Enforcement, FileAccess, FileRule};
use banger_sys::launch::{
    Barrier, Identity, LaunchError, LaunchSpec, Launched, Launcher, Limits, SystemCalls,
};
use banger_sys::pidfd::{Exit, Pidfd, ProcessIdentity};
use banger_vmm::{
    Accelerator, Engine, EngineKind, LaunchPlan, MachineSpec, MachineType, Network, TapNetwork,
};

use crate::context::{Call, Context};
use crate::fail_point::hit;
use crate::journal::{self, Priority, chain};

use crate::net;
use crate::slots::{LockedSlot, Run};
#[cfg(debug_assertions)]
pub(crate) use engines::TEST_ENGINE;

pub(crate) use files::{Files, check_reader};
pub(crate) use log::{LogRequest, open_log};
pub(crate) use options::Options;

/// How long the launched process may take to confine itself, and to become the VMM.
const PREPARE_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to end once it was given up.
const END_LIMIT: Duration = Duration::from_secs(5);

/// What launches have in common.
#[derive(Default)]
pub(crate) struct Launches {
    engines: engines::Engines,
    logs: log::Logs,
}

/// Looks for the engines while the owner of a new slot prepares his machine: a launch then finds
/// them known.
pub(crate) fn warm_up(context: &Arc<Context>, slot: Slot) {
    let context = context.clone();
    tokio::spawn(async move {
        let _busy = context.busy();
        for engine in LaunchEngine::ALL {
            // One that is not there is told to whoever wants it.
            let engines = &context.launches.engines;
            let _ = engines.find(*engine, &context.launch_thread, slot).await;
        }
    });
}

/// Starts the slot's VMM in its scope, and returns its pidfd. When the caller leaves meanwhile,
/// or a step fails, everything is as before.
///
/// # Errors
/// `WrongState` when a VMM runs in the slot, `EngineUnavailable`, `EngineFailed` with the
/// launcher's or systemd's own words, `Cancelled`.
pub(crate) async fn launch(
    call: &Call,
    slot: &mut LockedSlot<'_>,
    options: Options,
    files: Files,
) -> HelperResult<OwnedFd> {
    let context = &*call.context;
    make_room(context, slot).await?;
    hit("launch.begin").await?;
    let thread = &context.launch_thread;
    let engine = context
        .launches
        .engines
        .find(options.engine, thread, slot.slot)
        .await?;
    net::ensure_tap(&context.net, slot.slot, slot.bridge).await?;
    let plan = plan(context, slot.slot, &engine, &options, files).await?;
    // Not to be given up half-way: what was forked must be reaped.
    let launched = thread.run(move || plan.launch(&Launcher::this_program())).await;
    let launched = launched
        .map_err(|e| failed("Cannot start a VMM", &e))?
        .map_err(|e| launch_error(&e))?;
    let mut attempt = Attempt::new(context, launched, slot.run.clone());
    let mut departure = call.departure.clone();
    let done = tokio::select! {
        done = attempt.steps(call, slot, &options) => done,
        () = departure.happened() => Err(HelperError::new(ErrorKind::Cancelled, "The caller has left")),
    };
    match done {
        Ok(process) => Ok(process),
        Err(error) => {
            attempt.undo(slot).await;
            Err(error)
        }
    }
}

/// A program of the system that reads these files, and neither writes nor connects.
fn reader(program: &Path, arguments: Vec<String>, read: &[&str], open_files: u64) -> LaunchSpec {
    let mut files: Vec<FileRule> = ["/usr", "/lib", "/lib64", "/nix/store"]
        .map(|path| FileRule::path(path, FileAccess::ReadExecute))
        .into();
    files.push(FileRule::path(program, FileAccess::ReadExecute));
    files.extend(read.iter().map(|path| FileRule::path(path, FileAccess::Read)));
    LaunchSpec {
        program: program.to_owned(),
        arguments,
        environment: vec![("LC_ALL".to_owned(), "C.UTF-8".to_owned())],
        limits: Limits {
            file_bytes: 0,
            open_files,
            oom_score_adj: 200,
        },
        confinement: Confinement {
            files,
            tcp_bind: Some(Vec::new()),
            tcp_connect: Some(Vec::new()),
            scoped: true,
        },
        system_calls: Some(SystemCalls { unix_sockets: false }),
        identity: None,
    }
}

/// Who runs a slot's VMM: a user that nothing else runs as.
fn identity(slot: Slot, groups: Vec<u32>) -> Identity {
    Identity {
        uid: slot.uid(),
        gid: slot.uid(),
        groups,
    }
}

/// At most one VMM in a slot. What the last one has left of its scope goes.
async fn make_room(context: &Context, slot: &LockedSlot<'_>) -> HelperResult<()> {
    let systemd = &context.systemd;
    let scope = systemd.invocation(slot.slot).await;
    match scope.map_err(|e| failed("Cannot look for the slot's scope", &e))? {
        None => Ok(()),
        Some(_) if slot.process().is_some() => Err(HelperError::new(
            ErrorKind::WrongState,
            format!("Slot {} has a VMM that runs\nStop or kill it first", slot.slot),
        )),
        Some(_) => {
            let ended = systemd.end(slot.slot).await;
            ended.map_err(|e| failed("Cannot end what is left of the slot's last VMM", &e))
        }
    }
}

async fn plan(
    context: &Context,
    slot: Slot,
    engine: &EngineKind,
    options: &Options,
    files: Files,
) -> HelperResult<LaunchPlan> {
    let queue = match options.engine {
        LaunchEngine::Qemu => Some(net::open_tap(&context.net, slot).await?),
        // Opens the tap by its name.
        LaunchEngine::Firecracker => None,
    };
    let spec = MachineSpec {
        name: options.name.to_string(),
        uuid: options.id,
        vcpus: options.vcpus,
        memory_mib: options.memory_mib,
        accelerator: options.accelerator,
        machine: MachineType::Q35,
        kernel: files.kernel,
        cmdline: engine.default_cmdline(options.accelerator),
        initrd: files.initrd,
        root_disk: files.root_disk,
        root_serial: ROOT_SERIAL.to_owned(),
        network: Network::Tap(TapNetwork {
            name: slot.tap(),
            queue,
            mac: slot.mac(),
        }),
        console: files.console,
        channels: files.channels,
        stderr: files.log,
    };
    let mut plan = engine
        .plan(spec)
        .map_err(|e| HelperError::new(ErrorKind::EngineFailed, chain(&e)))?;
    let groups = match options.accelerator {
        Accelerator::Kvm => kvm_group().into_iter().collect(),
        Accelerator::Tcg => Vec::new(),
    };
    plan.spec.identity = Some(identity(slot, groups));
    Ok(plan)
}

/// The group that may use KVM, whatever it is called here; none where everybody may.
fn kvm_group() -> Option<u32> {
    let node = std::fs::metadata("/dev/kvm").ok()?;
    let group_alone = node.mode() & 0o066 == 0o060;
    (group_alone && node.gid() != 0).then(|| node.gid())
}

/// A launched process on its way to a VMM.
struct Attempt<'a> {
    context: &'a Context,
    process: Pidfd,
    barrier: Option<Barrier>,
    /// Whether PID 1 was asked for a scope and has not said no.
    scope: bool,
    /// What was noted before.
    last: Option<Run>,
}

impl<'a> Attempt<'a> {
    fn new(context: &'a Context, launched: Launched, last: Option<Run>) -> Self {
        Self {
            context,
            process: launched.pidfd,
            barrier: Some(launched.barrier),
            scope: false,
            last,
        }
    }

    /// May be dropped at any await: [`Self::undo`] then knows what there is.
    async fn steps(
        &mut self,
        call: &Call,
        slot: &mut LockedSlot<'_>,
        options: &Options,
    ) -> HelperResult<OwnedFd> {
        hit("launch.spawned").await?;
        self.ready(slot.slot).await?;
        hit("launch.ready").await?;
        self.enclose(call, slot, options).await?;
        hit("launch.scope").await?;
        self.note(slot, options).await?;
        hit("launch.noted").await?;
        self.release().await?;
        hit("launch.released").await?;
        let process = self.process.as_fd().try_clone_to_owned();
        let process = process.map_err(|e| failed("Cannot copy the VMM's descriptor", &e))?;
        let watched = Pidfd::open(self.process.pid()).map_err(|e| failed("Cannot watch the VMM", &e))?;
        tell_launch(slot, options);
        tokio::spawn(watch(slot.slot, watched));
        Ok(process)
    }

    async fn ready(&mut self, slot: Slot) -> HelperResult<()> {
        let barrier = self.barrier.as_mut().ok_or_else(used_up)?;
        let ready = tokio::time::timeout(PREPARE_LIMIT, barrier.ready()).await;
        let enforcement = ready.map_err(|_| too_slow())?.map_err(|e| launch_error(&e))?;
        if enforcement != Enforcement::Full {
            let text =
                format!("Landlock confines the VMM of slot {slot} in part or not at all ({enforcement:?})");
            journal::say(Priority::Warning, &text, &[]);
        }
        Ok(())
    }

    async fn enclose(&mut self, call: &Call, slot: &LockedSlot<'_>, options: &Options) -> HelperResult<()> {
        let spec = scope::ScopeSpec {
            slot: slot.slot,
            owner: slot.owner,
            controller: &call.name,
            name: &options.name,
            memory_mib: options.memory_mib,
            emulated: options.accelerator == Accelerator::Tcg,
            opens_tap: options.engine == LaunchEngine::Firecracker,
            process: &self.process,
        };
        self.scope = true;
        let started = scope::start(&self.context.systemd, &spec).await;
        if let Err(scope::ScopeError::Exists(_)) = &started {
            // Somebody else's, then.
            self.scope = false;
        }
        Ok(started?)
    }

    async fn note(&self, slot: &mut LockedSlot<'_>, options: &Options) -> HelperResult<()> {
        let process = ProcessIdentity::of(self.process.pid());
        let process = process.map_err(|e| failed("Cannot identify the VMM", &e))?;
        let invocation = self.context.systemd.invocation(slot.slot).await;
        let invocation = invocation.map_err(|e| failed("Cannot identify the VMM's scope", &e))?;
        let invocation = invocation
            .ok_or_else(|| HelperError::new(ErrorKind::EngineFailed, "The VMM's scope has ended at once"))?;
        let run = Run {
            process,
            invocation: invocation.iter().map(|byte| format!("{byte:02x}")).collect(),
            name: options.name.clone(),
        };
        Ok(slot.note(Some(run)).await?)
    }

    async fn release(&mut self) -> HelperResult<()> {
        let barrier = self.barrier.take().ok_or_else(used_up)?;
        let released = tokio::time::timeout(PREPARE_LIMIT, barrier.release()).await;
        released.map_err(|_| too_slow())?.map_err(|e| launch_error(&e))
    }

    /// Whatever fails here is repaired by the next look at what is.
    async fn undo(mut self, slot: &mut LockedSlot<'_>) {
        // Without its barrier it ends by itself, unless it is the VMM already. It is not
        // signalled: another uid's process takes none from here.
        drop(self.barrier.take());
        if self.scope {
            let ended = self.context.systemd.end(slot.slot).await;
            note_failure(ended);
        }
        let _ = tokio::time::timeout(END_LIMIT, self.process.exited()).await;
        note_failure(slot.note(self.last).await);
    }
}

fn tell_launch(slot: &LockedSlot<'_>, options: &Options) {
    let text = format!(
        "Launched VM {} of user {} in slot {}",
        options.name, slot.owner, slot.slot
    );
    let owner = slot.owner.to_string();
    let fields = [("BANGER_VM", options.name.as_str()), ("BANGER_OWNER", &owner)];
    journal::tell_of(slot.slot, Event::VmmLaunched, &text, &fields);
}

/// Reaps the VMM, and says how it ended. It does not keep the helper from leaving: then PID 1
/// reaps it.
async fn watch(slot: Slot, process: Pidfd) {
    let how = match process.exited().await {
        Ok(Exit::Code(code)) => format!("with status {code}"),
        Ok(Exit::Signal(signal)) => format!("by signal {signal}"),
        Ok(Exit::Unknown) => "in a way that is not known".to_owned(),
        Err(_) => return,
    };
    let number = slot.to_string();
    let text = format!("The VMM of slot {slot} has ended {how}");
    journal::say(Priority::Info, &text, &[("BANGER_SLOT", &number)]);
}

fn note_failure<E: std::error::Error>(result: Result<(), E>) {
    if let Err(error) = result {
        journal::say(Priority::Warning, &chain(&error), &[]);
    }
}

fn launch_error(error: &LaunchError) -> HelperError {
    HelperError::new(ErrorKind::EngineFailed, chain(error))
}

fn failed(what: &str, error: &dyn std::error::Error) -> HelperError {
    HelperError::new(ErrorKind::Failed, format!("{what}: {}", chain(error)))
}

fn too_slow() -> HelperError {
    failed(
        "The VMM's process is not ready",
        &io::Error::from(io::ErrorKind::TimedOut),
    )
}

fn used_up() -> HelperError {
    HelperError::new(ErrorKind::Failed, "The VMM was released already")
}
