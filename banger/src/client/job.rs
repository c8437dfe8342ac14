//! Jobs: everything that takes longer than a call.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_bus::api::bus_name_gone;
use banger_bus::{Error as BusError, ErrorKind, JobOutcome, JobProxy, SERVICE, path};
use banger_model::JobResult;
use futures_util::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout_at};
use zbus::message::{Message, Type};
use zbus::names::WellKnownName;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, fdo};

use super::Client;
use crate::error::{Error, Result};
use crate::exit;
use crate::output::{SETTLE, Step, View};

/// What is heard of a job.
#[derive(Debug)]
pub(crate) enum Event {
    Changed(HashMap<String, OwnedVariant>),
    Removed(JobOutcome),
}

/// The signals of all jobs, sorted by job. A task reads them at once, whatever the commands do:
/// a stream that nobody drains would stop the whole connection.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    by_path: HashMap<OwnedObjectPath, Queue>,
    /// Jobs that nobody has asked for (yet), the oldest first.
    unclaimed: VecDeque<OwnedObjectPath>,
    closed: bool,
}

#[derive(Debug)]
struct Queue {
    sender: UnboundedSender<Event>,
    /// Until it is claimed.
    receiver: Option<UnboundedReceiver<Event>>,
    waiting: usize,
}

/// Jobs of other clients come by too; ours is claimed as soon as its call returns.
const MAX_UNCLAIMED: usize = 256;
/// Changes of a job that nobody has claimed; its end is always kept.
const MAX_WAITING: usize = 64;

/// What the first Ctrl-C is answered with.
const CANCELLING: &str = "Cancelling; again to leave at once";

/// How a job ended that we have waited for.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: JobOutcome,
    /// The exit status that goes with the signal on which we cancelled it.
    interrupted: Option<u8>,
}

/// The wish to leave: Ctrl-C, or a polite kill.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Client {
    /// Makes a job by `call`, shows it, and waits for its end. The first Ctrl-C cancels the job
    /// and waits on, the second leaves; the daemon then cancels what only we waited for.
    pub(crate) async fn run_job(
        &self,
        mut view: View,
        call: impl Future<Output = banger_bus::Result<OwnedObjectPath>>,
    ) -> Result<Ended> {
        let jobs = self.jobs().await?;
        let mut interrupts = Interrupts::listen()?;
        let mut interrupted = None;
        let mut call = std::pin::pin!(call);
        // The daemon may have begun before it answers: then there is a job to be undone.
        let path = loop {
            tokio::select! {
                path = &mut call => break path?,
                status = interrupts.next() => {
                    if interrupted.replace(status).is_some() {
                        return Err(Error::Reported(status));
                    }
                    view.note(CANCELLING);
                }
            }
        };
        let events = jobs.claim(&path);
        if interrupted.is_some() {
            self.cancel(&path).await?;
        }
        self.follow(&path, events, &mut view, &mut interrupts, interrupted)
            .await
    }

    /// A job that is just ending is not there any more: its end is on the way.
    async fn cancel(&self, path: &OwnedObjectPath) -> Result<()> {
        let job = JobProxy::new(self.connection(), path).await?;
        let _ = job.cancel().await;
        Ok(())
    }

    async fn follow(
        &self,
        path: &OwnedObjectPath,
        mut events: UnboundedReceiver<Event>,
        view: &mut View,
        interrupts: &mut Interrupts,
        mut interrupted: Option<u8>,
    ) -> Result<Ended> {
        let mut step = Step::unknown();
        loop {
            let event = tokio::select! {
                event = events.recv() => event.ok_or_else(lost)?,
                status = interrupts.next() => {
                    if interrupted.replace(status).is_some() {
                        return Err(Error::Reported(status));
                    }
                    view.note(CANCELLING);
                    self.cancel(path).await?;
                    continue;
                }
            };
            let settled = Instant::now() + SETTLE;
            let mut next = Some(event);
            while let Some(event) = next.take() {
                match event {
                    Event::Removed(outcome) => {
                        view.show(&step);
                        return Ok(Ended { outcome, interrupted });
                    }
                    Event::Changed(properties) => {
                        step.apply(&properties);
                        view.hear(&step);
                    }
                }
                // What belongs together comes at once.
                next = timeout_at(settled, events.recv()).await.ok().flatten();
            }
            view.show(&step);
        }
    }
}

