//! A registry in this process that does what a test tells it: it speaks HTTP/1.1 on a loopback
//! address, counts its requests, and can lie, stall and break off.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use banger_image::Digest;
use serde_json::{Value, json};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The registry of a test; it ends with it.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    log: Mutex<Vec<Request>>,
    rule: Mutex<Option<Rule>>,
    done: AtomicBool,
}

/// Answers a request before the registry itself does. The number counts requests from 0.
type Rule = Arc<dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync>;

#[derive(Default)]
struct Content {
    /// By `repository:tag` and `repository@digest`: the media type and the text.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// An answer, which may not be what it says.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The length that is announced; of the body unless it is set.
    pub(crate) length: Option<u64>,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// The body goes on for ever.
    pub(crate) endless: bool,
    /// Nothing more comes, and the connection stays.
    pub(crate) stall: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            length: None,
            cut: None,
            endless: false,
            stall: false,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::listen(|stream| Some(Box::new(stream)))
    }

    /// With something around each connection, as TLS.
    pub(crate) fn listen(
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let server = shared.clone();
        let wrap = Arc::new(wrap);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.done.load(Ordering::SeqCst) {
                    return;
                }
                let (server, wrap) = (server.clone(), wrap.clone());
                thread::spawn(move || {
                    if let Some(stream) = wrap(stream.unwrap()) {
                        serve(&server, stream);
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// A reference in this registry.
    pub(crate) fn reference(&self, name: &str) -> banger_image::oci::Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    /// From now on `rule` is asked first.
    pub(crate) fn rule(&self, rule: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Some(Arc::new(rule));
    }

    /// The registry itself again.
    pub(crate) fn no_rule(&self) {
        *self.shared.rule.lock().unwrap() = None;
    }

    /// All requests since the last time.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.log.lock().unwrap())
    }

    pub(crate) fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.content().blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    /// Stores a document under its digest and a tag. `name` is `repository:tag`.
    pub(crate) fn document(&self, name: &str, document: &Value, media_type: &str) -> Digest {
        let text = document.to_string().into_bytes();
        let digest = Digest::of(&text);
        let repository = name.split(':').next().unwrap();
        let mut content = self.content();
        let stored = (media_type.to_owned(), text);
        content
            .manifests
            .insert(format!("{repository}@{digest}"), stored.clone());
        content.manifests.insert(name.to_owned(), stored);
        digest
    }

    /// Stores an image of these layers, and returns the digest of its manifest.
    pub(crate) fn image(&self, name: &str, layers: &[Vec<u8>]) -> Digest {
        let manifest = self.manifest(layers);
        self.document(name, &manifest, MANIFEST)
    }

    /// The manifest of an image whose blobs are here.
    pub(crate) fn manifest(&self, layers: &[Vec<u8>]) -> Value {
        let config = configuration("linux", "amd64", layers.len())
            .to_string()
            .into_bytes();
        let blob = |media_type: &str, bytes: &[u8]| {
            json!({
                "mediaType": media_type,
                "digest": self.blob(bytes).to_string(),
                "size": bytes.len(),
            })
        };
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob(CONFIG, &config),
            "layers": layers.iter().map(|bytes| blob(GZIP, bytes)).collect::<Vec<_>>(),
        })
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.content.lock().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::SeqCst);
        // Wakes the listener.
        _ = TcpStream::connect(self.address);
    }
}

/// What a test may put around a connection.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// The configuration of an image; its layers have made-up contents.
pub(crate) fn configuration(os: &str, architecture: &str, layers: usize) -> Value {
    let diff_ids: Vec<String> = (0..layers)
        .map(|number| Digest::of(&number.to_le_bytes()).to_string())
        .collect();
    json!({
        "created": "2024-05-22T18:18:20Z",
        "os": os,
        "architecture": architecture,
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// An entry of an index for a platform.
pub(crate) fn entry(digest: &Digest, size: usize, platform: &str) -> Value {
    let mut words = platform.split('/');
    json!({
        "mediaType": MANIFEST,
        "digest": digest.to_string(),
        "size": size,
        "platform": {"os": words.next(), "architecture": words.next(), "variant": words.next().unwrap_or_default()},
    })
}

fn serve(shared: &Shared, stream: Box<dyn Stream>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        let number = {
            let mut log = shared.log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let rule = shared.rule.lock().unwrap().clone();
        let reply = rule
            .and_then(|rule| rule(&request, number))
            .unwrap_or_else(|| answer(&shared.content.lock().unwrap(), &request));
        if !send(stream.get_mut(), &request, &reply) {
            return;
        }
    }
    // What is no HTTP gets an answer, too; who has left does not hear it.
    _ = stream.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
}

fn read_request(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |text: &String| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        path,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}

/// What an honest registry says.
fn answer(content: &Content, request: &Request) -> Reply {
    let not_found = || {
        Reply::new(
            404,
            r#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no"}]}"#,
        )
    };
    let Some(path) = request.path.strip_prefix("/v2/") else {
        return not_found();
    };
    if let Some((repository, selector)) = path.split_once("/manifests/") {
        let separator = if selector.contains(':') { '@' } else { ':' };
        let found = content
            .manifests
            .get(&format!("{repository}{separator}{selector}"));
        return found.map_or_else(not_found, |(media_type, text)| {
            Reply::new(200, text.clone())
                .with("Content-Type", &media_type)
                .with("Docker-Content-Digest", &Digest::of(text))
        });
    }
    let found = path
        .split_once("/blobs/")
        .and_then(|(_, digest)| content.blobs.get(digest));
    let Some(bytes) = found else { return not_found() };
    let from = request.header("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    match from {
        None => Reply::new(200, bytes.clone()),
        Some(from) if from < bytes.len() => Reply::new(206, &bytes[from..]).with(
            "Content-Range",
            &format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
        Some(_) => Reply::new(416, ""),
    }
}

/// Sends an answer. Whether the connection can be used again.
fn send(stream: &mut Box<dyn Stream>, request: &Request, reply: &Reply) -> bool {
    let mut head = format!("HTTP/1.1 {} Said\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let chunked = reply.endless && reply.length.is_none();
    if chunked {
        head += "Transfer-Encoding: chunked\r\n";
    } else {
        head += &format!(
            "Content-Length: {}\r\n",
            reply.length.unwrap_or(reply.body.len() as u64)
        );
    }
    head += "\r\n";
    let mut send = |bytes: &[u8]| stream.write_all(bytes).and_then(|()| stream.flush()).is_ok();
    if !send(head.as_bytes()) {
        return false;
    }
    if request.method == "HEAD" {
        return true;
    }
    if reply.endless {
        let piece = vec![b' '; 1 << 16];
        let size = format!("{:x}\r\n", piece.len());
        while !chunked || send(size.as_bytes()) {
            if !send(&piece) || (chunked && !send(b"\r\n")) {
                break;
            }
        }
        return false;
    }
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    if !send(body) {
        return false;
    }
    if reply.stall {
        // Until the other side goes.
        _ = stream.read(&mut [0; 1]);
        return false;
    }
    reply.cut.is_none() && reply.length.is_none()
}
