//! `org.banger.VM`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use banger_bus::api::{Caller, JobPath, VmApi};
use banger_bus::{
    CopyOptions, DeleteOptions, Error, ErrorKind, ExecOptions, JobOutcome, ListeningPort, LogOptions, Result,
    SetOptions, StartOptions, StopOptions, VmInfo, WorkspaceExportOptions, WorkspaceOptions, path,
};
use banger_model::VmName;
use banger_model::name::NameError;
use zbus::OwnedObjectPath;

use super::log;
use super::services::Services;
use crate::copy::{self, Copy};
use crate::core::Vm;
use crate::guest::exec::{self, Command};
use crate::guest::{Agent, figures};
use crate::stats;
use crate::workspace::{self, Export};

/// The longest time that a client may give a guest, in seconds.
const MAX_TIMEOUT: u32 = 86_400;

/// One VM on the bus.
pub(super) struct VmEntry {
    vm: Arc<Vm>,
    services: Arc<Services>,
}

impl VmEntry {
    pub(super) fn new(vm: &Arc<Vm>, services: &Arc<Services>) -> Self {
        Self {
            vm: vm.clone(),
            services: services.clone(),
        }
    }

    fn path(&self) -> OwnedObjectPath {
        path::vm(&self.vm.id().to_string())
    }

    /// The connection to the guest's agent.
    fn way_in(&self) -> Result<Arc<Agent>> {
        let address = self.vm.agent()?;
        self.services
            .agents
            .get(self.vm.id(), address, self.services.key()?)
    }

    /// A guest without the owner's key could not be entered.
    fn check_owner(&self) -> Result<()> {
        self.services.config.read()?;
        self.services.key().map(drop)
    }
}

#[async_trait]
impl VmApi for VmEntry {
    fn info(&self) -> VmInfo {
        self.vm.info()
    }

    async fn start(&self, caller: Caller, options: StartOptions) -> Result<JobPath> {
        self.check_owner()?;
        let (vm, limit) = (self.vm.clone(), seconds(options.timeout)?);
        self.services
            .jobs
            .start("start", caller, self.path(), |ctx| async move {
                vm.start(&ctx, limit).await?;
                Ok(JobOutcome::done())
            })
            .await
    }

    async fn stop(&self, caller: Caller, options: StopOptions) -> Result<JobPath> {
        let (vm, limit) = (self.vm.clone(), seconds(options.timeout)?);
        self.services
            .jobs
            .start("stop", caller, self.path(), |ctx| async move {
                vm.stop(&ctx, limit).await?;
                Ok(JobOutcome::done())
            })
            .await
    }

    async fn restart(&self, caller: Caller, options: StopOptions) -> Result<JobPath> {
        self.check_owner()?;
        let (vm, limit) = (self.vm.clone(), seconds(options.timeout)?);
        self.services
            .jobs
            .start("restart", caller, self.path(), |ctx| async move {
                vm.restart(&ctx, limit, None).await?;
                Ok(JobOutcome::done())
            })
            .await
    }

    async fn kill(&self, caller: Caller) -> Result<JobPath> {
        let vm = self.vm.clone();
        self.services
            .jobs
            .start("kill", caller, self.path(), |ctx| async move {
                vm.kill(&ctx).await?;
                Ok(JobOutcome::done())
            })
            .await
    }

    async fn delete(&self, caller: Caller, options: DeleteOptions) -> Result<JobPath> {
        let (vm, force) = (self.vm.clone(), options.force.unwrap_or(false));
        self.services
            .jobs
            .start("delete", caller, self.path(), |ctx| async move {
                vm.delete(&ctx, force).await?;
                Ok(JobOutcome::done())
            })
            .await
    }

    async fn pause(&self) -> Result<()> {
        self.vm.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.vm.resume().await
    }

    async fn exec(
        &self,
        caller: Caller,
        argv: Vec<String>,
        options: ExecOptions,
        stdio: [OwnedFd; 3],
    ) -> Result<JobPath> {
        let there = self.vm.workspace().filter(|_| workspace::is_wanted(&options));
        let (argv, options) = match &there {
            Some(there) => workspace::within(there, argv, options),
            None => (argv, options),
        };
        let is_shell = options.shell == Some(true);
        let command = Command::new(&argv, options, &self.vm.spec().process)?;
        let agent = self.way_in()?;
        if let Some(there) = there.filter(|_| is_shell) {
            workspace::bootstrap(agent.clone(), there);
        }
        self.services
            .jobs
            .start_process("exec", caller, self.path(), |ctx, requests| {
                exec::run(agent, ctx, requests, command, stdio)
            })
            .await
    }

