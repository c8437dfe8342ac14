//! The jobs of this daemon.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_bus::api::{Caller, JobApi, JobPath};
use banger_bus::{Error, ErrorKind, JobInfo, JobOutcome, Result, path};
use tokio::time::{Instant, sleep_until};
use zbus::OwnedObjectPath;

use super::job::{Job, ProcessRequests};
use super::no_object;
use crate::bus::Bus;
use crate::core::progress::{Cancel, JobContext};

/// Jobs that may run at once; the daemon has one owner.
pub(crate) const MAX_JOBS: usize = 64;
/// The least time between two signals about one job's progress within a stage.
const QUIET: Duration = Duration::from_millis(100);

/// Starts jobs and knows those that run.
#[derive(Clone)]
pub(crate) struct Jobs(Arc<Shared>);

struct Shared {
    bus: Bus,
    last_id: AtomicU32,
    running: Mutex<HashMap<u32, Cancel>>,
}

/// Takes the job's place when it is dropped, however the job ended.
struct Place {
    jobs: Jobs,
    id: u32,
}

impl Jobs {
    pub(crate) fn new(bus: Bus) -> Self {
        Self(Arc::new(Shared {
            bus,
            last_id: AtomicU32::new(0),
            running: Mutex::new(HashMap::new()),
        }))
    }

    /// Starts `work` for `caller` and returns the job's path; the caller's connection knows the
    /// object by then. `object` is what it works on, [`no_object`] where there is none yet. When
    /// the caller leaves, the work is cancelled.
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`] when too many jobs run.
    pub(crate) async fn start<W, F>(
        &self,
        operation: &str,
        caller: Caller,
        object: OwnedObjectPath,
        work: W,
    ) -> Result<JobPath>
    where
        W: FnOnce(JobContext) -> F + Send,
        F: Future<Output = Result<JobOutcome>> + Send + 'static,
    {
        let (place, info, cancel) = self.place(operation, object)?;
        let job = Arc::new(Job::new(info, cancel.clone()));
        let work = work(JobContext::new(job.clone(), cancel));
        Ok(self.launch(place, job, caller, work).await)
    }

    /// The same for a process: its object takes signals and sizes too, and `work` receives them.
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`] when too many jobs run.
    pub(crate) async fn start_process<W, F>(
        &self,
        operation: &str,
        caller: Caller,
        object: OwnedObjectPath,
        work: W,
    ) -> Result<JobPath>
    where
        W: FnOnce(JobContext, ProcessRequests) -> F + Send,
        F: Future<Output = Result<JobOutcome>> + Send + 'static,
    {
        let (place, info, cancel) = self.place(operation, object)?;
        let (job, requests) = Job::process(info, cancel.clone());
        let job = Arc::new(job);
        let work = work(JobContext::new(job.clone(), cancel), requests);
        Ok(self.launch(place, job, caller, work).await)
    }

    fn place(&self, operation: &str, object: OwnedObjectPath) -> Result<(Place, JobInfo, Cancel)> {
        let mut running = self.running();
        if running.len() >= MAX_JOBS {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("Too many jobs: {MAX_JOBS} run already"),
            )
            .hint("Wait until some have ended."));
        }
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let cancel = Cancel::new();
        running.insert(id, cancel.clone());
        let place = Place {
            jobs: self.clone(),
            id,
        };
        let info = JobInfo {
            id,
            operation: operation.to_owned(),
            object,
            stage: String::new(),
            fraction: -1.0,
            message: String::new(),
            parts: Vec::new(),
        };
        Ok((place, info, cancel))
    }

    async fn launch<F>(&self, place: Place, job: Arc<Job>, caller: Caller, work: F) -> JobPath
    where
        F: Future<Output = Result<JobOutcome>> + Send + 'static,
    {
        let path = path::job(place.id);
        let process = job.is_process();
        self.0.bus.job_added(&path, job.clone(), process, &caller).await;
        tokio::spawn(run(self.0.bus.clone(), path.clone(), place, job, caller, work));
        path
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u32, Cancel>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.jobs.running().remove(&self.id);
    }
}

/// Follows one job to its end.
async fn run<F>(bus: Bus, path: JobPath, place: Place, job: Arc<Job>, caller: Caller, work: F)
where
    F: Future<Output = Result<JobOutcome>> + Send + 'static,
{
    // A task of its own: a panic in it ends the job and not the daemon.
    let mut work = tokio::spawn(work);
    let mut gone = pin!(caller.gone());
    let mut left = false;
    let mut told = job.info();
    let mut quiet_until = Instant::now();
    let mut pending = false;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            () = &mut gone, if !left => {
                left = true;
                job.cancel();
            }
            () = job.changed() => pending = true,
            () = sleep_until(quiet_until), if pending => {}
        }
        if pending && (Instant::now() >= quiet_until || !job.is_in_stage(&told.stage)) {
            let now = job.info();
            bus.job_changed(&path, &told, &now);
            told = now;
            pending = false;
            quiet_until = Instant::now() + QUIET;
        }
    };
    let now = job.info();
    if now != told {
        bus.job_changed(&path, &told, &now);
    }
    let outcome = outcome(result, &now);
    tracing::debug!(
        job = place.id,
        operation = now.operation,
        result = %outcome.result,
        error = outcome.error.as_ref().map(tracing::field::display),
        "Job ended"
    );
    let id = place.id;
    // First the place, then the news: who hears of the end may start the next.
    drop(place);
    bus.job_ended(&path, id, outcome);
}

fn outcome(
    result: std::result::Result<Result<JobOutcome>, tokio::task::JoinError>,
    info: &JobInfo,
) -> JobOutcome {
    let mut outcome = match result {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => JobOutcome::failed(error),
        Err(error) => {
            tracing::error!(%error, operation = info.operation, "A job broke");
            JobOutcome::failed(Error::new(
                ErrorKind::Failed,
                format!("Internal error in {} (see the daemon's log)", info.operation),
            ))
        }
    };
    if outcome.object.is_none() && info.object != no_object() {
        outcome.object = Some(info.object.clone());
    }
    outcome
}
