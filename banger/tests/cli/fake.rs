//! A daemon that pretends: canned objects, and VMs whose names say what happens to them. A
//! command "in a guest" is a process of the host.

mod image;
mod job;
mod manager;
mod vm;

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex};

use banger_bus::api::{Caller, JobPath};
use banger_bus::{
    ImageObject, JobObject, KernelObject, ManagerObject, ProcessObject, Result, SERVICE, VmObject, path,
};
use tokio::sync::{Notify, Semaphore};
use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::{Guid, fdo};

use image::{FakeImage, FakeKernel, alpine, debian};
use job::{FakeJob, Plan};
use vm::{FakeVm, vm_info};

/// The daemon, and what was asked of it.
#[derive(Clone)]
pub(crate) struct Fake {
    calls: Arc<(Mutex<Vec<String>>, Condvar)>,
    last_job: Arc<Mutex<u32>>,
    left: Arc<Notify>,
    /// The steps that jobs may take which wait for the test.
    steps: Arc<Semaphore>,
    /// The repository of the VM "b".
    workspace: Arc<Mutex<String>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            calls: Arc::default(),
            last_job: Arc::default(),
            left: Arc::default(),
            steps: Arc::new(Semaphore::new(0)),
            workspace: Arc::default(),
        }
    }
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

    /// Gives the VM "b" a workspace.
    pub(crate) fn give_workspace(&self, repository: &str) {
        repository.clone_into(&mut self.workspace.lock().unwrap());
    }

    /// Lets a job that waits take its next step.
    pub(crate) fn step(&self) {
        self.steps.add_permits(1);
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
        let image = |info| ImageObject {
            api: Arc::new(FakeImage {
                fake: self.clone(),
                info,
            }),
        };
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
            .serve_at(path::image("debian-bookworm"), image(debian()))
            .serve_at(path::image("alpine:3.20"), image(alpine()))
            .serve_at(
                path::kernel("6.1"),
                KernelObject {
                    api: Arc::new(FakeKernel { fake: self.clone() }),
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
        let job = Arc::new(FakeJob::new(self, id, operation));
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
