//! Starting a VM.

use std::sync::Arc;
use std::time::Duration;

use banger_bus::{Error, ErrorKind};
use banger_model::guest::ROOT_SERIAL;
use banger_model::{StopReason, VmState};
use banger_store::{VmRecord, VmmProcess};
use banger_sys::launch::Launched;
use banger_sys::pidfd::ProcessIdentity;
use banger_vmm::{Accelerator, Channels, Engine, MachineSpec};

use super::capability::{Kind, Slots};
use super::engine::Chosen;
use super::error;
use super::machine::{self, Machine, Phase};
use super::plan::Desired;
use super::progress::{JobContext, cancelled};
use super::steps::{Ending, Run};
use super::vm::{Vm, now_us};
use crate::fail_point::fail_point;
use crate::systemd::ScopeSpec;

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

    /// Starts the VMM and has it watched.
    pub(super) async fn launch(&self) -> Result<(), Error> {
        let record = self.vm.record();
        let core = self.vm.core();
        let chosen = core.engines().choose(record.spec.engine).await?;
        let spec = machine_spec(&record, &chosen, self.parts.take())?;
        let plan = chosen
            .engine
            .plan(spec)
            .map_err(|e| Error::new(ErrorKind::EngineFailed, error::chain(&e)))?;
        fail_point!("start.planned");
        self.ctx.check()?;
        let launched = plan.launch(core.launcher()).map_err(|e| error::launch(&e))?;
        let pid = launched.pid;
        match self.release(launched, &record, &chosen).await {
            Ok(machine) => {
                self.vm.set_machine(Some(machine.clone()));
                machine::spawn_watch(self.vm, machine, false);
                fail_point!("start.released");
                Ok(())
            }
            Err((e, unit)) => {
                tracing::debug!(pid, error = %e, "The launcher was given up");
                core.runner().gone(&unit).await;
                self.vm
                    .change(|record| {
                        record.vmm = None;
                        record.unit.clear();
                    })
                    .noted()
                    .await;
                Err(e)
            }
        }
    }

    /// Notes the process, gives it its scope, and lets it become the VMM: in this order, so that
    /// a daemon that dies in between leaves either a note or no process.
    async fn release(
        &self,
        launched: Launched,
        record: &VmRecord,
        chosen: &Chosen,
    ) -> Result<Arc<Machine>, (Error, String)> {
        let Launched { pid, pidfd, barrier } = launched;
        let mut unit = String::new();
        let done = async {
            fail_point!("start.spawned");
            let identity =
                ProcessIdentity::of(pid).map_err(|e| error::failed("Cannot identify the VMM", &e))?;
            self.note_launch(identity, chosen).await?;
            fail_point!("start.recorded");
            let scope = ScopeSpec {
                id: record.id,
                name: record.spec.name.as_str(),
                memory_mib: record.spec.memory_mib,
                emulated: chosen.accelerator == Accelerator::Tcg,
                directory: &self.vm.core().paths(record.id).directory,
                process: &pidfd,
            };
            unit = self.vm.core().runner().enclose(&scope).await?;
            if !unit.is_empty() {
                self.vm
                    .change(|record| record.unit.clone_from(&unit))
                    .noted()
                    .await;
            }
            fail_point!("start.scope");
            barrier.release().await.map_err(|e| error::launch(&e))
        }
        .await;
        match done {
            Ok(()) => Ok(Machine::new(pidfd)),
            Err(e) => {
                // Without its barrier it ends by itself, unless it is the VMM already.
                let _ = pidfd.send_signal(rustix::process::Signal::KILL);
                let _ = pidfd.exited().await;
                Err((e, unit))
            }
        }
    }

    async fn note_launch(&self, process: ProcessIdentity, chosen: &Chosen) -> Result<(), Error> {
        self.vm
            .change(|record| {
                record.vmm = Some(VmmProcess {
                    pid: process.pid,
                    start_time: process.start_time,
                    boot_id: process.boot_id,
                });
                record.engine = chosen.name.to_owned();
                record.accelerator = chosen.accelerator_name().to_owned();
                record.ssh_port = 0;
                record.init.clear();
                record.started_us = now_us();
                record.ready_us = 0;
            })
            .done()
            .await
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
                machine.kill(StopReason::BootTimeout, &detail);
                machine.ended().await;
                return Err(self.not_booted());
            }
        }
        fail_point!("start.ready");
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

fn machine_spec(record: &VmRecord, chosen: &Chosen, parts: Slots) -> Result<MachineSpec, Error> {
    let missing = |part: &str| {
        Error::new(
            ErrorKind::Failed,
            format!("VM {} was not prepared: no {part}", record.spec.name),
        )
    };
    let accelerator: Accelerator = chosen.accelerator;
    Ok(MachineSpec {
        name: record.spec.name.to_string(),
        uuid: *record.id.as_bytes(),
        vcpus: record.spec.vcpus,
        memory_mib: record.spec.memory_mib,
        accelerator,
        machine: chosen.machine,
        kernel: parts.kernel.ok_or_else(|| missing("kernel"))?,
        cmdline: chosen.engine.default_cmdline(accelerator),
        initrd: parts.initrd.ok_or_else(|| missing("initramfs"))?,
        root_disk: parts.root_disk.ok_or_else(|| missing("root disk"))?,
        root_serial: ROOT_SERIAL.to_owned(),
        network: parts.network.ok_or_else(|| missing("network"))?,
        console: parts.console.ok_or_else(|| missing("console"))?,
        channels: Channels::Sockets {
            control: parts.control.ok_or_else(|| missing("control channel"))?,
            monitor: parts.monitor.ok_or_else(|| missing("monitor"))?,
        },
        stderr: parts.stderr.ok_or_else(|| missing("log"))?,
    })
}
