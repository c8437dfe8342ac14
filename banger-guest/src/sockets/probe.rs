//! What a socket speaks, by what it answers: TLS's greeting first, because servers of both
//! answer a plain question on their TLS port in plain text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use banger_model::figures::Scheme;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For each of the two questions. A server on the same machine that answers takes milliseconds.
const LIMIT: Duration = Duration::from_millis(150);
const HEAD: &[u8] = b"HEAD / HTTP/1.0\r\n\r\n";
const ANSWER: usize = 6;

/// Asks; `None` when it is neither or does not answer in time.
pub(super) async fn probe(address: IpAddr, port: u16) -> Option<Scheme> {
    let target = SocketAddr::new(reachable(address), port);
    match ask(target, &client_hello()).await {
        Some(scheme) => Some(scheme),
        None => ask(target, HEAD).await,
    }
}

async fn ask(target: SocketAddr, question: &[u8]) -> Option<Scheme> {
    let asking = async {
        let mut stream = TcpStream::connect(target).await.ok()?;
        stream.write_all(question).await.ok()?;
        let mut answer = [0; ANSWER];
        stream.read_exact(&mut answer).await.ok()?;
        scheme_of(answer)
    };
    timeout(LIMIT, asking).await.ok()?
}

/// A server's greeting or an alert of any version of TLS (RFC 8446, sections 4 and 5.1), or a status
/// line. Who sends back what he gets sends a client's greeting.
fn scheme_of(answer: [u8; ANSWER]) -> Option<Scheme> {
    match answer {
        [22, 3, 0..=4, _, _, 2] | [21, 3, 0..=4, ..] => Some(Scheme::Https),
        [b'H', b'T', b'T', b'P', b'/', _] => Some(Scheme::Http),
        _ => None,
    }
}

fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// A ClientHello of TLS 1.2 (RFC 5246, section 7.4.1.2) that offers HTTP by ALPN (RFC 7301). Its
/// random bytes are the end of a request's head: who expects text answers that it is wrong,
/// instead of waiting for more.
fn client_hello() -> Vec<u8> {
    const SUITES: [u16; 8] = [0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0x009c, 0x002f];
    /// supported_groups, ec_point_formats, signature_algorithms, ALPN http/1.1.
    const EXTENSIONS: &[u8] = &[
        0, 10, 0, 8, 0, 6, 0, 29, 0, 23, 0, 24, //
        0, 11, 0, 2, 1, 0, //
        0, 13, 0, 14, 0, 12, 4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 2, 1, //
        0, 16, 0, 11, 0, 9, 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1',
    ];
    let mut body = vec![3, 3];
    body.extend(b"\r\n\r\n".repeat(8));
    body.push(0);
    body.extend(length(2 * SUITES.len()));
    body.extend(SUITES.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    body.extend(length(EXTENSIONS.len()));
    body.extend(EXTENSIONS);
    let mut record = vec![22, 3, 1];
    record.extend(length(body.len() + 4));
    record.extend([1, 0]);
    record.extend(length(body.len()));
    record.extend(body);
    record
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("the greeting is short").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What a server that answers a first question with `answer` is found to speak.
    async fn found(answer: &'static [u8]) -> Option<Scheme> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = vec![0; 512];
                let _ = stream.read(&mut question).await;
                let _ = stream.write_all(answer).await;
            }
        };
        tokio::select! {
            found = probe(Ipv4Addr::UNSPECIFIED.into(), port) => found,
            () = serve => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn answers_tell_what_is_spoken() {
        assert_eq!(found(&[22, 3, 3, 0, 80, 2]).await, Some(Scheme::Https));
        assert_eq!(found(&[21, 3, 1, 0, 2, 2, 40]).await, Some(Scheme::Https));
        assert_eq!(found(b"HTTP/1.1 400 Bad Request\r\n").await, Some(Scheme::Http));
        assert_eq!(found(b"SSH-2.0-x\r\n").await, None);
        // What an echo answers to the question about TLS.
        assert_eq!(found(&[22, 3, 1, 0, 80, 1]).await, None);
        assert_eq!(found(b"").await, None);
    }

    #[tokio::test]
    async fn one_who_says_nothing_is_not_waited_for() {
        // The kernel accepts for it.
        let listener = TcpListener::bind("[::1]:0").await;
        let Ok(listener) = listener else {
            println!("skipped: no IPv6 here");
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let start = std::time::Instant::now();
        assert_eq!(probe(Ipv6Addr::UNSPECIFIED.into(), port).await, None);
        assert!(start.elapsed() < 20 * LIMIT);
    }

    #[test]
    fn the_greeting_is_as_long_as_it_says() {
        let hello = client_hello();
        assert_eq!(
            usize::from(u16::from_be_bytes([hello[3], hello[4]])),
            hello.len() - 5
        );
        assert_eq!(
            usize::from(u16::from_be_bytes([hello[7], hello[8]])),
            hello.len() - 9
        );
    }
}
