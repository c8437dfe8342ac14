//! What listens in the guest, and what it speaks.

mod owner;
mod probe;
mod table;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_model::figures::{ListeningSocket, Scheme, Transport};
use tokio::task::JoinSet;

use owner::Place;
use table::Bound;

/// How often a socket is asked that has not said what it speaks: a server may listen a while
/// before it answers.
const MAX_TRIES: u32 = 3;
/// Sockets that are asked for one answer.
const MAX_PROBES: usize = 64;

/// What was found out before, by the sockets' inodes, which the kernel gives to no other socket
/// while they live.
#[derive(Default)]
pub(crate) struct Sockets {
    places: Mutex<HashMap<u64, Option<Place>>>,
    spoken: Mutex<HashMap<u64, Spoken>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Spoken {
    scheme: Option<Scheme>,
    tries: u32,
}

impl Sockets {
    /// Every socket that waits, but for the agent's own at `own_port`; one for both families and
    /// for several processes of one name.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) async fn list(self: &Arc<Self>, own_port: u16) -> io::Result<Vec<ListeningSocket>> {
        let me = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || me.look(own_port)).await;
        let mut found = found.map_err(io::Error::other)??;
        self.ask(&found).await;
        let spoken = lock(&self.spoken);
        for (inode, socket) in &mut found {
            socket.scheme = spoken.get(inode).and_then(|spoken| spoken.scheme);
        }
        Ok(found.into_iter().map(|(_, socket)| socket).collect())
    }

    fn look(&self, own_port: u16) -> io::Result<Vec<(u64, ListeningSocket)>> {
        let mut bound = table::read()?;
        bound.retain(|it| !(it.protocol == Transport::Tcp && it.port == own_port));
        let inodes: HashSet<u64> = bound.iter().map(|bound| bound.inode).collect();
        let mut places = lock(&self.places);
        owner::find(&mut places, &inodes);
        let mut processes = HashMap::new();
        let rows = bound.into_iter().map(|bound| {
            let pid = places
                .get(&bound.inode)
                .and_then(Option::as_ref)
                .map_or(0, |it| it.pid);
            let described = processes.entry(pid).or_insert_with(|| owner::describe(pid));
            (bound.inode, row(&bound, pid, described))
        });
        Ok(once(rows.collect()))
    }

    /// Asks those that have not been asked, all at once, and waits for them; those that said
    /// nothing are asked again for the next time.
    async fn ask(self: &Arc<Self>, found: &[(u64, ListeningSocket)]) {
        let mut first = JoinSet::new();
        {
            let mut spoken = lock(&self.spoken);
            spoken.retain(|inode, _| found.iter().any(|(known, _)| known == inode));
            let tcp = found.iter().filter(|(_, it)| it.protocol == Transport::Tcp);
            for (inode, socket) in tcp.take(MAX_PROBES) {
                let state = spoken.entry(*inode).or_default();
                if state.scheme.is_some() || state.tries >= MAX_TRIES {
                    continue;
                }
                state.tries += 1;
                let probe = Arc::clone(self).probe(*inode, socket.address, socket.port);
                if state.tries == 1 {
                    first.spawn(probe);
                } else {
                    tokio::spawn(probe);
                }
            }
        }
        first.join_all().await;
    }

    async fn probe(self: Arc<Self>, inode: u64, address: IpAddr, port: u16) {
        let scheme = probe::probe(address, port).await;
        if let Some(spoken) = lock(&self.spoken).get_mut(&inode) {
            spoken.scheme = scheme;
        }
    }
}

fn row(bound: &Bound, pid: u32, (process, command): &(String, String)) -> ListeningSocket {
    ListeningSocket {
        protocol: bound.protocol,
        address: bound.address,
        port: bound.port,
        pid,
        process: process.clone(),
        command: command.clone(),
        scheme: None,
    }
}

/// Leaves out what only repeats another row: the second family of the same address, and further
/// processes of one server. IPv4 comes first and stays.
fn once(mut rows: Vec<(u64, ListeningSocket)>) -> Vec<(u64, ListeningSocket)> {
    rows.sort_by_key(|(inode, it)| (it.protocol, it.port, it.address, it.pid, *inode));
    let mut seen = HashSet::new();
    rows.retain(|(_, it)| {
        let place = if it.address.is_unspecified() {
            "every address".to_owned()
        } else if it.address.is_loopback() {
            "loopback".to_owned()
        } else {
            it.address.to_string()
        };
        seen.insert((it.protocol, it.port, place, it.process.clone()))
    });
    rows
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn socket(address: &str, port: u16, process: &str) -> ListeningSocket {
        ListeningSocket {
            protocol: Transport::Tcp,
            address: address.parse().unwrap(),
            port,
            pid: 1,
            process: process.to_owned(),
            command: String::new(),
            scheme: None,
        }
    }

    #[test]
    fn both_families_and_several_workers_are_one_row() {
        let rows = [
            socket("::", 80, "nginx"),
            socket("0.0.0.0", 80, "nginx"),
            socket("0.0.0.0", 80, "nginx"),
            socket("127.0.0.1", 80, "other"),
            socket("::1", 6379, "redis"),
            socket("127.0.0.1", 6379, "redis"),
            socket("10.0.2.15", 6379, "redis"),
        ];
        let kept = once((0..).zip(rows).collect());
        let kept: Vec<_> = kept
            .iter()
            .map(|(_, it)| format!("{}:{}", it.address, it.port))
            .collect();
        assert_eq!(
            kept,
            ["0.0.0.0:80", "127.0.0.1:80", "10.0.2.15:6379", "127.0.0.1:6379"]
        );
    }

    #[tokio::test]
    async fn a_socket_is_found_and_asked_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = asked.send(());
                let mut question = [0; 512];
                let _ = stream.read(&mut question).await;
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
            }
        });
        let sockets = Arc::new(Sockets::default());
        for _ in 0..3 {
            let rows = sockets.list(1).await.unwrap();
            let row = rows.iter().find(|row| row.port == port).unwrap();
            assert_eq!(row.scheme, Some(Scheme::Http));
            assert_eq!((row.pid, row.address.is_loopback()), (std::process::id(), true));
        }
        server.abort();
        assert!(questions.recv().await.is_some());
        assert!(questions.try_recv().is_err(), "asked once");
        let rows = sockets.list(port).await.unwrap();
        assert!(rows.iter().all(|row| row.port != port), "the agent's own");
    }
}
