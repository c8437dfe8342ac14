//! A daemon that pretends: canned objects, and VMs whose names say what happens to them. A
//! command "in a guest" is a process of the host.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};

use async_trait::async_trait;
use banger_bus::api::{Caller, ImageApi, JobApi, JobPath, KernelApi, ManagerApi, VmApi};
use banger_bus::{
    CreateOptions, DeleteOptions, Error, ErrorKind, ExecOptions, ExportOptions, ImageInfo, ImageObject,
    ImportKernelOptions, JobInfo, JobObject, JobOutcome, KernelInfo, KernelObject, LogOptions, ManagerObject,
    ProcessObject, PruneOptions, PullOptions, RegisterOptions, Result, SERVICE, StartOptions, StopOptions,
    VmInfo, VmObject, path,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;
use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::{Guid, OwnedObjectPath, fdo};

/// The daemon, and what was asked of it.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    calls: Arc<(Mutex<Vec<String>>, Condvar)>,
    last_job: Arc<Mutex<u32>>,
    left: Arc<Notify>,
}

impl Fake {
    /// Serves clients on a thread of its own, as long as the test runs.
    pub(crate) fn listen(&self, listener: UnixListener) {
        let fake = self.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(fake.serve(listener));
        });
    }

    /// Is on a bus as long as the bus lives. Returns when it has its name there.
    pub(crate) fn join(&self, address: &str) {
        let (fake, address) = (self.clone(), address.to_owned());
        let (there, joined) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let builder = Builder::address(address.as_str()).name(SERVICE);
                let connection = fake.objects(builder).build().await.unwrap();
                there.send(()).unwrap();
                tokio::select! {
                    () = connection.closed() => {}
                    () = fake.left.notified() => connection.close().await.unwrap(),
                }
            });
        });
        joined.recv().unwrap();
    }

    /// Leaves the bus, as a daemon does that is killed.
    pub(crate) fn leave(&self) {
        self.left.notify_one();
    }

    pub(crate) async fn serve(self, listener: UnixListener) {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = stream.into_std().unwrap();
            let fake = self.clone();
            tokio::spawn(async move {
                let builder = Builder::unix_stream(stream).server(Guid::generate()).p2p();
                // A client that leaves during its greeting (a probe) is none.
                if let Ok(connection) = fake.objects(builder).build().await {
                    connection.closed().await;
                }
            });
        }
    }

    /// What was asked so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.0.lock().unwrap().clone()
    }

    /// Waits until something was asked for.
    pub(crate) fn wait_for(&self, call: &str) {
        let (calls, changed) = &*self.calls;
        let calls = calls.lock().unwrap();
        drop(
            changed
                .wait_while(calls, |calls| !calls.iter().any(|made| made.starts_with(call)))
                .unwrap(),
        );
    }

    fn called(&self, call: impl Into<String>) {
        self.calls.0.lock().unwrap().push(call.into());
        self.calls.1.notify_all();
    }

    fn objects<'a>(&self, builder: Builder<'a>) -> Builder<'a> {
        let vm = |name: &str, state: &str, reason: &str| VmObject {
            api: Arc::new(FakeVm {
                fake: self.clone(),
                info: vm_info(name, state, reason),
            }),
        };
        builder
            .serve_at(path::MANAGER, fdo::ObjectManager)
            .serve_at(
                path::MANAGER,
                ManagerObject {
                    api: Arc::new(self.clone()),
                },
            )
            .serve_at(path::vm("a"), vm("a", "running", ""))
            .serve_at(path::vm("b"), vm("b", "stopped", "guest-panic"))
            .serve_at(
                path::vm("boot-fails"),
                vm("boot-fails", "stopped", "boot-timeout"),
            )
            .serve_at(
                path::image("debian-bookworm"),
                ImageObject {
                    api: Arc::new(FakeImage),
                },
            )
            .serve_at(
                path::kernel("6.1"),
                KernelObject {
                    api: Arc::new(FakeKernel),
                },
            )
    }

    /// A job that goes as planned, a moment after its call has returned.
    async fn job(&self, caller: &Caller, operation: &str, plan: Plan) -> Result<JobPath> {
        let id = {
            let mut last = self.last_job.lock().unwrap();
            *last += 1;
            *last
        };
        let job = Arc::new(FakeJob {
            fake: self.clone(),
            id,
            operation: operation.to_owned(),
            stage: Mutex::default(),
            cancelled: Notify::new(),
            pid: Mutex::default(),
        });
        let connection = caller.connection().clone();
        let job_path = path::job(id);
        let server = connection.object_server();
        server.at(&job_path, JobObject { api: job.clone() }).await?;
        server.at(&job_path, ProcessObject { api: job.clone() }).await?;
        let end = job_path.clone();
        tokio::spawn(async move {
            let emitter = SignalEmitter::new(&connection, &end).unwrap();
            let outcome = job.carry_out(plan, &emitter).await;
            // A client that has left hears nothing.
            let _ = outcome.emit(&emitter).await;
            let _ = connection.object_server().remove::<JobObject, _>(&end).await;
        });
        Ok(job_path)
    }
}

