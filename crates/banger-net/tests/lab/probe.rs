//! Who reaches whom.

use std::fmt;
use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::{HERE, inside, syns};

/// How long an answer may take. What is refused is mostly refused at once.
const PATIENCE: Duration = Duration::from_millis(700);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Open,
    /// It arrives and is not answered.
    OneWay,
    Blocked,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "open",
            Self::OneWay => "one-way",
            Self::Blocked => "-",
        })
    }
}

/// Connects from a namespace. `place` is where the target is, when its arrivals are counted.
pub(crate) fn tcp(from: &str, to: SocketAddr, place: Option<&str>) -> Reach {
    let before = place.map(syns);
    let answer = inside(from, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(answer)
    });
    if answer.as_deref() == Some(HERE) {
        Reach::Open
    } else if before != place.map(syns) {
        Reach::OneWay
    } else {
        Reach::Blocked
    }
}

/// Sends a datagram and waits for the answer.
pub(crate) fn udp(from: &str, to: SocketAddr) -> Reach {
    let answer = inside(from, || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        socket.connect(to).ok()?;
        socket.send(b"?").ok()?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    });
    if answer.as_deref() == Some(HERE) {
        Reach::Open
    } else {
        Reach::Blocked
    }
}
