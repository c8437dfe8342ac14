//! One connection: its queue, its task, its end.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use banger_bus::api::{Caller, ManagerApi};
use banger_bus::{
    ImageObject, JobObject, KernelObject, ManagerObject, ProcessObject, SERVICE, VmObject, path,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::fdo::{self, RequestNameFlags};
use zbus::{Connection, Guid, OwnedObjectPath};

use super::event::{Object, Queued};
use super::hub::Bus;

/// Events that may wait for one connection. Who is that far behind does not read.
const MAX_QUEUED: usize = 1024;
/// How long a client may take to introduce itself.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The hub's end of a connection.
pub(super) struct Peer {
    queue: mpsc::Sender<Queued>,
    guid: Option<String>,
    /// To cut a connection whose sending is stuck.
    socket: Option<UnixStream>,
}

impl Peer {
    /// Whether it is a client of the private socket.
    pub(super) fn is_private(&self) -> bool {
        self.guid.is_some()
    }

    /// Whether this is the connection that the caller uses.
    pub(super) fn is_of(&self, caller: &Caller) -> bool {
        let guid = caller.connection().server_guid();
        match &self.guid {
            Some(ours) => guid.as_str() == ours,
            None => caller.connection().is_bus(),
        }
    }

    /// Queues an event. False when the connection is full; it is cut then.
    pub(super) fn push(&self, queued: Queued) -> bool {
        match self.queue.try_send(queued) {
            // A closed queue is one whose task has ended and is about to say so.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                if let Some(socket) = &self.socket {
                    // It may be shut down already.
                    let _ = socket.shutdown(std::net::Shutdown::Both);
                }
                false
            }
        }
    }
}

impl Bus {
    /// Serves one client of the private socket until he leaves. The caller has checked who he is.
    /// He counts from this call on, before what it returns is awaited.
    pub(crate) fn serve_client(&self, stream: UnixStream) -> impl Future<Output = ()> + Send + use<> {
        self.idle().touch();
        let guid = Guid::generate();
        let (queue, events) = mpsc::channel(MAX_QUEUED);
        let peer = Peer {
            queue,
            guid: Some(guid.as_str().to_owned()),
            socket: stream.try_clone().ok(),
        };
        let builder = Builder::unix_stream(stream).server(guid).p2p();
        let (number, objects) = self.join(peer);
        let bus = self.clone();
        async move {
            match timeout(HANDSHAKE, bus.build(builder, objects)).await {
                Ok(Ok(connection)) => bus.follow(connection, events).await,
                // Also when somebody connects only to see whether a daemon is there.
                Ok(Err(error)) => tracing::debug!(%error, "A client did not connect"),
                Err(_) => tracing::debug!("A client took too long to connect"),
            }
            bus.leave(number);
        }
    }

    /// Shows everything on the session bus and takes the daemon's name there. Returns what runs
    /// until the connection ends.
    ///
    /// # Errors
    /// When the bus is gone, or somebody has the name.
    pub(crate) async fn serve_session_bus(
        &self,
        connection: Connection,
    ) -> zbus::Result<impl Future<Output = ()> + Send + use<>> {
        let manager = self.manager().ok_or(zbus::Error::Unsupported)?;
        let (queue, events) = mpsc::channel(MAX_QUEUED);
        let (number, objects) = self.join(Peer {
            queue,
            guid: None,
            socket: None,
        });
        // Nobody calls before the name is taken.
        let named = async {
            let server = connection.object_server();
            server.at(path::MANAGER, ManagerObject { api: manager }).await?;
            server.at(path::MANAGER, fdo::ObjectManager).await?;
            for (path, object) in objects {
                object.add(&connection, &path).await?;
            }
            let flags = RequestNameFlags::DO_NOT_QUEUE;
            connection.request_name_with_flags(SERVICE, flags).await
        };
        if let Err(error) = named.await {
            self.leave(number);
            return Err(error);
        }
        let bus = self.clone();
        Ok(async move {
            bus.follow(connection, events).await;
            bus.leave(number);
        })
    }

    async fn build(
        &self,
        builder: Builder<'_>,
        objects: Vec<(OwnedObjectPath, Object)>,
    ) -> zbus::Result<Connection> {
        let manager = self.manager().ok_or(zbus::Error::Unsupported)?;
        serve_all(builder, manager, objects).build().await
    }

    /// Tells what happens until the connection ends.
    async fn follow(&self, connection: Connection, mut events: mpsc::Receiver<Queued>) {
        let telling = async {
            // The queue ends when the hub has dropped this connection.
            while let Some(queued) = events.recv().await {
                if let Err(error) = queued.event.tell(&connection).await {
                    if connection.is_closed() {
                        break;
                    }
                    tracing::debug!(%error, "Cannot tell a client");
                }
                if let Some(told) = queued.told {
                    // Nobody waits any more: fine.
                    let _ = told.send(());
                }
            }
        };
        let listening = async {
            loop {
                connection.monitor_activity().await;
                self.idle().touch();
            }
        };
        tokio::select! {
            () = telling => {}
            () = listening => {}
            () = connection.closed() => {}
        }
    }
}

fn serve_all<'a>(
    builder: Builder<'a>,
    manager: Arc<dyn ManagerApi>,
    objects: Vec<(OwnedObjectPath, Object)>,
) -> Builder<'a> {
    let mut builder = builder
        .serve_at(path::MANAGER, ManagerObject { api: manager })
        .serve_at(path::MANAGER, fdo::ObjectManager);
    for (path, object) in objects {
        builder = match object {
            Object::Vm(api) => builder.serve_at(path, VmObject { api }),
            Object::Image(api) => builder.serve_at(path, ImageObject { api }),
            Object::Kernel(api) => builder.serve_at(path, KernelObject { api }),
            Object::Job(api) => builder.serve_at(path, JobObject { api }),
            Object::Process(api) => builder
                .serve_at(path.clone(), ProcessObject { api: api.clone() })
                .serve_at(path, JobObject { api }),
        };
    }
    builder
}