/// What a job does.
enum Plan {
    Done(OwnedObjectPath),
    Fail(Error, Option<OwnedObjectPath>),
    UntilCancelled,
    /// Not even then.
    Never,
    Process(Vec<String>, ExecOptions, [OwnedFd; 3]),
}

struct FakeJob {
    fake: Fake,
    id: u32,
    operation: String,
    stage: Mutex<String>,
    cancelled: Notify,
    pid: Mutex<Option<Pid>>,
}

impl FakeJob {
    async fn carry_out(&self, plan: Plan, emitter: &SignalEmitter<'_>) -> JobOutcome {
        if !matches!(plan, Plan::Process(..)) {
            "Working".clone_into(&mut self.stage.lock().unwrap());
            let object = JobObject {
                api: Arc::new(Stage(self.info())),
            };
            object.stage_changed(emitter).await.unwrap();
        }
        match plan {
            Plan::Done(object) => JobOutcome {
                object: Some(object),
                ..JobOutcome::done()
            },
            Plan::Fail(error, object) => JobOutcome {
                object,
                ..JobOutcome::failed(error)
            },
            Plan::UntilCancelled => {
                self.cancelled.notified().await;
                JobOutcome::failed(Error::new(ErrorKind::Cancelled, "Cancelled"))
            }
            Plan::Never => std::future::pending().await,
            Plan::Process(argv, options, stdio) => self.process(&argv, &options, stdio).await,
        }
    }

    async fn process(&self, argv: &[String], options: &ExecOptions, stdio: [OwnedFd; 3]) -> JobOutcome {
        let [stdin, stdout, stderr] = stdio;
        let shell = ["sh".to_owned()];
        let argv = if options.shell == Some(true) {
            &shell[..]
        } else {
            argv
        };
        let mut command = tokio::process::Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .envs(options.env.iter().flatten())
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return JobOutcome {
                    exit_status: Some(127),
                    ..JobOutcome::done()
                };
            }
            Err(e) => return JobOutcome::failed(Error::new(ErrorKind::NotExecutable, e.to_string())),
        };
        // The command keeps copies of its streams, and only it may.
        drop(command);
        *self.pid.lock().unwrap() = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        self.fake.called(format!("process {:?}", options.terminal_size));
        let status = child.wait().await.unwrap();
        JobOutcome {
            exit_status: status.code().or(status.signal().map(|signal| 128 + signal)),
            signal: (status.signal() == Some(15)).then(|| "TERM".to_owned()),
            ..JobOutcome::done()
        }
    }
}

#[async_trait]
impl JobApi for FakeJob {
    fn info(&self) -> JobInfo {
        JobInfo {
            id: self.id,
            operation: self.operation.clone(),
            object: path::vm("a"),
            stage: self.stage.lock().unwrap().clone(),
            fraction: -1.0,
            message: String::new(),
            parts: Vec::new(),
        }
    }

    fn cancel(&self) {
        self.fake.called("cancel");
        self.cancelled.notify_one();
    }

    async fn signal(&self, name: String) -> Result<()> {
        let signal = match name.as_str() {
            "INT" => Signal::INT,
            "TERM" => Signal::TERM,
            "QUIT" => Signal::QUIT,
            _ => return Err(Error::new(ErrorKind::InvalidArgument, name)),
        };
        let pid = *self.pid.lock().unwrap();
        if let Some(pid) = pid {
            kill_process(pid, signal).unwrap();
        }
        self.fake.called(format!("signal {name}"));
        if pid.is_none() {
            // The guest hangs.
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        self.fake.called(format!("resize {columns} {rows}"));
        Ok(())
    }
}

/// A job as it was at a moment.
struct Stage(JobInfo);

#[async_trait]
impl JobApi for Stage {
    fn info(&self) -> JobInfo {
        self.0.clone()
    }

    fn cancel(&self) {}

    async fn signal(&self, _: String) -> Result<()> {
        Ok(())
    }