    async fn prepare_workspace(
        &self,
        caller: Caller,
        path: String,
        options: WorkspaceOptions,
    ) -> Result<JobPath> {
        let request = workspace::Request::new(path, options)?;
        let (vm, agent) = (self.vm.clone(), self.way_in()?);
        self.services
            .jobs
            .start("prepare-workspace", caller, self.path(), |ctx| async move {
                workspace::prepare(&vm, agent, request, &ctx).await
            })
            .await
    }

    async fn check_workspace(&self) -> Result<(bool, String)> {
        workspace::check(&self.vm.expect_workspace()?).await
    }

    async fn export_workspace(&self, caller: Caller, options: WorkspaceExportOptions) -> Result<JobPath> {
        let export = Export::new(options)?;
        self.vm.expect_workspace()?;
        let (vm, agent) = (self.vm.clone(), self.way_in()?);
        self.services
            .jobs
            .start("export-workspace", caller, self.path(), |ctx| async move {
                workspace::export(&vm, agent, export, &ctx).await
            })
            .await
    }

    async fn publish_port(&self, guest: u16, host: u16) -> Result<u16> {
        let info = self.vm.info();
        if host != 0 && info.published_ports.contains(&(host, guest)) {
            return Ok(host);
        }
        // Before the port itself is tried, which one of ours may hold.
        self.vm.check_port(guest, host)?;
        let reserved = self.services.ports.reserve(self.vm.id(), host)?;
        self.vm.publish_port(guest, reserved.host).await?;
        Ok(reserved.host)
    }

    async fn unpublish_port(&self, host: u16) -> Result<()> {
        self.vm.unpublish_port(host).await
    }

    async fn set(&self, options: SetOptions) -> Result<Vec<String>> {
        self.vm.set(options).await
    }

    async fn rename(&self, name: String) -> Result<()> {
        let name: VmName = name
            .parse()
            .map_err(|error: NameError| Error::new(ErrorKind::InvalidArgument, error.to_string()))?;
        self.vm.rename(name).await
    }

    async fn list_ports(&self) -> Result<Vec<ListeningPort>> {
        let sockets = figures::sockets(&self.way_in()?).await?;
        Ok(stats::rows(sockets))
    }

    async fn stats(&self) -> Result<HashMap<String, u64>> {
        let measured = self.vm.measured()?;
        // A guest that is not up, or is halted, has no say.
        Ok(stats::figures(measured, self.way_in().ok()).await)
    }

    async fn copy_in(
        &self,
        caller: Caller,
        source: String,
        target: String,
        options: CopyOptions,
    ) -> Result<JobPath> {
        let copy = Copy::new(&source, &copy::in_guest(&target), options.follow.unwrap_or(false))?;
        let agent = self.way_in()?;
        self.services
            .jobs
            .start("copy-in", caller, self.path(), |ctx| copy.into_guest(agent, ctx))
            .await
    }

    async fn copy_out(
        &self,
        caller: Caller,
        source: String,
        target: String,
        options: CopyOptions,
    ) -> Result<JobPath> {
        let copy = Copy::new(&copy::in_guest(&source), &target, options.follow.unwrap_or(false))?;
        let agent = self.way_in()?;
        self.services
            .jobs
            .start("copy-out", caller, self.path(), |ctx| {
                copy.out_of_guest(agent, ctx)
            })
            .await
    }

    async fn open_log(&self, caller: Caller, options: LogOptions) -> Result<OwnedFd> {
        log::open(&self.services, &self.vm, caller, options).await
    }
}

fn seconds(timeout: Option<u32>) -> Result<Option<Duration>> {
    match timeout {
        Some(seconds) if !(1..=MAX_TIMEOUT).contains(&seconds) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("Not a time limit: {seconds} s (1 to {MAX_TIMEOUT})"),
        )),
        timeout => Ok(timeout.map(|seconds| Duration::from_secs(seconds.into()))),
    }
}
