//! Ports of guests that are published: listeners on the host's loopback, whose connections go to
//! the guests' own loopback by their agents, in user mode and in system mode alike.

mod carry;

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_bus::{Error, ErrorKind, Result};
use banger_model::VmId;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use crate::guest::Agent;

/// Connections to one published port at once: a guest's agent takes no more channels on one of
/// ours. Others wait in the kernel.
const MAX_CONNECTIONS: usize = 128;
/// Until connections are taken again after that failed, as without descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The ports that are open now.
#[derive(Default)]
pub(crate) struct Ports(Mutex<Table>);

#[derive(Default)]
struct Table {
    doors: HashMap<(VmId, u16), Door>,
    /// Bound, and about to be written down as a VM's.
    spare: HashMap<(VmId, u16), std::net::TcpListener>,
}

/// A listener and what it carries; closed when it is dropped.
struct Door {
    guest: u16,
    task: AbortHandle,
}

/// A port that was taken for a VM, until this is dropped or the port is opened.
pub(crate) struct Reserved<'a> {
    ports: &'a Ports,
    id: VmId,
    pub(crate) host: u16,
}

impl Ports {
    /// Takes a port of the host for a VM, so that nobody else gets it before it is opened; one of
    /// the kernel's choice for 0.
    ///
    /// # Errors
    /// Naming the port, when somebody else has it or the owner may not have it.
    pub(crate) fn reserve(&self, id: VmId, host: u16) -> Result<Reserved<'_>> {
        let refused = |error| refused(host, &error);
        let listener = bind(host).map_err(refused)?;
        let host = listener.local_addr().map_err(refused)?.port();
        self.lock().spare.insert((id, host), listener);
        Ok(Reserved {
            ports: self,
            id,
            host,
        })
    }

    /// Opens what is wanted for a VM, the host's ports and the guest's, and closes the rest.
    /// `way` leads to its guest, and is asked for each connection.
    pub(crate) fn keep<W>(&self, id: VmId, wanted: &[(u16, u16)], way: W)
    where
        W: Fn() -> Result<Arc<Agent>> + Clone + Send + 'static,
    {
        let mut table = self.lock();
        table
            .doors
            .retain(|(vm, host), door| *vm != id || wanted.contains(&(*host, door.guest)));
        for &(host, guest) in wanted {
            let key = (id, host);
            if table.doors.contains_key(&key) {
                continue;
            }
            let listener = match table.spare.remove(&key) {
                Some(listener) => Ok(listener),
                None => bind(host),
            };
            match listener.and_then(TcpListener::from_std) {
                Ok(listener) => {
                    let task = tokio::spawn(listen(listener, guest, way.clone())).abort_handle();
                    table.doors.insert(key, Door { guest, task });
                }
                // The VM runs without it; it is tried again with its next change.
                Err(error) => {
                    tracing::warn!(vm_id = %id, "A port is not published: {}", refused(host, &error));
                }
            }
        }
    }

    /// Closes all ports of a VM.
    pub(crate) fn close(&self, id: VmId) {
        self.lock().doors.retain(|(vm, _), _| *vm != id);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.ports.lock().spare.remove(&(self.id, self.host));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bind(host: u16) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, host))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn refused(host: u16, error: &io::Error) -> Error {
    let text = format!("Cannot listen on 127.0.0.1:{host}: {error}");
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(ErrorKind::LimitExceeded, text)
            .hint("Another program has this port: choose another, or 0 for one that is free."),
        io::ErrorKind::PermissionDenied => Error::new(ErrorKind::InvalidArgument, text)
            .hint("Ports below 1024 are the system's: choose a higher one."),
        _ => Error::new(ErrorKind::Failed, text),
    }
}

/// Takes connections until it is dropped, and what it carries with it.
async fn listen(listener: TcpListener, guest: u16, way: impl Fn() -> Result<Arc<Agent>>) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if carried.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, from)) => {
                    let agent = way();
                    carried.spawn(async move {
                        let done = async { carry::carry(&agent?, stream, from, guest).await };
                        if let Err(error) = done.await {
                            tracing::debug!(%error, guest, "A connection to a published port ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, guest, "A connection to a published port was not taken");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = carried.join_next(), if !carried.is_empty() => {}
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