    async fn resize(&self, _: u32, _: u32) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl ManagerApi for Fake {
    fn version(&self) -> String {
        "0.0.1".to_owned()
    }

    fn commit(&self) -> String {
        "abc".to_owned()
    }

    fn mode(&self) -> String {
        "user".to_owned()
    }

    async fn create_vm(&self, caller: Caller, name: String, options: CreateOptions) -> Result<JobPath> {
        self.called(format!(
            "create {name} start={:?} vcpus={:?}",
            options.start, options.vcpus
        ));
        let plan = match name.as_str() {
            "taken" => {
                return Err(Error::new(ErrorKind::VmExists, "There is a VM \"taken\" already")
                    .hint("Choose another name"));
            }
            "slow" => Plan::UntilCancelled,
            "stuck" => Plan::Never,
            "boot-fails" => Plan::Fail(
                Error::new(
                    ErrorKind::BootFailed,
                    "The guest of \"boot-fails\" never became ready",
                ),
                Some(path::vm("boot-fails")),
            ),
            "no-space" => Plan::Fail(Error::new(ErrorKind::NoSpace, "No space").hint("Make some"), None),
            _ => Plan::Done(path::vm("a")),
        };
        self.job(&caller, "create", plan).await
    }

    async fn look_up_vm(&self, name: String) -> Result<OwnedObjectPath> {
        match name.as_str() {
            "a" | "b" | "boot-fails" => Ok(path::vm(&name)),
            id if id == vm_id("b") => Ok(path::vm("b")),
            id if id == vm_id("boot-fails") => Ok(path::vm("boot-fails")),
            _ => Err(
                Error::new(ErrorKind::NoSuchVm, format!("No VM is called {name:?}"))
                    .hint("`banger vm list -a` shows all"),
            ),
        }
    }

    async fn pull_image(&self, caller: Caller, name: String, options: PullOptions) -> Result<JobPath> {
        self.called(format!("pull {name} force={:?}", options.force));
        self.job(&caller, "pull-image", Plan::Done(path::image(&name)))
            .await
    }

    async fn register_image(
        &self,
        caller: Caller,
        name: String,
        rootfs: String,
        options: RegisterOptions,
    ) -> Result<JobPath> {
        self.called(format!("register {name} {rootfs} {:?}", options.kernel_file));
        self.job(&caller, "register", Plan::Done(path::image(&name)))
            .await
    }

    async fn look_up_image(&self, name: String) -> Result<OwnedObjectPath> {
        Ok(path::image(&name))
    }

    async fn prune_images(&self, _: Caller, _: PruneOptions) -> Result<JobPath> {
        not_here()
    }

    async fn pull_kernel(&self, caller: Caller, name: String, _: PullOptions) -> Result<JobPath> {
        self.job(&caller, "pull-kernel", Plan::Done(path::kernel(&name)))
            .await
    }

    async fn import_kernel(
        &self,
        caller: Caller,
        name: String,
        file: String,
        _: ImportKernelOptions,
    ) -> Result<JobPath> {
        self.called(format!("import {name} {file}"));
        self.job(&caller, "import-kernel", Plan::Done(path::kernel(&name)))
            .await
    }

    async fn look_up_kernel(&self, name: String) -> Result<OwnedObjectPath> {
        Ok(path::kernel(&name))
    }

    async fn list_available(&self, kind: String) -> Result<Vec<(String, String)>> {
        Ok(vec![("debian-minimal".to_owned(), format!("One of the {kind}"))])
    }

    async fn defaults(&self) -> Result<Vec<(String, String, String)>> {
        let row = |key: &str, value: &str| (key.to_owned(), value.to_owned(), "built in".to_owned());
        Ok(vec![
            row("vcpu", "4"),
            row("memory", "8G"),
            row("disk_size", "8G"),
        ])
    }
}

struct FakeVm {
    fake: Fake,
    info: VmInfo,
}

impl FakeVm {
    async fn does(&self, caller: Caller, what: &str) -> Result<JobPath> {
        let name = &self.info.name;
        self.fake.called(format!("{what} {name}"));
        let plan = if what == "start" && name == "b" {
            Plan::Fail(
                Error::new(ErrorKind::WrongState, "The VM \"b\" cannot be started"),
                None,
            )
        } else {
            Plan::Done(path::vm(name))
        };
        self.fake.job(&caller, what, plan).await
    }
}

#[async_trait]
impl VmApi for FakeVm {
    fn info(&self) -> VmInfo {
        self.info.clone()
    }

