//! Requests from UDP and TCP, of whoever reaches the address: all of it is bounded.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::answer::{MAX_REQUEST, answer};
use crate::limit::Limit;
use crate::zone::Zone;

/// Requests that are answered in a second. One costs some 10 µs of the daemon's only thread.
const PER_SECOND: u32 = 2000;
/// TCP connections at a time. Clients use TCP when they choose to: no reply needs it.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may take for the next whole request, and for taking a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long no connection is taken after that failed, as it does without descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a port is looked for that is free for both protocols.
const TRIES: u32 = 16;

/// A socket of each protocol, at one address and port.
#[derive(Debug)]
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    port: u16,
}

impl Server {
    /// Takes a port at this address; 0 is one of the kernel's choice.
    ///
    /// # Errors
    /// When the address is not one of this host, or the port is somebody else's.
    pub async fn bind(address: Ipv4Addr, wanted: u16) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            let udp = UdpSocket::bind((address, wanted)).await?;
            let port = udp.local_addr()?.port();
            match TcpListener::bind((address, port)).await {
                Ok(tcp) => return Ok(Self { udp, tcp, port }),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && wanted == 0 && tries < TRIES => {
                    tries += 1;
                }
                Err(e) => return Err(e),
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers from what the zone is at each moment, until dropped. Returns only when its socket
    /// has failed, with the reason.
    pub async fn serve(self, zone: watch::Receiver<Arc<Zone>>) -> io::Error {
        let limit = Arc::new(Limit::new(PER_SECOND));
        tokio::select! {
            e = datagrams(&self.udp, &zone, &limit) => e,
            never = connections(&self.tcp, &zone, &limit) => match never {},
        }
    }
}

async fn datagrams(socket: &UdpSocket, zone: &watch::Receiver<Arc<Zone>>, limit: &Limit) -> io::Error {
    // One byte more shows what is too long.
    let mut buffer = [0; MAX_REQUEST + 1];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) => return e,
        };
        if !limit.admits() {
            continue;
        }
        let zone = zone.borrow().clone();
        if let Some(reply) = answer(&zone, &buffer[..length]) {
            // A client whose socket is full or gone asks again.
            let _ = socket.try_send_to(&reply, client);
        }
    }
}

