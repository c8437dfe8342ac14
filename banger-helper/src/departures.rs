//! Who leaves the bus: a question that is open for him is taken back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use tokio::sync::watch;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::OwnedUniqueName;

type Watched = HashMap<OwnedUniqueName, watch::Sender<()>>;

/// Hears of everybody who leaves: one rule on the bus, however many are waited for.
#[derive(Clone, Default)]
pub(crate) struct Departures(Arc<Mutex<Watched>>);

/// Resolves when somebody has left.
pub(crate) struct Departure {
    departures: Departures,
    name: OwnedUniqueName,
    receiver: watch::Receiver<()>,
}

impl Departures {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the bus refuses.
    pub(crate) async fn listen(bus: &Connection) -> zbus::Result<Self> {
        let departures = Self::default();
        let dbus = DBusProxy::new(bus).await?;
        let mut changes = dbus.receive_name_owner_changed_with_args(&[(2, "")]).await?;
        let heard = departures.clone();
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                if let Ok(change) = change.args() {
                    heard.left(change.name());
                }
            }
        });
        Ok(departures)
    }

    /// From here on his leaving is heard of. Ask the bus afterwards whether he is there at all.
    pub(crate) fn of(&self, name: &OwnedUniqueName) -> Departure {
        let mut watched = self.watched();
        let sender = watched
            .entry(name.clone())
            .or_insert_with(|| watch::channel(()).0);
        Departure {
            receiver: sender.subscribe(),
            departures: self.clone(),
            name: name.clone(),
        }
    }

    fn left(&self, name: &str) {
        let mut watched = self.watched();
        // Its receivers see that the sender is gone.
        watched.retain(|known, _| known.as_str() != name);
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Departure {
    pub(crate) async fn happened(&mut self) {
        while self.receiver.changed().await.is_ok() {}
    }
}

impl Clone for Departure {
    /// Also hears of a leaving that has happened already.
    fn clone(&self) -> Self {
        Self {
            departures: self.departures.clone(),
            name: self.name.clone(),
            receiver: self.receiver.clone(),
        }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        let mut watched = self.departures.watched();
        if watched
            .get(&self.name)
            .is_some_and(|sender| sender.receiver_count() == 1)
        {
            watched.remove(&self.name);
        }
    }
}