    async fn start(&self, caller: Caller, _: StartOptions) -> Result<JobPath> {
        self.does(caller, "start").await
    }

    async fn stop(&self, caller: Caller, _: StopOptions) -> Result<JobPath> {
        self.does(caller, "stop").await
    }

    async fn restart(&self, caller: Caller, _: StopOptions) -> Result<JobPath> {
        self.does(caller, "restart").await
    }

    async fn kill(&self, caller: Caller) -> Result<JobPath> {
        self.does(caller, "kill").await
    }

    async fn delete(&self, caller: Caller, options: DeleteOptions) -> Result<JobPath> {
        self.does(caller, &format!("delete force={:?}", options.force))
            .await
    }

    async fn pause(&self) -> Result<()> {
        self.fake.called("pause");
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        Ok(())
    }

    async fn exec(
        &self,
        caller: Caller,
        argv: Vec<String>,
        options: ExecOptions,
        stdio: [OwnedFd; 3],
    ) -> Result<JobPath> {
        let plan = if argv == ["hang"] {
            self.fake.called("hang");
            Plan::Never
        } else {
            Plan::Process(argv, options, stdio)
        };
        self.fake.job(&caller, "exec", plan).await
    }

    async fn open_log(&self, _: Caller, options: LogOptions) -> Result<OwnedFd> {
        self.fake
            .called(format!("log {:?} {:?}", options.lines, options.boot));
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"one\x1b[2J\ntwo\n").unwrap();
        Ok(reader.into())
    }
}

struct FakeImage;

#[async_trait]
impl ImageApi for FakeImage {
    fn info(&self) -> ImageInfo {
        ImageInfo {
            name: "debian-bookworm".to_owned(),
            kind: "managed".to_owned(),
            rootfs: "/images/debian-bookworm/rootfs.ext4".to_owned(),
            kernel: "debian-6.1".to_owned(),
            size_bytes: 2 << 30,
            used_bytes: 900 << 20,
            origin: "recipe".to_owned(),
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
        Err(Error::new(ErrorKind::ImageInUse, "The VM \"a\" uses the image"))
    }

    async fn promote(&self, _: Caller) -> Result<JobPath> {
        Err(Error::new(ErrorKind::WrongState, "It is in the store already"))
    }

    async fn tag(&self, _: String) -> Result<OwnedObjectPath> {
        not_here()
    }

    async fn export(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        not_here()
    }

    async fn publish(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        not_here()
    }
}

struct FakeKernel;

#[async_trait]
impl KernelApi for FakeKernel {
    fn info(&self) -> KernelInfo {
        KernelInfo {
            name: "6.1".to_owned(),
            version: "6.1.0".to_owned(),
            aliases: vec!["debian-6.1".to_owned()],
            path: "/kernels/6.1/vmlinux".to_owned(),
            origin: "debian".to_owned(),
            digest: String::new(),
            warnings: vec!["No overlayfs: Docker will not work".to_owned()],
            size_bytes: 30 << 20,
            created_us: 0,
        }
    }

    async fn delete(&self) -> Result<()> {
        Ok(())
    }

    async fn export(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        not_here()
    }

    async fn publish(&self, _: Caller, _: String, _: ExportOptions) -> Result<JobPath> {
        not_here()
    }
}

fn not_here<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Failed, "Not in this test"))
}

/// One for each name.
fn vm_id(name: &str) -> String {
    format!("{:032x}", name.len() * 256 + usize::from(name.as_bytes()[0]))
}

fn vm_info(name: &str, state: &str, reason: &str) -> VmInfo {
    let live = state == "running";
    VmInfo {
        id: vm_id(name),
        name: name.to_owned(),
        state: state.to_owned(),
        stop_reason: reason.to_owned(),
        state_detail: String::new(),
        image: "debian-bookworm".to_owned(),
        kernel: "6.1".to_owned(),
        engine: "qemu".to_owned(),
        accelerator: "tcg".to_owned(),
        vcpus: 2,
        memory_mib: 512,
        disk_bytes: 8 << 30,
        network: "public".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), name.to_owned())]),
        address: if live {
            "127.0.0.1".to_owned()
        } else {
            String::new()
        },
        ssh_port: if live { 2222 } else { 0 },
        host_key: "ssh-ed25519 AAAA".to_owned(),
        pid: if live { 4242 } else { 0 },
        unit: String::new(),
        directory: format!("/vms/{name}"),
        init: String::new(),
        created_us: 1_767_225_599_000_000,
        started_us: 0,
        ready_us: 0,
    }
}