/// The outcome of a job that is done; every other one is an error.
pub(crate) fn done(ended: impl Into<Ended>) -> Result<JobOutcome> {
    let Ended { outcome, interrupted } = ended.into();
    let (kind, text) = match outcome.result {
        JobResult::Done => return Ok(outcome),
        JobResult::Cancelled => (ErrorKind::Cancelled, "Cancelled"),
        JobResult::Timeout => (ErrorKind::Timeout, "It took too long"),
        JobResult::Failed => (ErrorKind::Failed, "It failed, and the daemon does not say why"),
    };
    let error = outcome.error.unwrap_or_else(|| BusError::new(kind, text));
    Err(match interrupted {
        Some(status) if error.kind == ErrorKind::Cancelled => Error::Interrupted { status, error },
        _ => Error::Bus(error),
    })
}

impl From<JobOutcome> for Ended {
    fn from(outcome: JobOutcome) -> Self {
        Self {
            outcome,
            interrupted: None,
        }
    }
}

impl Jobs {
    pub(super) async fn subscribe(connection: &Connection) -> Result<Arc<Self>> {
        let mut rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .path_namespace(path::JOBS);
        if connection.is_bus() {
            rule = rule.sender(SERVICE);
        }
        let mut stream = MessageStream::for_match_rule(rule.build()?, connection, None).await?;
        let jobs = Arc::new(Self::default());
        let task = Arc::clone(&jobs);
        let daemon = daemon_gone(connection).await?;
        tokio::spawn(async move {
            let delivering = async {
                while let Some(Ok(message)) = stream.next().await {
                    task.deliver(&message);
                }
            };
            tokio::select! {
                // What the daemon said last came before its end.
                biased;
                () = delivering => {}
                () = daemon => {}
            }
            task.close();
        });
        Ok(jobs)
    }

    /// What is heard of a job, from its beginning. Ends early when the connection does.
    pub(crate) fn claim(&self, path: &OwnedObjectPath) -> UnboundedReceiver<Event> {
        let mut queues = self.lock();
        queues.unclaimed.retain(|other| other != path);
        if let Some(receiver) = queues
            .by_path
            .get_mut(path)
            .and_then(|queue| queue.receiver.take())
        {
            return receiver;
        }
        let (sender, receiver) = unbounded_channel();
        if !queues.closed {
            let queue = Queue {
                sender,
                receiver: None,
                waiting: 0,
            };
            queues.by_path.insert(path.clone(), queue);
        }
        receiver
    }

    fn deliver(&self, message: &Message) {
        let header = message.header();
        let (Some(path), Some(member)) = (header.path(), header.member()) else {
            return;
        };
        let event = match member.as_str() {
            "PropertiesChanged" => {
                let body = message.body();
                let Ok((_, changed, _)) =
                    body.deserialize::<(String, HashMap<String, OwnedVariant>, Vec<String>)>()
                else {
                    return;
                };
                Event::Changed(changed)
            }
            "Removed" => {
                let body = message.body();
                let Ok((result, error, text, details)) =
                    body.deserialize::<(String, String, String, HashMap<String, OwnedVariant>)>()
                else {
                    return;
                };
                Event::Removed(JobOutcome::from_signal(&result, &error, &text, &details))
            }
            _ => return,
        };
        self.push(&path.to_owned().into(), event);
    }

    fn push(&self, path: &OwnedObjectPath, event: Event) {
        let mut queues = self.lock();
        let ended = matches!(event, Event::Removed(_));
        if !queues.by_path.contains_key(path) {
            queues.make_room();
            let (sender, receiver) = unbounded_channel();
            let queue = Queue {
                sender,
                receiver: Some(receiver),
                waiting: 0,
            };
            queues.by_path.insert(path.clone(), queue);
            queues.unclaimed.push_back(path.clone());
        }
        let Some(queue) = queues.by_path.get_mut(path) else {
            return;
        };
        let claimed = queue.receiver.is_none();
        if claimed || ended || queue.waiting < MAX_WAITING {
            queue.waiting += 1;
            // Who has stopped listening wants no more.
            let _ = queue.sender.send(event);
        }
        if claimed && ended {
            queues.by_path.remove(path);
        }
    }

