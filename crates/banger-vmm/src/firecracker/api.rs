//! The API of a Firecracker that runs: HTTP over a unix socket, one request at a time.
//! <https://github.com/firecracker-microvm/firecracker/blob/main/src/firecracker/swagger/firecracker.yaml>

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::config::MachineConfig;
use super::http::{Answer, Fault, exchange};
use super::probe::parse_number;
use super::{API_SOCKET, FirecrackerError, check_version};
use crate::engine::PlanError;
use crate::qemu::Version;

/// How long Firecracker may take to make its socket; it takes some milliseconds.
const APPEAR_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take for an answer. To start a machine it reads the kernel and the initramfs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A socket that has a name does not listen yet: `bind` and `listen` are two system calls.
const CONNECT_TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Longest text of an error that is repeated, in characters.
const MAX_TEXT: usize = 300;

/// The API of one Firecracker. A connection that broke is made again by the next request.
#[derive(Debug)]
pub struct Api {
    path: PathBuf,
    stream: Mutex<Option<UnixStream>>,
}

/// Where a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum InstanceState {
    #[serde(rename = "Not started")]
    NotStarted,
    Running,
    Paused,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("Firecracker made no socket {path:?}")]
    Appear {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("Firecracker made no socket {path:?} within {} seconds", APPEAR_LIMIT.as_secs())]
    Late { path: PathBuf },
    #[error("Cannot connect to Firecracker's socket {path:?}")]
    Connect {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("Firecracker is silent: no answer within {} seconds", ANSWER_LIMIT.as_secs())]
    Silent,
    #[error("The connection to Firecracker is closed")]
    Closed,
    #[error("Firecracker said something that is not understood")]
    NotUnderstood,
    /// Firecracker's own words.
    #[error("Firecracker refused {request}: {text}")]
    Refused { request: String, text: String },
    #[error("Not a machine for Firecracker")]
    Plan(#[from] PlanError),
    #[error("The Firecracker that runs cannot be used")]
    Version(#[from] FirecrackerError),
}

impl Api {
    /// Waits for the socket in the machine's directory, and connects.
    ///
    /// # Errors
    /// When it does not appear in time, or nothing listens on it.
    pub async fn connect(directory: &Path) -> Result<Self, ApiError> {
        let path = directory.join(API_SOCKET);
        let appears = banger_sys::inotify::appears(directory, API_SOCKET.as_ref());
        match tokio::time::timeout(APPEAR_LIMIT, appears).await {
            Ok(Ok(())) => {}
            Ok(Err(source)) => return Err(ApiError::Appear { path, source }),
            Err(_) => return Err(ApiError::Late { path }),
        }
        let stream = open(&path).await?;
        let stream = Mutex::new(Some(stream));
        Ok(Self { path, stream })
    }

    /// Describes the machine and starts it. What Firecracker answers for its version is checked
    /// first: the binary may have been replaced since it was examined.
    ///
    /// # Errors
    /// [`ApiError::Refused`] with Firecracker's own words.
    pub async fn start(&self, config: &MachineConfig) -> Result<(), ApiError> {
        let requests = config.requests()?;
        check_version(&self.path, self.version().await?)?;
        for put in requests {
            self.send("PUT", put.path, &put.body).await?;
        }
        self.action("InstanceStart").await
    }

    /// # Errors
    /// As every request.
    pub async fn state(&self) -> Result<InstanceState, ApiError> {
        #[derive(Deserialize)]
        struct Info {
            state: InstanceState,
        }
        let info: Info = self.get("/").await?;
        Ok(info.state)
    }

    /// Halts the virtual processors.
    ///
    /// # Errors
    /// As every request.
    pub async fn pause(&self) -> Result<(), ApiError> {
        self.send("PATCH", "/vm", &json!({"state": "Paused"})).await
    }

    /// Lets the virtual processors go on.
    ///
    /// # Errors
    /// As every request.
    pub async fn resume(&self) -> Result<(), ApiError> {
        self.send("PATCH", "/vm", &json!({"state": "Resumed"})).await
    }

    /// Presses these keys; a guest with a driver for the keyboard shuts down, or restarts, which
    /// ends Firecracker too.
    ///
    /// # Errors
    /// As every request.
    pub async fn send_ctrl_alt_del(&self) -> Result<(), ApiError> {
        self.action("SendCtrlAltDel").await
    }

    async fn version(&self) -> Result<Version, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            firecracker_version: String,
        }
        let answer: Answer = self.get("/version").await?;
        parse_number(&answer.firecracker_version).ok_or(ApiError::NotUnderstood)
    }

    async fn action(&self, action: &str) -> Result<(), ApiError> {
        self.send("PUT", "/actions", &json!({"action_type": action}))
            .await
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Result<(), ApiError> {
        self.request(method, path, Some(&body.to_string()))
            .await
            .map(drop)
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, ApiError> {
        let body = self.request("GET", path, None).await?;
        serde_json::from_slice(&body).map_err(|_| ApiError::NotUnderstood)
    }

    async fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<Vec<u8>, ApiError> {
        let mut held = self.stream.lock().await;
        // Taken, and put back after a whole exchange: a caller that is dropped in the middle
        // must not leave its answer to the next.
        let mut stream = match held.take() {
            Some(stream) => stream,
            None => open(&self.path).await?,
        };
        let answer = exchange(&mut stream, method, path, body);
        let answer = match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Fault::Closed)) => return Err(ApiError::Closed),
            Ok(Err(Fault::NotUnderstood)) => return Err(ApiError::NotUnderstood),
            Err(_) => return Err(ApiError::Silent),
        };
        *held = Some(stream);
        match answer.status {
            200..=299 => Ok(answer.body),
            _ => Err(ApiError::Refused {
                request: format!("{method} {path}"),
                text: fault_message(&answer),
            }),
        }
    }
}

