//! From the parts of a machine to the process that runs it: by this daemon, or by the helper.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use banger_bus::helper::{FileRole, LaunchOptions};
use banger_bus::{Error, ErrorKind};
use banger_model::Slot;
use banger_model::guest::{AGENT_PORT, ROOT_SERIAL};
use banger_store::{HeldSlot, VmRecord, VmmProcess};
use banger_sys::launch::Launched;
use banger_sys::pidfd::{Pidfd, ProcessIdentity};
use banger_vmm::{Accelerator, Channels, ConsoleSink, Engine, MachineSpec};

use super::access::{Right, grant};
use super::capability::{Slots, blocking, tail};
use super::engine::Chosen;
use super::machine::{self, Killer, Machine};
use super::steps::Run;
use super::vm::now_us;
use super::{ended, error};
use crate::fail_point::fail_point;
use crate::systemd::ScopeSpec;

impl Run<'_> {
    /// Starts the VMM and has it watched.
    pub(super) async fn launch(&self) -> Result<(), Error> {
        let record = self.vm.record();
        let chosen = self.site(&record).chosen().await?;
        let parts = self.parts.take();
        let machine = match record.slot {
            None => self.launch_here(&record, &chosen, parts).await?,
            Some(held) => self.launch_by_helper(&record, held, &chosen, parts).await?,
        };
        self.vm.set_machine(Some(machine.clone()));
        machine::spawn_watch(self.vm, machine, false);
        fail_point!("start.released");
        Ok(())
    }

    async fn launch_here(
        &self,
        record: &VmRecord,
        chosen: &Chosen,
        parts: Slots,
    ) -> Result<Arc<Machine>, Error> {
        let core = self.vm.core();
        let plan = chosen
            .engine
            .plan(machine_spec(record, chosen, parts)?)
            .map_err(|e| Error::new(ErrorKind::EngineFailed, error::chain(&e)))?;
        fail_point!("start.planned");
        self.ctx.check()?;
        let launched = plan.launch(core.launcher()).map_err(|e| error::launch(&e))?;
        let pid = launched.pid;
        match self.release(launched, record, chosen).await {
            Ok(machine) => Ok(machine),
            Err((e, unit)) => {
                tracing::debug!(pid, error = %e, "The launcher was given up");
                core.runner().gone(&unit).await;
                self.forget_launch().await;
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
            self.note_engine(chosen).await?;
            self.note_launch(identity, None).await?;
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
            Ok(()) => Ok(Machine::new(pidfd, Killer::Signal)),
            Err(e) => {
                // Without its barrier it ends by itself, unless it is the VMM already.
                let _ = pidfd.send_signal(rustix::process::Signal::KILL);
                let _ = pidfd.exited().await;
                Err((e, unit))
            }
        }
    }

    /// The slot is noted before the process exists: a daemon that dies in between leaves a slot
    /// by which the next one finds the process.
    async fn launch_by_helper(
        &self,
        record: &VmRecord,
        held: HeldSlot,
        chosen: &Chosen,
        parts: Slots,
    ) -> Result<Arc<Machine>, Error> {
        let helper = self.vm.core().helper();
        let files = files(record, chosen, held.slot, parts).await?;
        self.note_engine(chosen).await?;
        fail_point!("start.planned");
        self.ctx.check()?;
        let options = options(record, chosen);
        let process = helper.launch(held.handle, options, files).await?;
        let launched = async {
            fail_point!("start.spawned");
            let process = Pidfd::from_fd(process).map_err(|_| self.ended_at_once(record))?;
            let identity = ProcessIdentity::of(process.pid()).map_err(|_| self.ended_at_once(record))?;
            self.note_launch(identity, Some(held.slot)).await?;
            fail_point!("start.recorded");
            Ok(process)
        };
        match launched.await {
            Ok(process) => Ok(Machine::new(process, Killer::of(helper, held))),
            Err(e) => {
                // Giving the slot back, which follows, ends it too.
                if let Err(failure) = helper.kill(held.handle).await {
                    tracing::debug!(%failure, "A VMM that was given up was not killed");
                }
                self.forget_launch().await;
                Err(e)
            }
        }
    }

    fn ended_at_once(&self, record: &VmRecord) -> Error {
        let words = tail(&self.vm.core().paths(record.id).vmm_log());
        Error::new(
            ErrorKind::EngineFailed,
            format!("The VMM ended at once{}", ended::last_words(&words)),
        )
    }

    async fn note_engine(&self, chosen: &Chosen) -> Result<(), Error> {
        self.vm
            .change(|record| {
                record.engine = chosen.name.to_owned();
                record.accelerator = chosen.accelerator_name().to_owned();
                record.ssh_port = 0;
                record.init.clear();
                record.ready_us = 0;
            })
            .done()
            .await
    }

    async fn note_launch(&self, process: ProcessIdentity, slot: Option<Slot>) -> Result<(), Error> {
        self.vm
            .change(|record| note_process(record, process, slot))
            .done()
            .await
    }

    async fn forget_launch(&self) {
        self.vm
            .change(|record| {
                record.vmm = None;
                record.unit.clear();
                record.ssh_port = 0;
            })
            .noted()
            .await;
    }
}

