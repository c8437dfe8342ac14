//! A manager and a VM for tests of the bus: each answers as little as it can.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use banger_bus::api::{Caller, ImageApi, JobPath, KernelApi, ManagerApi, VmApi};
use banger_bus::{
    CopyOptions, CreateOptions, DeleteOptions, Error, ErrorKind, ExecOptions, ExportOptions, ImageInfo,
    ImportKernelOptions, JobOutcome, KernelInfo, ListeningPort, LogOptions, PruneOptions, PullOptions,
    RegisterOptions, Result, SetOptions, StartOptions, StopOptions, VmInfo, WorkspaceExportOptions,
    WorkspaceOptions, path,
};
use tokio::sync::mpsc;
use zbus::connection::Builder;
use zbus::{Connection, OwnedObjectPath};

use super::Bus;
use crate::core::progress::JobContext;
use crate::jobs::{Jobs, no_object};

/// Gives the context of each job that it starts, and lets the job end as it is told.
pub(super) struct FakeManager {
    pub(super) jobs: Jobs,
    pub(super) started: mpsc::UnboundedSender<Started>,
}

pub(super) struct Started {
    pub(super) ctx: JobContext,
    pub(super) end: tokio::sync::oneshot::Sender<Result<JobOutcome>>,
}

pub(crate) struct FakeVm(pub(crate) Mutex<VmInfo>);

pub(super) struct FakeImage;

pub(super) struct FakeKernel;

/// A hub with a manager, and where its jobs arrive.
pub(super) fn hub() -> (Bus, mpsc::UnboundedReceiver<Started>) {
    let bus = Bus::new();
    let (started, jobs) = mpsc::unbounded_channel();
    bus.manage(Arc::new(FakeManager {
        jobs: Jobs::new(bus.clone()),
        started,
    }));
    (bus, jobs)
}

/// A client of the private socket.
pub(crate) async fn client(bus: &Bus) -> Connection {
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(bus.serve_client(ours));
    Builder::unix_stream(theirs).p2p().build().await.unwrap()
}

pub(crate) fn vm(name: &str) -> VmInfo {
    VmInfo {
        id: "30313233343536373839616263646566".to_owned(),
        name: name.to_owned(),
        state: "stopped".to_owned(),
        stop_reason: "never-started".to_owned(),
        state_detail: String::new(),
        image: "image".to_owned(),
        kernel: "kernel".to_owned(),
        engine: String::new(),
        accelerator: String::new(),
        vcpus: 1,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        network: "public".to_owned(),
        labels: BTreeMap::new(),
        address: String::new(),
        ssh_port: 0,
        host_key: String::new(),
        pid: 0,
        unit: String::new(),
        directory: String::new(),
        init: String::new(),
        workspace: String::new(),
        workspace_path: String::new(),
        workspace_commit: String::new(),
        workspace_mode: String::new(),
        published_ports: Vec::new(),
        created_us: 1,
        started_us: 0,
        ready_us: 0,
    }
}

fn no<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Failed, "Not in this test"))
}

#[async_trait]
impl ManagerApi for FakeManager {
    fn version(&self) -> String {
        "0".to_owned()
    }

    fn commit(&self) -> String {
        "0".to_owned()
    }

    fn mode(&self) -> String {
        "user".to_owned()
    }

    async fn create_vm(&self, caller: Caller, _: String, _: CreateOptions) -> Result<JobPath> {
        let started = self.started.clone();
        self.jobs
            .start_process("create", caller, no_object(), |ctx, _requests| async move {
                let (end, ended) = tokio::sync::oneshot::channel();
                started.send(Started { ctx, end }).unwrap();
                ended.await.unwrap()
            })
            .await
    }

    async fn look_up_vm(&self, name: String) -> Result<OwnedObjectPath> {
        Err(Error::new(ErrorKind::NoSuchVm, format!("No such VM: {name:?}")))
    }

    async fn pull_image(&self, _: Caller, _: String, _: PullOptions) -> Result<JobPath> {
        no()
    }

    async fn register_image(&self, _: Caller, _: String, _: String, _: RegisterOptions) -> Result<JobPath> {
        no()
    }

    async fn look_up_image(&self, _: String) -> Result<OwnedObjectPath> {
        no()
    }

    async fn prune_images(&self, _: Caller, _: PruneOptions) -> Result<JobPath> {
        no()
    }

    async fn pull_kernel(&self, _: Caller, _: String, _: PullOptions) -> Result<JobPath> {
        no()
    }

