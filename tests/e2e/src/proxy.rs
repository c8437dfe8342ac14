//! A proxy in front of a registry, which counts what is asked for, and answers as the real
//! world does: with demands for a token, too many requests, broken connections, wrong bytes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The head of a request and of an answer are at most this long.
const MAX_HEAD: u64 = 64 << 10;
/// Nobody is silent for so long.
const SILENCE: Duration = Duration::from_secs(60);

/// A request that came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// How many of the same path came before.
    pub earlier: usize,
    /// When it came.
    pub at: Instant,
}

/// What is done with a request.
#[derive(Debug, Clone)]
pub enum Action {
    /// The registry answers.
    Forward,
    /// The registry answers, and after so many bytes of the body the connection is gone.
    Cut(u64),
    /// The registry answers, and one bit of the body's byte at this place is another.
    Lie(u64),
    /// The registry is not asked.
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
}

/// A running proxy; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

type Rule = Arc<dyn Fn(&Request) -> Action + Send + Sync>;

struct Shared {
    upstream: String,
    seen: Arc<Mutex<Vec<Request>>>,
    rule: Rule,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

impl Proxy {
    /// A proxy in front of `upstream` (`HOST:PORT`) that only counts.
    pub fn start(upstream: &str) -> Self {
        Self::with_rule(upstream, |_| Action::Forward)
    }

    /// A proxy that does with each request what the rule says.
    ///
    /// # Panics
    /// When no port is free.
    pub fn with_rule(upstream: &str, rule: impl Fn(&Request) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it has one").to_string();
        let seen = Arc::default();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            seen: Arc::clone(&seen),
            rule: Arc::new(rule),
        });
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || accept(&listener, &shared, &end));
        Self {
            address,
            seen,
            ended,
            thread: Some(thread),
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The reference of an image behind this proxy.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // So that the thread looks.
        if TcpStream::connect(&self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, ended: &AtomicBool) {
    for client in listener.incoming().flatten() {
        if ended.load(Ordering::Acquire) {
            return;
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // Who leaves before the end has a reason of its own.
            _ = match read_request(&client) {
                Some(request) => serve(&client, request, &shared),
                // As servers do to who begins with TLS.
                None => (&client).write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
            };
            _ = client.shutdown(Shutdown::Both);
        });
    }
}

/// Reads the head of a request; `None` when there is none.
fn read_request(client: &TcpStream) -> Option<Request> {
    client.set_read_timeout(Some(SILENCE)).ok()?;
    let mut lines = head(client).ok()?.into_iter();
    let first = lines.next()?;
    let mut words = first.split(' ');
    let headers = lines.filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        Some((key.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        headers: headers.collect(),
        earlier: 0,
        at: Instant::now(),
    })
}

fn serve(client: &TcpStream, mut request: Request, shared: &Shared) -> io::Result<()> {
    {
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        request.earlier = seen.iter().filter(|other| other.path == request.path).count();
        seen.push(request.clone());
    }
    match (shared.rule)(&request) {
        Action::Forward => forward(client, &request, shared, |_| {}, u64::MAX),
        Action::Cut(bytes) => forward(client, &request, shared, |_| {}, bytes),
        Action::Lie(at) => {
            let mut place = Some(at);
            let lie = move |bytes: &mut [u8]| {
                let Some(at) = place else { return };
                match usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                    Some(byte) => {
                        *byte ^= 1;
                        place = None;
                    }
                    None => place = Some(at - bytes.len() as u64),
                }
            };
            forward(client, &request, shared, lie, u64::MAX)
        }
        Action::Answer {
            status,
            headers,
            body,
        } => answer(client, status, &headers, &body),
    }
}

fn answer(mut client: &TcpStream, status: u16, headers: &[(&str, String)], body: &str) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Said by the test\r\nConnection: close\r\n");
    text += &format!("Content-Length: {}\r\n", body.len());
    for (key, value) in headers {
        text += &format!("{key}: {value}\r\n");
    }
    client.write_all(format!("{text}\r\n{body}").as_bytes())
}

/// Passes a request on without its credentials, and the answer back.
fn forward(
    mut client: &TcpStream,
    request: &Request,
    shared: &Shared,
    mut change: impl FnMut(&mut [u8]),
    limit: u64,
) -> io::Result<()> {
    let mut upstream = TcpStream::connect(&shared.upstream)?;
    upstream.set_read_timeout(Some(SILENCE))?;
    let mut text = format!(
        "{} {} HTTP/1.1\r\nConnection: close\r\n",
        request.method, request.path
    );
    for (key, value) in &request.headers {
        if !matches!(key.as_str(), "connection" | "authorization") {
            text += &format!("{key}: {value}\r\n");
        }
    }
    upstream.write_all(format!("{text}\r\n").as_bytes())?;
    let answer = head(&upstream)?;
    client.write_all(format!("{}\r\n\r\n", answer.join("\r\n")).as_bytes())?;
    let mut left = limit;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = upstream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        let part = n.min(usize::try_from(left).unwrap_or(n));
        change(&mut buffer[..part]);
        client.write_all(&buffer[..part])?;
        left -= part as u64;
        if left == 0 {
            return Ok(());
        }
    }
}

/// The lines up to the empty one; not a byte more is taken from the stream.
fn head(stream: &TcpStream) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    // Byte by byte, so that the body stays where it is.
    let mut reader = BufReader::with_capacity(1, stream).take(MAX_HEAD);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let request = read_request(&client).unwrap();
                assert_eq!(request.header("authorization"), None);
                answer(&client, 200, &[], "0123456789").unwrap();
            }
        });
        address
    }

    fn get(proxy: &Proxy, path: &str) -> String {
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nAuthorization: x\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_rule_decides_and_everything_is_counted() {
        let proxy = Proxy::with_rule(&upstream(), |request| {
            match (request.path.as_str(), request.earlier) {
                ("/cut", 0) => Action::Cut(4),
                ("/lie", _) => Action::Lie(1),
                ("/busy", _) => Action::Answer {
                    status: 429,
                    headers: vec![("Retry-After", "1".to_owned())],
                    body: "slow".to_owned(),
                },
                _ => Action::Forward,
            }
        });
        assert!(get(&proxy, "/cut").ends_with("\r\n\r\n0123"));
        assert!(get(&proxy, "/cut").ends_with("\r\n\r\n0123456789"));
        assert!(get(&proxy, "/lie").ends_with("\r\n\r\n0023456789"));
        let busy = get(&proxy, "/busy");
        assert!(
            busy.starts_with("HTTP/1.1 429 ") && busy.contains("Retry-After: 1\r\n"),
            "{busy}"
        );
        let seen: Vec<_> = proxy.take().into_iter().map(|r| r.path).collect();
        assert_eq!(seen, ["/cut", "/cut", "/lie", "/busy"]);
        assert!(proxy.take().is_empty());
    }
}
