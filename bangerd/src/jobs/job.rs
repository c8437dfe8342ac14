//! One job: what is known of it, and how it is reached.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use banger_bus::api::JobApi;
use banger_bus::{Error, ErrorKind, JobInfo, Result, path};
use banger_image::Part;
use banger_model::{VmId, signal};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::core::progress::{Cancel, Report};

/// How many requests may wait for a process before its callers wait.
const MAX_REQUESTS: usize = 16;

/// Parts of a stage that are told of; more than an image may have layers.
const MAX_PARTS: usize = 512;

/// A job as its object on the bus and its work see it.
pub(crate) struct Job {
    info: Mutex<JobInfo>,
    /// Told at each change of `info`; one waiter.
    changed: Notify,
    cancel: Cancel,
    process: Option<mpsc::Sender<ProcessRequest>>,
}

/// What clients ask of a job that is a process.
#[derive(Debug)]
pub(crate) enum ProcessRequest {
    /// The name of a standard signal without `SIG`.
    Signal(String, oneshot::Sender<Result<()>>),
    Resize {
        columns: u32,
        rows: u32,
        done: oneshot::Sender<Result<()>>,
    },
}

pub(crate) type ProcessRequests = mpsc::Receiver<ProcessRequest>;

impl Job {
    pub(super) fn new(info: JobInfo, cancel: Cancel) -> Self {
        Self {
            info: Mutex::new(info),
            changed: Notify::new(),
            cancel,
            process: None,
        }
    }

    /// A job that is a process, and where its requests arrive.
    pub(super) fn process(info: JobInfo, cancel: Cancel) -> (Self, ProcessRequests) {
        let (sender, receiver) = mpsc::channel(MAX_REQUESTS);
        let job = Self {
            process: Some(sender),
            ..Self::new(info, cancel)
        };
        (job, receiver)
    }

    /// Waits for the next change of the info since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn is_in_stage(&self, stage: &str) -> bool {
        self.lock().stage == stage
    }

    pub(super) fn is_process(&self) -> bool {
        self.process.is_some()
    }

    async fn request(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<()>>) -> ProcessRequest + Send,
    ) -> Result<()> {
        let ended = || Error::new(ErrorKind::WrongState, "The process has ended");
        let Some(process) = &self.process else {
            return Err(Error::new(ErrorKind::WrongState, "The job is not a process"));
        };
        let (done, reply) = oneshot::channel();
        process.send(make(done)).await.map_err(|_| ended())?;
        reply.await.unwrap_or_else(|_| Err(ended()))
    }

    fn change(&self, apply: impl FnOnce(&mut JobInfo) -> bool) {
        let differs = apply(&mut self.lock());
        if differs {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, JobInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl JobApi for Job {
    fn info(&self) -> JobInfo {
        self.lock().clone()
    }

    fn cancel(&self) {
        self.cancel.cancel();
    }

    async fn signal(&self, name: String) -> Result<()> {
        if signal::number(&name).is_none() {
            return Err(
                Error::new(ErrorKind::InvalidArgument, format!("No such signal: {name:?}"))
                    .hint("Write a name without SIG, as INT or TERM."),
            );
        }
        self.request(|done| ProcessRequest::Signal(name, done)).await
    }

    async fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        self.request(|done| ProcessRequest::Resize { columns, rows, done })
            .await
    }
}

impl Report for Job {
    fn stage(&self, stage: &str) {
        self.change(|info| {
            if info.stage == stage {
                return false;
            }
            stage.clone_into(&mut info.stage);
            info.message.clear();
            info.fraction = -1.0;
            info.parts.clear();
            true
        });
    }

    fn fraction(&self, done: f64) {
        let done = if done.is_nan() {
            -1.0
        } else {
            done.clamp(-1.0, 1.0)
        };
        self.change(|info| {
            // Below what a progress bar can show; but the end is the end.
            let differs = (info.fraction - done).abs() >= 0.001 || (done >= 1.0 && info.fraction < 1.0);
            if differs {
                info.fraction = done;
            }
            differs
        });
    }

    fn part(&self, part: &Part<'_>) {
        let now = (part.state.as_str(), part.done, part.total);
        self.change(|info| {
            if let Some((_, state, done, total)) = info.parts.iter_mut().find(|known| known.0 == part.name) {
                let differs = (state.as_str(), *done, *total) != now;
                if state != now.0 {
                    now.0.clone_into(state);
                }
                (*done, *total) = (now.1, now.2);
                return differs;
            }
            let room = info.parts.len() < MAX_PARTS;
            if room {
                let part = (part.name.to_owned(), now.0.to_owned(), now.1, now.2);
                info.parts.push(part);
            }
            room
        });
    }

    fn about(&self, vm: VmId) {
        self.change(|info| {
            info.object = path::vm(&vm.to_string());
            true
        });
    }

    fn message(&self, text: &str) {
        self.change(|info| {
            let differs = info.message != text;
            text.clone_into(&mut info.message);
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use banger_image::PartState;

    use super::*;

    fn info() -> JobInfo {
        JobInfo {
            id: 1,
            operation: "test".to_owned(),
            object: super::super::no_object(),
            stage: String::new(),
            fraction: -1.0,
            message: String::new(),
            parts: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_stage_starts_anew_and_changes_are_told() {
        let job = Job::new(info(), Cancel::new());
        job.stage("One");
        job.fraction(0.5);
        job.message("a");
        job.changed().await;
        job.stage("Two");
        let info = job.info();
        assert_eq!((info.stage.as_str(), info.message.as_str()), ("Two", ""));
        assert!(info.fraction < 0.0);
        job.fraction(f64::NAN);
        assert!(job.info().fraction < 0.0);
        job.fraction(f64::INFINITY);
        assert!((job.info().fraction - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn parts_keep_their_order_and_end_with_their_stage() {
        let job = Job::new(info(), Cancel::new());
        job.stage("Fetching");
        let part = |name: &str, state, done| {
            job.part(&Part {
                name,
                state,
                done,
                total: 9,
            });
        };
        part("b", PartState::Waiting, 0);
        part("a", PartState::Fetching, 1);
        part("b", PartState::Cached, 9);
        let row = |name: &str, state: &str, done| (name.to_owned(), state.to_owned(), done, 9);
        assert_eq!(job.info().parts, [row("b", "cached", 9), row("a", "fetching", 1)]);
        for n in 0..2 * MAX_PARTS {
            part(&n.to_string(), PartState::Waiting, 0);
        }
        assert_eq!(job.info().parts.len(), MAX_PARTS);
        job.stage("Fetching");
        assert_eq!(job.info().parts.len(), MAX_PARTS);
        job.stage("Finishing");
        assert!(job.info().parts.is_empty());
    }

    #[tokio::test]
    async fn only_processes_take_known_signals() {
        let job = Job::new(info(), Cancel::new());
        let refused = job.signal("TERM".to_owned()).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::WrongState);
        let (job, mut requests) = Job::process(info(), Cancel::new());
        let refused = job.signal("SIGTERM".to_owned()).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::InvalidArgument);
        let answer = async {
            match requests.recv().await.unwrap() {
                ProcessRequest::Signal(name, done) => {
                    assert_eq!(name, "TERM");
                    done.send(Ok(())).unwrap();
                }
                ProcessRequest::Resize { .. } => panic!("not asked"),
            }
        };
        let (sent, ()) = tokio::join!(job.signal("TERM".to_owned()), answer);
        sent.unwrap();
        drop(requests);
        let refused = job.resize(1, 1).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::WrongState);
    }
}