async fn connections(
    listener: &TcpListener,
    zone: &watch::Receiver<Arc<Zone>>,
    limit: &Arc<Limit>,
) -> std::convert::Infallible {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Dropped, and so closed, where there are too many.
                Ok((stream, _)) if open.len() < MAX_CONNECTIONS => {
                    let (zone, limit) = (zone.clone(), limit.clone());
                    open.spawn(async move { converse(stream, &zone, &limit).await });
                }
                Ok(_) => {}
                Err(e) => {
                    tracing::debug!(error = %e, "Cannot take a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Serves a connection until the client leaves it, breaks a rule, or is too slow.
async fn converse(mut stream: TcpStream, zone: &watch::Receiver<Arc<Zone>>, limit: &Limit) {
    let mut buffer = [0; MAX_REQUEST];
    loop {
        let exchanged = timeout(PATIENCE, exchange(&mut stream, &mut buffer, zone, limit));
        if !matches!(exchanged.await, Ok(Ok(()))) {
            return;
        }
    }
}

/// One request and its reply, each after its length (RFC 7766, 8).
async fn exchange(
    stream: &mut TcpStream,
    buffer: &mut [u8; MAX_REQUEST],
    zone: &watch::Receiver<Arc<Zone>>,
    limit: &Limit,
) -> io::Result<()> {
    let length = usize::from(stream.read_u16().await?);
    let request = buffer.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
    stream.read_exact(request).await?;
    if !limit.admits() {
        return Err(io::ErrorKind::QuotaExceeded.into());
    }
    let zone = zone.borrow().clone();
    let reply = answer(&zone, request).ok_or(io::ErrorKind::InvalidData)?;
    let length = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    // In one piece: two would wait for each other's acknowledgement.
    stream
        .write_all(&[&length.to_be_bytes()[..], &reply].concat())
        .await
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RData, RecordType};

    use super::*;

    type Names = watch::Sender<Arc<Zone>>;

    fn zone(last: u8) -> Arc<Zone> {
        let address = Ipv4Addr::new(10, 119, 0, last);
        Arc::new([("alpha".parse().unwrap(), address)].into_iter().collect())
    }

    async fn serve() -> (Names, u16, JoinSet<io::Error>) {
        let server = Server::bind(Ipv4Addr::LOCALHOST, 0).await.unwrap();
        let names = watch::Sender::new(zone(16));
        let port = server.port();
        let mut task = JoinSet::new();
        task.spawn(server.serve(names.subscribe()));
        (names, port, task)
    }

    fn question(id: u16) -> Vec<u8> {
        let mut request = Message::new(id, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(
            Name::from_ascii("alpha.vm.").unwrap(),
            RecordType::A,
        ));
        request.to_vec().unwrap()
    }

    fn last_octet(reply: &[u8], id: u16) -> u8 {
        let reply = Message::from_vec(reply).unwrap();
        assert_eq!((reply.id, reply.response_code), (id, ResponseCode::NoError));
        match reply.answers[0].data {
            RData::A(address) => address.0.octets()[3],
            ref other => panic!("{other}"),
        }
    }

    async fn ask(stream: &mut TcpStream, id: u16) -> u8 {
        let request = question(id);
        stream
            .write_u16(u16::try_from(request.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(&request).await.unwrap();
        let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut reply).await.unwrap();
        last_octet(&reply, id)
    }

    #[tokio::test]
    async fn both_protocols_answer_what_is_now() {
        let (names, port, _task) = serve().await;
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        udp.connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let mut buffer = [0; 512];
        // What is no request gets no reply, and does no harm.
        for garbage in [&[][..], &[0xff; 12], &[0; MAX_REQUEST + 100]] {
            udp.send(garbage).await.unwrap();
        }
        for (id, last) in [(1, 16), (2, 17)] {
            names.send_replace(zone(last));
            udp.send(&question(id)).await.unwrap();
            let length = udp.recv(&mut buffer).await.unwrap();
            assert_eq!(last_octet(&buffer[..length], id), last);
            assert_eq!(ask(&mut tcp, id).await, last);
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_a_rule_is_closed() {
        let (_names, port, _task) = serve().await;
        let too_long = u16::try_from(MAX_REQUEST + 1).unwrap().to_be_bytes();
        let no_request = [&[0, 12][..], &[0xff; 12]].concat();
        for bytes in [&too_long[..], &no_request, &[0, 0]] {
            let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            tcp.write_all(bytes).await.unwrap();
            assert_eq!(tcp.read(&mut [0; 8]).await.unwrap(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_hung_up_on() {
        let (_names, port, _task) = serve().await;
        let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        // Time moves on when nobody has anything to do.
        tcp.write_all(&[0]).await.unwrap();
        assert_eq!(tcp.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_connections() {
        let (_names, port, _task) = serve().await;
        let mut open = Vec::new();
        for id in 0..MAX_CONNECTIONS {
            let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            assert_eq!(ask(&mut tcp, u16::try_from(id).unwrap()).await, 16);
            open.push(tcp);
        }
        let mut one_more = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        assert_eq!(one_more.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(ask(&mut open[3], 1).await, 16);
    }

    #[tokio::test]
    async fn an_address_of_another_host_is_refused() {
        let error = Server::bind(Ipv4Addr::new(192, 0, 2, 1), 0).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn a_port_that_was_named_is_taken_or_refused() {
        let any = Server::bind(Ipv4Addr::LOCALHOST, 0).await.unwrap();
        let taken = Server::bind(Ipv4Addr::LOCALHOST, any.port()).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let port = any.port();
        drop(any);
        assert_eq!(
            Server::bind(Ipv4Addr::LOCALHOST, port).await.unwrap().port(),
            port
        );
    }
}