    async fn import_kernel(
        &self,
        _: Caller,
        _: String,
        _: String,
        _: ImportKernelOptions,
    ) -> Result<JobPath> {
        no()
    }

    async fn look_up_kernel(&self, _: String) -> Result<OwnedObjectPath> {
        no()
    }

    async fn list_available(&self, _: String) -> Result<Vec<(String, String)>> {
        no()
    }

    async fn defaults(&self) -> Result<Vec<(String, String, String)>> {
        no()
    }

    async fn list_workspace(&self, _: Caller, _: String, _: WorkspaceOptions, _: OwnedFd) -> Result<JobPath> {
        no()
    }
}

#[async_trait]
impl VmApi for FakeVm {
    fn info(&self) -> VmInfo {
        self.0.lock().unwrap().clone()
    }

    async fn start(&self, _: Caller, _: StartOptions) -> Result<JobPath> {
        no()
    }

    async fn stop(&self, _: Caller, _: StopOptions) -> Result<JobPath> {
        no()
    }

    async fn restart(&self, _: Caller, _: StopOptions) -> Result<JobPath> {
        no()
    }

    async fn kill(&self, _: Caller) -> Result<JobPath> {
        no()
    }

    async fn delete(&self, _: Caller, _: DeleteOptions) -> Result<JobPath> {
        no()
    }

    async fn pause(&self) -> Result<()> {
        no()
    }

    async fn resume(&self) -> Result<()> {
        no()
    }

    async fn exec(&self, _: Caller, _: Vec<String>, _: ExecOptions, _: [OwnedFd; 3]) -> Result<JobPath> {
        no()
    }

    async fn open_log(&self, _: Caller, _: LogOptions) -> Result<OwnedFd> {
        no()
    }

    async fn prepare_workspace(&self, _: Caller, _: String, _: WorkspaceOptions) -> Result<JobPath> {
        no()
    }

    async fn check_workspace(&self) -> Result<(bool, String)> {
        no()
    }

    async fn export_workspace(&self, _: Caller, _: WorkspaceExportOptions) -> Result<JobPath> {
        no()
    }

    async fn copy_in(&self, _: Caller, _: String, _: String, _: CopyOptions) -> Result<JobPath> {
        no()
    }

    async fn copy_out(&self, _: Caller, _: String, _: String, _: CopyOptions) -> Result<JobPath> {
        no()
    }

    async fn list_ports(&self) -> Result<Vec<ListeningPort>> {
        no()
    }

    async fn stats(&self) -> Result<HashMap<String, u64>> {
        no()
    }

    async fn publish_port(&self, _: u16, _: u16) -> Result<u16> {
        no()
    }

    async fn unpublish_port(&self, _: u16) -> Result<()> {
        no()
    }

    async fn set(&self, _: SetOptions) -> Result<Vec<String>> {
        no()
    }

    async fn rename(&self, _: String) -> Result<()> {
        no()
    }
}

#[async_trait]
impl ImageApi for FakeImage {
    fn info(&self) -> ImageInfo {
        ImageInfo {
            name: "image".to_owned(),
            kind: "managed".to_owned(),
            rootfs: String::new(),
            kernel: String::new(),
            size_bytes: 0,
            used_bytes: 0,
            origin: String::new(),
            digest: String::new(),
            reference: String::new(),
            layers: Vec::new(),
            env: BTreeMap::default(),
            user: String::new(),
            working_directory: String::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            labels: BTreeMap::default(),
            created_us: 0,
        }
    }

    async fn delete(&self) -> Result<()> {
        no()
    }

    async fn promote(&self, _: Caller) -> Result<JobPath> {
        no()
    }

    async fn tag(&self, _: String) -> Result<OwnedObjectPath> {
        no()
    }

    async fn export(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        no()
    }

    async fn publish(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        no()
    }
}

#[async_trait]
impl KernelApi for FakeKernel {
    fn info(&self) -> KernelInfo {
        KernelInfo {
            name: "kernel".to_owned(),
            version: String::new(),
            aliases: Vec::new(),
            path: String::new(),
            origin: String::new(),
            digest: String::new(),
            warnings: Vec::new(),
            size_bytes: 0,
            created_us: 0,
        }
    }

    async fn delete(&self) -> Result<()> {
        no()
    }

    async fn export(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        no()
    }

    async fn publish(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        no()
    }
}

/// The path of the VM of [`vm`].
pub(crate) fn vm_path() -> OwnedObjectPath {
    path::vm(&vm("").id)
}