async fn open(path: &Path) -> Result<UnixStream, ApiError> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused && tries < CONNECT_TRIES => {
                tokio::time::sleep(pause).await;
                pause *= 2;
                tries += 1;
            }
            Err(source) => {
                let path = path.to_owned();
                return Err(ApiError::Connect { path, source });
            }
        }
    }
}

/// Firecracker's sentence about what was wrong, as it may reach a terminal.
fn fault_message(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Fault {
        fault_message: String,
    }
    let text = match serde_json::from_slice::<Fault>(&answer.body) {
        Ok(fault) => fault.fault_message,
        Err(_) => format!("status {}", answer.status),
    };
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::TapNetwork;
    use crate::firecracker::http::MAX_BODY;

    type Seen = mpsc::UnboundedReceiver<String>;

    /// A Firecracker that answers each request as `answer` says, and closes where it says nothing.
    async fn fake(
        answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> (tempfile::TempDir, Api, Seen) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(API_SOCKET);
        let (sender, seen) = mpsc::unbounded_channel();
        let answer = Arc::new(answer);
        let api = Api::connect(home.path());
        let (api, ()) = tokio::join!(api, async {
            let listener = UnixListener::bind(&path).unwrap();
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream, answer.clone(), sender.clone()));
                }
            });
        });
        (home, api.unwrap(), seen)
    }

    async fn serve(
        stream: UnixStream,
        answer: Arc<impl Fn(&str) -> Option<Vec<u8>>>,
        seen: mpsc::UnboundedSender<String>,
    ) {
        let mut stream = BufReader::new(stream);
        while let Some(request) = request(&mut stream).await {
            let said = answer(&request);
            let _ = seen.send(request);
            let Some(said) = said else { return };
            if stream.write_all(&said).await.is_err() {
                return;
            }
        }
    }

    /// `METHOD /path body`.
    async fn request(stream: &mut BufReader<UnixStream>) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.ok()?;
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
        Some(format!("{line} {}", String::from_utf8(body).unwrap()))
    }

    fn said(status: u16, body: &str) -> Option<Vec<u8>> {
        let length = body.len();
        Some(format!("HTTP/1.1 {status} \r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
    }

    fn config() -> MachineConfig {
        MachineConfig {
            vcpus: 1,
            memory_mib: 128,
            cmdline: "quiet".into(),
            tap: Some(TapNetwork {
                name: "bt0".into(),
                queue: None,
                mac: [2, 0, 0, 0, 0, 1],
            }),
        }
    }

    fn version(version: &'static str) -> impl Fn(&str) -> Option<Vec<u8>> {
        move |request| match request {
            "GET /version " => said(200, &json!({ "firecracker_version": version }).to_string()),
            _ => said(204, ""),
        }
    }

    #[tokio::test]
    async fn a_machine_is_described_whole_and_then_started() {
        let (_home, api, mut seen) = fake(version("1.15.1")).await;
        api.start(&config()).await.unwrap();
        let mut paths = Vec::new();
        while let Ok(request) = seen.try_recv() {
            paths.push(request.split(' ').take(2).collect::<Vec<_>>().join(" "));
            if request.starts_with("PUT /actions") {
                assert!(request.ends_with(r#"{"action_type":"InstanceStart"}"#));
            }
        }
        assert_eq!(
            paths,
            [
                "GET /version",
                "PUT /machine-config",
                "PUT /boot-source",
                "PUT /drives/root",
                "PUT /vsock",
                "PUT /entropy",
                "PUT /balloon",
                "PUT /network-interfaces/eth0",
                "PUT /actions",
            ]
        );
    }

    #[tokio::test]
    async fn the_version_that_runs_is_checked_before_anything_is_said() {
        let (_home, api, mut seen) = fake(version("1.14.3")).await;
        let error = api.start(&config()).await.unwrap_err();
        assert!(matches!(error, ApiError::Version(_)), "{error}");
        assert_eq!(seen.try_recv().unwrap(), "GET /version ");
        assert!(seen.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_refusal_has_firecracker_s_own_words_and_ends_the_start() {
        let (_home, api, mut seen) = fake(|request| {
            if request.starts_with("GET /version") {
                return version("1.16.0")(request);
            }
            match request.contains("/network-interfaces") {
                true => said(
                    400,
                    r#"{"fault_message":"Cannot create TAP\ndevice: \u001b[31mEPERM"}"#,
                ),
                false => said(204, ""),
            }
        })
        .await;
        let error = api.start(&config()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "Firecracker refused PUT /network-interfaces/eth0: Cannot create TAP device:  [31mEPERM"
        );
        while let Ok(request) = seen.try_recv() {
            assert!(!request.contains("InstanceStart"));
        }
    }

    #[tokio::test]
    async fn states_and_what_changes_them() {
        let (_home, api, mut seen) = fake(|request| match request {
            "GET / " => said(
                200,
                r#"{"id":"a","state":"Not started","vmm_version":"1","app_name":"x"}"#,
            ),
            _ => said(204, ""),
        })
        .await;
        assert_eq!(api.state().await.unwrap(), InstanceState::NotStarted);
        api.pause().await.unwrap();
        api.resume().await.unwrap();
        api.send_ctrl_alt_del().await.unwrap();
        let mut lines = Vec::new();
        while let Ok(request) = seen.try_recv() {
            lines.push(request);
        }
        assert_eq!(
            lines,
            [
                "GET / ",
                r#"PATCH /vm {"state":"Paused"}"#,
                r#"PATCH /vm {"state":"Resumed"}"#,
                r#"PUT /actions {"action_type":"SendCtrlAltDel"}"#,
            ]
        );
    }

    #[tokio::test]
    async fn garbage_huge_answers_and_ends_are_errors_and_the_next_request_connects_again() {
        for (said_first, expected) in [
            (Some(b"\x00\xffnonsense\r\n\r\n".to_vec()), "not understood"),
            (said(200, &"x".repeat(MAX_BODY + 1)), "not understood"),
            (said(200, "[]"), "not understood"),
            (said(500, &"<html>".repeat(100)), "status 500"),
            (None, "closed"),
        ] {
            let first = std::sync::Mutex::new(Some(said_first));
            let (_home, api, _seen) = fake(move |_| match first.lock().unwrap().take() {
                Some(said) => said,
                None => said(200, r#"{"state":"Running"}"#),
            })
            .await;
            let error = api.state().await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(api.state().await.unwrap(), InstanceState::Running);
        }
    }

    #[tokio::test]
    async fn a_request_that_was_dropped_leaves_no_answer_to_the_next() {
        let (_home, api, mut seen) = fake(|request| match request {
            "GET / " => said(200, r#"{"state":"Paused"}"#),
            _ => Some(b"HTTP/1.1 204 ".to_vec()),
        })
        .await;
        {
            let mut pause = std::pin::pin!(api.pause());
            // Until the request has arrived, of which the answer never ends.
            tokio::select! {
                _ = &mut pause => panic!("There is no answer"),
                request = seen.recv() => assert!(request.unwrap().starts_with("PATCH")),
            }
        }
        assert_eq!(api.state().await.unwrap(), InstanceState::Paused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_firecracker_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let api = Api {
            path: "/nowhere".into(),
            stream: Mutex::new(Some(ours)),
        };
        assert!(matches!(api.pause().await, Err(ApiError::Silent)));
        // The silent connection is not used again.
        assert!(matches!(api.pause().await, Err(ApiError::Connect { .. })));
    }

    #[tokio::test]
    async fn a_directory_that_goes_is_no_wait() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("vm");
        std::fs::create_dir(&directory).unwrap();
        let (api, ()) = tokio::join!(Api::connect(&directory), async {
            std::fs::remove_dir(&directory).unwrap();
        });
        assert!(matches!(api, Err(ApiError::Appear { .. })));
    }
}
