//! Published ports over a real SSH connection to a guest that stands in the test.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::guest::fake::{FakeGuest, new_key};

const VM: VmId = VmId::from_bytes([1; 16]);

async fn agent() -> (FakeGuest, Arc<Agent>) {
    let key = new_key();
    let guest = FakeGuest::start(&key).await;
    let agent = Agent::new(&guest.endpoint, Arc::new(key)).unwrap();
    (guest, agent)
}

/// A server of the guest that answers everything, when it was sent, by its length and itself.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await?;
                stream.write_all(format!("{} ", all.len()).as_bytes()).await?;
                stream.write_all(&all).await?;
                stream.shutdown().await
            });
        }
    });
    port
}

async fn ask(port: u16, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(question).await?;
    // Only one direction ends.
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn an_end_of_one_direction_is_passed_on_and_many_go_at_once() {
    let (_guest, agent) = agent().await;
    let ports = Ports::default();
    let reserved = ports.reserve(VM, 0).unwrap();
    let host = reserved.host;
    ports.keep(VM, &[(host, echo().await)], move || Ok(agent.clone()));
    drop(reserved);
    let large = vec![b'x'; 3 << 20];
    let asked = (0..40_usize).map(|number| {
        let question = if number == 7 {
            large.clone()
        } else {
            number.to_string().into_bytes()
        };
        async move {
            let answer = ask(host, &question).await.unwrap();
            let expected = [format!("{} ", question.len()).as_bytes(), &question].concat();
            assert!(answer == expected, "{number}");
        }
    });
    futures_util::future::join_all(asked).await;
}

#[tokio::test]
async fn a_port_is_taken_once_and_free_when_it_is_closed() {
    let (_guest, agent) = agent().await;
    let way = move || Ok(agent.clone());
    let ports = Ports::default();
    let reserved = ports.reserve(VM, 0).unwrap();
    let host = reserved.host;
    let taken = ports.reserve(VM, host).err().unwrap();
    assert!(taken.message.contains(&host.to_string()), "{taken}");
    ports.keep(VM, &[(host, echo().await)], way.clone());
    drop(reserved);
    assert_eq!(ask(host, b"a").await.unwrap(), b"1 a");
    // Another VM's changes are nothing to it, and its own end closes it.
    ports.keep(VmId::from_bytes([2; 16]), &[], way.clone());
    assert_eq!(ask(host, b"a").await.unwrap(), b"1 a");
    let task = ports.lock().doors[&(VM, host)].task.clone();
    ports.keep(VM, &[], way);
    while !task.is_finished() {
        tokio::task::yield_now().await;
    }
    drop(ports.reserve(VM, host).unwrap());
    assert!(ports.lock().spare.is_empty());
}

#[tokio::test]
async fn where_nothing_listens_the_connection_ends() {
    let (_guest, agent) = agent().await;
    let ports = Ports::default();
    let reserved = ports.reserve(VM, 0).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap().port();
    drop(closed);
    ports.keep(VM, &[(reserved.host, nobody)], move || Ok(agent.clone()));
    let mut stream = TcpStream::connect(("127.0.0.1", reserved.host)).await.unwrap();
    let mut rest = Vec::new();
    // An end or a reset: it is told either way.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}

#[test]
fn what_is_refused_names_the_port() {
    for kind in [
        io::ErrorKind::AddrInUse,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::Other,
    ] {
        let error = refused(80, &kind.into());
        assert!(error.message.contains("127.0.0.1:80"), "{error}");
    }
}
