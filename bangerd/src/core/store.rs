//! The database's own thread: its calls block, and their order is the order of the changes.

use std::sync::mpsc;
use std::thread;

use banger_bus::{Error, ErrorKind};
use banger_store::Store;
use tokio::sync::oneshot;

use super::error;

type Work = Box<dyn FnOnce(&mut Store) + Send>;

/// Calls of the database, from any task.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    work: mpsc::Sender<Work>,
}

/// An answer that is on its way. Work is done whether it is awaited or not.
#[must_use = "whether it was written is known only by waiting"]
pub(crate) struct Pending<T>(oneshot::Receiver<banger_store::Result<T>>);

impl Database {
    /// Takes an open database to its thread, which ends with the last handle.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn new(mut store: Store) -> Result<Self, Error> {
        let (work, queue) = mpsc::channel::<Work>();
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || queue.into_iter().for_each(|work| work(&mut store)))
            .map_err(|e| error::failed("Cannot start the database's thread", &e))?;
        Ok(Self { work })
    }

    /// Queues a call at once, so that two calls keep their order, and gives its answer.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> banger_store::Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move |store: &mut Store| {
            // Nobody there: the operation was dropped, what it wrote stays.
            let _ = sender.send(work(store));
        });
        // Without its thread the receiver tells.
        let _ = self.work.send(work);
        Pending(receiver)
    }
}

impl<T> Pending<T> {
    /// # Errors
    /// The database's, and when its thread has ended.
    pub(crate) async fn done(self) -> Result<T, Error> {
        match self.0.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(error::store(&e)),
            Err(_) => Err(Error::new(
                ErrorKind::StoreUnusable,
                "The database's thread has ended: restart bangerd",
            )),
        }
    }

    /// For notes that the next start of the daemon can do without: a failure is logged.
    pub(crate) async fn noted(self) {
        if let Err(e) = self.done().await {
            tracing::error!(error = %e, "The database could not be written");
        }
    }
}
