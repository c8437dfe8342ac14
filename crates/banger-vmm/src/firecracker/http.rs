//! The part of HTTP/1.1 (RFC 9112) that Firecracker's API speaks: one request, one answer with a
//! length, on a connection that stays open.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The longest head of an answer, in bytes; Firecracker's have about 100.
const MAX_HEAD: usize = 4096;
const MAX_HEADERS: usize = 32;
/// The longest body that is taken, in bytes: a fault is a sentence, an instance's state a line.
pub(super) const MAX_BODY: usize = 64 << 10;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer. The connection is of no use after any of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Closed,
    NotUnderstood,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Its own length, and the body's.
    bytes: usize,
    body: usize,
}

/// Sends one request and reads its answer.
pub(super) async fn exchange(
    stream: &mut UnixStream,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<Answer, Fault> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
    if let Some(body) = body {
        let length = body.len();
        request.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
    } else {
        request.push_str("\r\n");
    }
    // One that answers before it has read all, and closes, is still to be heard.
    let sent = stream.write_all(request.as_bytes()).await;
    match read(stream).await {
        Err(Fault::Closed) if sent.is_err() => Err(Fault::Closed),
        answer => answer,
    }
}

async fn read(stream: &mut UnixStream) -> Result<Answer, Fault> {
    let mut buffer = Vec::with_capacity(512);
    let head = loop {
        if let Some(head) = parse(&buffer)? {
            break head;
        }
        if buffer.len() >= MAX_HEAD {
            return Err(Fault::NotUnderstood);
        }
        more(stream, &mut buffer).await?;
    };
    let whole = head.bytes + head.body;
    while buffer.len() < whole {
        more(stream, &mut buffer).await?;
    }
    // Nobody asked for more.
    if buffer.len() > whole {
        return Err(Fault::NotUnderstood);
    }
    let body = buffer.split_off(head.bytes);
    let status = head.status;
    Ok(Answer { status, body })
}

async fn more(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> Result<(), Fault> {
    let room = MAX_HEAD + MAX_BODY + 1 - buffer.len();
    let mut limited = stream.take(room as u64);
    match limited.read_buf(buffer).await {
        Ok(0) | Err(_) => Err(Fault::Closed),
        Ok(_) => Ok(()),
    }
}

/// The head, once it is whole.
fn parse(buffer: &[u8]) -> Result<Option<Head>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let bytes = match response.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Fault::NotUnderstood),
    };
    let mut length = None;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Fault::NotUnderstood);
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            // Two of them would be two opinions.
            if length.is_some() {
                return Err(Fault::NotUnderstood);
            }
            length = Some(number(header.value).ok_or(Fault::NotUnderstood)?);
        }
    }
    let body = length.unwrap_or(0);
    if bytes > MAX_HEAD || body > MAX_BODY {
        return Err(Fault::NotUnderstood);
    }
    let status = response.code.ok_or(Fault::NotUnderstood)?;
    Ok(Some(Head { status, bytes, body }))
}

fn number(text: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?.trim();
    // `parse` would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of an answer that arrives byte by byte, then ends.
    async fn answer(said: &[u8]) -> Result<Answer, Fault> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let said = said.to_vec();
        let server = tokio::spawn(async move {
            let mut request = [0; 512];
            let _ = theirs.read(&mut request).await;
            for byte in said {
                // It may have been given up.
                if theirs.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        });
        let answer = exchange(&mut ours, "GET", "/", None).await;
        drop(ours);
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn firecracker_s_answers_are_read() {
        let done = b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";
        let empty = Answer {
            status: 204,
            body: vec![],
        };
        assert_eq!(answer(done).await, Ok(empty));
        let fault = b"HTTP/1.1 400 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\
            Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        let body = b"{}".to_vec();
        assert_eq!(answer(fault).await, Ok(Answer { status: 400, body }));
    }

    #[tokio::test]
    async fn anything_else_ends_the_connection() {
        for said in [
            &b"\x00\xff nonsense\r\n\r\n"[..],
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 \r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\n{}",
            b"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 \r\nContent-Length: +1\r\n\r\n{",
            b"HTTP/1.1 200 \r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"HTTP/1.1 200 \r\nContent-Length: 65537\r\n\r\n",
        ] {
            assert_eq!(answer(said).await, Err(Fault::NotUnderstood), "{said:?}");
        }
        for said in [
            &b""[..],
            b"HTTP/1.1 2",
            b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n{}",
        ] {
            assert_eq!(answer(said).await, Err(Fault::Closed), "{said:?}");
        }
    }

    #[tokio::test]
    async fn a_head_without_an_end_is_given_up() {
        let mut said = b"HTTP/1.1 200 \r\n".to_vec();
        said.extend(b"X: y\r\n".repeat(10));
        said.extend(b"Long: ".iter().chain(&[b'x'; 2 * MAX_HEAD]));
        assert_eq!(answer(&said).await, Err(Fault::NotUnderstood));
        let many = [b"HTTP/1.1 200 \r\n".to_vec(), b"X: y\r\n".repeat(MAX_HEADERS + 1)].concat();
        assert_eq!(answer(&many).await, Err(Fault::NotUnderstood));
    }
}