/// Writes a VMM down. In a slot everything but its process is known beforehand.
pub(super) fn note_process(record: &mut VmRecord, process: ProcessIdentity, slot: Option<Slot>) {
    record.vmm = Some(VmmProcess {
        pid: process.pid,
        start_time: process.start_time,
        boot_id: process.boot_id,
    });
    record.started_us = now_us();
    if let Some(slot) = slot {
        record.unit = slot.unit();
        record.ssh_port = AGENT_PORT;
    }
}

fn missing(record: &VmRecord, part: &str) -> Error {
    Error::new(
        ErrorKind::Failed,
        format!("VM {} was not prepared: no {part}", record.spec.name),
    )
}

fn machine_spec(record: &VmRecord, chosen: &Chosen, parts: Slots) -> Result<MachineSpec, Error> {
    let missing = |part: &str| missing(record, part);
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

fn options(record: &VmRecord, chosen: &Chosen) -> LaunchOptions {
    let id = u128::from_be_bytes(*record.id.as_bytes());
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    let halves = ((id >> 64) as u64, id as u64);
    LaunchOptions {
        engine: Some(chosen.number().number()),
        emulated: Some(chosen.accelerator == Accelerator::Tcg),
        vcpus: Some(record.spec.vcpus),
        memory_mib: Some(record.spec.memory_mib),
        id: Some(halves),
        name: Some(record.spec.name.to_string()),
    }
}

/// The descriptors for the helper. What the VMM opens anew by its descriptor it is let open.
async fn files(
    record: &VmRecord,
    chosen: &Chosen,
    slot: Slot,
    parts: Slots,
) -> Result<Vec<(FileRole, OwnedFd)>, Error> {
    let missing = |part: &str| missing(record, part);
    let kernel: OwnedFd = parts.kernel.ok_or_else(|| missing("kernel"))?.into();
    let initrd = parts.initrd.ok_or_else(|| missing("initramfs"))?;
    let root_disk = parts.root_disk.ok_or_else(|| missing("root disk"))?;
    let console = match parts.console.ok_or_else(|| missing("console"))? {
        ConsoleSink::Stream(console) | ConsoleSink::File(console) => console,
    };
    let log = parts.stderr.ok_or_else(|| missing("log"))?;
    let mut opened_anew = vec![("kernel", copy(&kernel)?, Right::Read)];
    if chosen.opens_disks_anew() {
        opened_anew.push(("root disk", copy(&root_disk)?, Right::ReadWrite));
    }
    blocking(move || {
        for (what, file, right) in opened_anew {
            grant(&file, slot, right).map_err(|e| no_right(what, &e))?;
        }
        Ok(())
    })
    .await?;
    let mut files = vec![
        (FileRole::Kernel, kernel),
        (FileRole::Initrd, initrd),
        (FileRole::RootDisk, root_disk),
        (FileRole::Console, console),
        (FileRole::Log, log),
    ];
    files.extend(parts.control.map(|fd| (FileRole::Control, fd)));
    files.extend(parts.monitor.map(|fd| (FileRole::Monitor, fd)));
    files.extend(parts.directory.map(|fd| (FileRole::Directory, fd)));
    Ok(files)
}

fn copy(file: &OwnedFd) -> Result<File, Error> {
    file.as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(|e| error::failed("Cannot copy a descriptor", &e))
}

fn no_right(what: &str, error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Failed,
        format!("Cannot let the VMM open its {what}: {error}"),
    )
    .hint("Images, kernels and VMs must be your own files, on a file system with access control lists (acl(5)).")
}