    fn close(&self) {
        let mut queues = self.lock();
        queues.closed = true;
        queues.by_path.retain(|_, queue| queue.receiver.is_some());
        // Each keeps what it has and ends after it.
        for queue in queues.by_path.values_mut() {
            queue.sender = unbounded_channel().0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when the daemon has left a message bus: the connection to that says nothing of it.
async fn daemon_gone(connection: &Connection) -> Result<impl Future<Output = ()> + Send + use<>> {
    let owner = if connection.is_bus() {
        let bus = fdo::DBusProxy::new(connection).await?;
        bus.get_name_owner(WellKnownName::from_static_str_unchecked(SERVICE).into())
            .await
            .ok()
    } else {
        None
    };
    let connection = connection.clone();
    Ok(async move {
        match owner {
            // An error means that the bus is gone, and the daemon with it.
            Some(owner) => drop(bus_name_gone(&connection, owner.as_str()).await),
            None => std::future::pending().await,
        }
    })
}

impl Queues {
    fn make_room(&mut self) {
        while self.unclaimed.len() >= MAX_UNCLAIMED {
            let Some(oldest) = self.unclaimed.pop_front() else {
                return;
            };
            self.by_path.remove(&oldest);
        }
    }
}

impl Interrupts {
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("Cannot listen for signals", e));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal and gives the exit status that goes with it.
    pub(crate) async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        };
        u8::try_from(kind.as_raw_value()).map_or(exit::FAILED, |number| exit::SIGNAL_BASE + number)
    }
}

/// The daemon went away while we waited.
pub(crate) fn lost() -> Error {
    Error::refused(
        "The daemon ended before the job did",
        "Run the command again; `banger vm list -a` shows what is there",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(stage: &str) -> Event {
        let value = OwnedVariant::try_from(zbus::Variant::from(stage)).unwrap();
        Event::Changed(HashMap::from([("Stage".to_owned(), value)]))
    }

    #[test]
    fn signals_before_the_claim_are_kept() {
        let jobs = Jobs::default();
        jobs.push(&path::job(1), changed("a"));
        jobs.push(&path::job(1), Event::Removed(JobOutcome::done()));
        jobs.push(&path::job(2), changed("b"));
        let mut events = jobs.claim(&path::job(1));
        assert!(matches!(events.try_recv(), Ok(Event::Changed(_))));
        assert!(matches!(events.try_recv(), Ok(Event::Removed(_))));
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn other_clients_jobs_are_bounded_and_an_end_is_always_kept() {
        let jobs = Jobs::default();
        for i in 0..2 * MAX_WAITING {
            jobs.push(&path::job(1), changed(&i.to_string()));
        }
        jobs.push(&path::job(1), Event::Removed(JobOutcome::done()));
        let mut events = jobs.claim(&path::job(1));
        let mut last = None;
        let mut count = 0;
        while let Ok(event) = events.try_recv() {
            last = Some(event);
            count += 1;
        }
        assert_eq!(count, MAX_WAITING + 1);
        assert!(matches!(last, Some(Event::Removed(_))));
        for i in 0..2 * MAX_UNCLAIMED {
            jobs.push(&path::job(100 + i as u32), changed("x"));
        }
        assert_eq!(jobs.lock().unclaimed.len(), MAX_UNCLAIMED);
        assert_eq!(jobs.lock().by_path.len(), MAX_UNCLAIMED + 1);
    }

    #[test]
    fn a_lost_connection_ends_every_wait() {
        let jobs = Jobs::default();
        let mut claimed = jobs.claim(&path::job(1));
        jobs.push(&path::job(2), changed("a"));
        jobs.close();
        assert!(matches!(
            claimed.try_recv(),
            Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)
        ));
        let mut late = jobs.claim(&path::job(2));
        assert!(matches!(late.try_recv(), Ok(Event::Changed(_))));
        assert!(matches!(
            late.try_recv(),
            Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)
        ));
        assert!(jobs.claim(&path::job(3)).try_recv().is_err());
    }

    #[test]
    fn only_done_is_no_error() {
        assert!(done(JobOutcome::done()).is_ok());
        let failed = JobOutcome::failed(BusError::new(ErrorKind::BootFailed, "No init"));
        assert_eq!(done(failed).unwrap_err().kind(), Some(ErrorKind::BootFailed));
        let cancelled = JobOutcome {
            result: JobResult::Cancelled,
            ..JobOutcome::done()
        };
        assert_eq!(
            done(cancelled.clone()).unwrap_err().kind(),
            Some(ErrorKind::Cancelled)
        );
        let by_signal = |outcome| Ended {
            outcome,
            interrupted: Some(143),
        };
        assert_eq!(exit::ordinary(&done(by_signal(cancelled)).unwrap_err()), 143);
        // It was done before the cancelling reached it.
        assert!(done(by_signal(JobOutcome::done())).is_ok());
    }
}
