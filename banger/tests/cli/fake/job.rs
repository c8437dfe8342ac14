//! Jobs that go as planned.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use banger_bus::api::JobApi;
use banger_bus::{Error, ErrorKind, ExecOptions, JobInfo, JobObject, JobOutcome, JobPart, Result, path};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;
use zbus::OwnedObjectPath;
use zbus::object_server::SignalEmitter;

use super::Fake;

/// What a job does.
pub(super) enum Plan {
    Done(OwnedObjectPath),
    Fail(Error, Option<OwnedObjectPath>),
    UntilCancelled,
    /// Not even then.
    Never,
    /// Its parts go through these steps, of which each waits for the test.
    Steps(Vec<Vec<JobPart>>, JobOutcome),
    /// The same, and waits for nobody.
    Run(Vec<Vec<JobPart>>, JobOutcome),
    Process(Vec<String>, ExecOptions, [OwnedFd; 3]),
}

pub(super) struct FakeJob {
    fake: Fake,
    id: u32,
    operation: String,
    stage: Mutex<String>,
    parts: Mutex<Vec<JobPart>>,
    cancelled: Notify,
    pid: Mutex<Option<Pid>>,
}

impl FakeJob {
    pub(super) fn new(fake: &Fake, id: u32, operation: &str) -> Self {
        Self {
            fake: fake.clone(),
            id,
            operation: operation.to_owned(),
            stage: Mutex::default(),
            parts: Mutex::default(),
            cancelled: Notify::new(),
            pid: Mutex::default(),
        }
    }

    pub(super) async fn carry_out(&self, plan: Plan, emitter: &SignalEmitter<'_>) -> JobOutcome {
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
            Plan::Steps(steps, outcome) => {
                for parts in steps {
                    self.show(parts, emitter).await;
                    self.fake.steps.acquire().await.unwrap().forget();
                }
                outcome
            }
            Plan::Run(steps, outcome) => {
                for parts in steps {
                    self.show(parts, emitter).await;
                }
                outcome
            }
            Plan::Process(argv, options, stdio) => self.process(&argv, &options, stdio).await,
        }
    }

    async fn show(&self, parts: Vec<JobPart>, emitter: &SignalEmitter<'_>) {
        *self.parts.lock().unwrap() = parts;
        let object = JobObject {
            api: Arc::new(Stage(self.info())),
        };
        object.parts_changed(emitter).await.unwrap();
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
            parts: self.parts.lock().unwrap().clone(),
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
