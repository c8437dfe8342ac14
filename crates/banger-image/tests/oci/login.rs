//! Logins, TLS and proxies.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use banger_image::oci;
use banger_image::{Cancel, NoProgress};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::child::{SECURE, pull};
use crate::registry::{Registry, Reply, Request};
use crate::{Client, layers, say};

fn docker_config(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), text).unwrap();
    dir
}

/// A registry for `user` with the password `secret`.
fn with_password() -> Registry {
    let server = Registry::start();
    server.image("team/app:1", &layers(2));
    server.rule(|request, _| {
        // user:secret
        let known = request.header("authorization") == Some("Basic dXNlcjpzZWNyZXQ=");
        (!known).then(|| Reply::new(401, "").with("WWW-Authenticate", &r#"Basic realm="here""#))
    });
    server
}

#[test]
fn a_password_is_taken_from_dockers_file() {
    let server = with_password();
    let reference = format!("{}/team/app:1", server.address);
    let pull = |auth: &str| {
        let config = docker_config(&format!(r#"{{"auths": {{"{}": {auth}}}}}"#, server.address));
        pull(&reference, &[("DOCKER_CONFIG", config.path().as_os_str())])
    };
    let out = pull(r#"{"auth": "dXNlcjpzZWNyZXQ="}"#);
    assert!(out.contains("pulled 2 layers"), "{out}");
    // One request was refused; all others had the login.
    let refused = server
        .requests()
        .iter()
        .filter(|r| r.header("authorization").is_none())
        .count();
    assert_eq!(refused, 1);
    let out = pull(r#"{"auth": "dXNlcjp3cm9uZw=="}"#);
    assert!(out.contains("does not accept the credentials"), "{out}");
    assert_eq!(server.requests().len(), 2);
    let out = pull("{}");
    assert!(out.contains(&format!("docker login {}", server.address)), "{out}");
}

#[test]
fn a_helper_program_is_asked() {
    let server = with_password();
    let reference = format!("{}/team/app:1", server.address);
    let config = docker_config(r#"{"credsStore": "mine"}"#);
    let env = [("DOCKER_CONFIG", config.path().as_os_str())];
    let out = pull(&reference, &env);
    let why = "the one that is stored cannot be used: Cannot use the credentials";
    assert!(
        out.contains("message: Cannot use the credentials") && out.contains(why),
        "{out}"
    );
    let bin = tempfile::tempdir().unwrap();
    let helper = bin.path().join("docker-credential-mine");
    let script = "#!/bin/sh\necho '{\"ServerURL\":\"\",\"Username\":\"user\",\"Secret\":\"secret\"}'\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
    let out = pull(&reference, &[env[0], ("PATH", bin.path().as_os_str())]);
    assert!(out.contains("pulled 2 layers"), "{out}");
}

/// A registry that wants tokens of another server, which gives them as `give` says.
fn with_tokens(give: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> (Registry, Registry) {
    let (server, tokens) = (Registry::start(), Registry::start());
    server.image("team/app:1", &layers(2));
    tokens.rule(move |request, number| Some(give(request, number)));
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"the registry\",scope=\"repository:team/app:pull\"",
        tokens.address
    );
    server.rule(move |request, _| {
        let known = request
            .header("authorization")
            .is_some_and(|header| header.starts_with("Bearer good"));
        (!known).then(|| Reply::new(401, "").with("WWW-Authenticate", &challenge))
    });
    (server, tokens)
}

#[test]
fn a_token_server_sees_the_password_and_the_registry_the_token() {
    let (server, tokens) = with_tokens(|_, _| Reply::new(200, r#"{"access_token": "good"}"#));
    let config = format!(
        r#"{{"auths": {{"{}": {{"auth": "dXNlcjpzZWNyZXQ="}}}}}}"#,
        server.address
    );
    let config = docker_config(&config);
    let reference = format!("{}/team/app:1", server.address);
    let out = pull(&reference, &[("DOCKER_CONFIG", config.path().as_os_str())]);
    assert!(out.contains("pulled 2 layers"), "{out}");
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    let path = "/token?scope=repository%3Ateam%2Fapp%3Apull&service=the+registry";
    assert_eq!(asked[0].line(), format!("GET {path}"));
    for request in server.requests() {
        let header = request.header("authorization");
        assert!(
            header.is_none_or(|header| header.starts_with("Bearer ")),
            "{request:?}"
        );
    }
}

#[test]
fn an_identity_token_is_exchanged_by_a_form() {
    let (server, tokens) = with_tokens(|_, _| Reply::new(200, r#"{"token": "good"}"#));
    let config = format!(
        r#"{{"auths": {{"{}": {{"auth": "", "identitytoken": "my&token"}}}}}}"#,
        server.address
    );
    let config = docker_config(&config);
    let reference = format!("{}/team/app:1", server.address);
    let out = pull(&reference, &[("DOCKER_CONFIG", config.path().as_os_str())]);
    assert!(out.contains("pulled 2 layers"), "{out}");
    let asked = tokens.requests();
    assert_eq!(asked[0].line(), "POST /token");
    assert!(
        asked[0].body.contains("grant_type=refresh_token"),
        "{}",
        asked[0].body
    );
    assert!(
        asked[0].body.contains("refresh_token=my%26token"),
        "{}",
        asked[0].body
    );
    assert_eq!(asked[0].header("authorization"), None);
}

/// A form with a secret is not sent on, wherever a token server says.
#[test]
fn a_redirect_gets_no_identity_token() {
    let thief = Registry::start();
    let to = format!("http://{}/token", thief.address);
    let (server, _tokens) = with_tokens(move |_, _| Reply::new(307, "").with("Location", &to));
    let config = format!(
        r#"{{"auths": {{"{}": {{"identitytoken": "mine"}}}}}}"#,
        server.address
    );
    let config = docker_config(&config);
    let reference = format!("{}/team/app:1", server.address);
    let out = pull(&reference, &[("DOCKER_CONFIG", config.path().as_os_str())]);
    assert!(out.contains("error:"), "{out}");
    assert_eq!(thief.requests().len(), 0);
}

#[test]
fn a_token_that_ends_is_fetched_anew() {
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let (server, tokens) = with_tokens(move |_, _| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        Reply::new(200, format!(r#"{{"token": "good{number}"}}"#))
    });
    let challenge = format!("Bearer realm=\"http://{}/token\"", tokens.address);
    let uses = Mutex::new(0);
    server.rule(move |request, _| {
        let newest = format!("Bearer good{}", given.load(Ordering::SeqCst).wrapping_sub(1));
        let mut uses = uses.lock().unwrap();
        *uses += 1;
        // Of the first token only two requests may be made.
        let known = request.header("authorization") == Some(&newest);
        let over = newest.ends_with("good0") && *uses > 3;
        (!known || over).then(|| Reply::new(401, "").with("WWW-Authenticate", &challenge))
    });
    let client = Client::new();
    assert_eq!(client.pull(&server.reference("team/app:1")).unwrap().1, layers(2));
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn a_redirect_carries_no_login_away() {
    let (server, storage) = (Registry::start(), Registry::start());
    server.image("team/app:1", &layers(2));
    let seen = redirected(&server, &storage, &layers(2));
    assert_eq!(seen.len(), 3);
    for request in seen {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        assert!(request.path.ends_with("?signature=1"), "{request:?}");
    }
}

/// Pulls an image whose blobs are elsewhere, and returns what is asked there.
fn redirected(server: &Registry, storage: &Registry, content: &[Vec<u8>]) -> Vec<Request> {
    let everything = content.to_vec();
    let manifest = server.manifest(content);
    let configuration = crate::registry::configuration("linux", "amd64", content.len()).to_string();
    assert_eq!(manifest["config"]["size"], configuration.len());
    let known = move |path: &str| {
        let wanted = path.split("/blobs/").nth(1)?.split('?').next()?.to_owned();
        let all = everything
            .iter()
            .cloned()
            .chain([configuration.clone().into_bytes()]);
        all.into_iter()
            .find(|bytes| banger_image::Digest::of(bytes).to_string() == wanted)
    };
    storage.rule(move |request, _| known(&request.path).map(|bytes| Reply::new(200, bytes)));
    let (to, tokens) = (storage.address, Registry::start());
    tokens.rule(|_, _| Some(Reply::new(200, r#"{"token": "good"}"#)));
    let challenge = format!("Bearer realm=\"http://{}/token\"", tokens.address);
    server.rule(move |request, _| {
        if request.header("authorization") != Some("Bearer good") {
            return Some(Reply::new(401, "").with("WWW-Authenticate", &challenge));
        }
        let location = format!("http://{to}{}?signature=1", request.path);
        request
            .is_blob()
            .then(|| Reply::new(307, "").with("Location", &location))
    });
    let client = Client::new();
    let (_, pulled) = client.pull(&server.reference("team/app:1")).unwrap();
    assert_eq!(pulled, content);
    storage.requests()
}

/// A CA, and a certificate of it for `registry.test` and 127.0.0.1.
fn certificates(dir: &Path) -> bool {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca \
            -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry.test \
            -keyout key.pem -out request.pem
        echo subjectAltName=DNS:registry.test,IP:127.0.0.1 > names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile names -out cert.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(dir).output();
    made.is_ok_and(|out| out.status.success())
}

fn with_tls(dir: &Path) -> Registry {
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem"))
        .unwrap()
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    Registry::listen(move |stream| {
        let connection = rustls::ServerConnection::new(config.clone()).ok()?;
        Some(Box::new(rustls::StreamOwned::new(connection, stream)))
    })
}

#[test]
fn a_ca_of_ones_own_is_trusted_when_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        return say("skipped: no openssl to make certificates with");
    }
    let server = with_tls(dir.path());
    server.image("team/app:1", &layers(2));
    let reference = format!("{}/team/app:1", server.address);
    let secure = (SECURE, OsStr::new("1"));
    let out = pull(&reference, &[secure]);
    assert!(
        out.contains("error: Cannot trust") && out.contains("SSL_CERT_FILE"),
        "{out}"
    );
    assert_eq!(server.requests().len(), 0);
    let ca = dir.path().join("ca.pem");
    let out = pull(&reference, &[secure, ("SSL_CERT_FILE", ca.as_os_str())]);
    assert!(out.contains("pulled 2 layers"), "{out}");
    let plain = Registry::start();
    let out = pull(&format!("{}/team/app:1", plain.address), &[secure]);
    assert!(
        out.contains("does not speak TLS") && out.contains("--insecure"),
        "{out}"
    );
}

#[test]
fn proxies_of_the_environment_are_used_but_not_for_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        return say("skipped: no openssl to make certificates with");
    }
    let server = with_tls(dir.path());
    server.image("team/app:1", &layers(2));
    let (address, asked) = proxy(server.address);
    let proxy = format!("http://{address}");
    let ca = dir.path().join("ca.pem");
    let env = [
        (SECURE, OsStr::new("1")),
        ("SSL_CERT_FILE", ca.as_os_str()),
        ("HTTPS_PROXY", OsStr::new(&proxy)),
        ("HTTP_PROXY", OsStr::new(&proxy)),
    ];
    let out = pull("registry.test/team/app:1", &env);
    assert!(out.contains("pulled 2 layers"), "{out}");
    let lines: Vec<String> = asked.lock().unwrap().drain(..).collect();
    assert!(
        lines
            .iter()
            .all(|line| line == "CONNECT registry.test:443 HTTP/1.1"),
        "{lines:?}"
    );
    let bypass = ("NO_PROXY", OsStr::new("registry.test"));
    let out = pull("registry.test/team/app:1", &[env[0], env[1], env[2], bypass]);
    assert!(out.contains("Cannot reach registry.test"), "{out}");
    assert_eq!(asked.lock().unwrap().len(), 0);
    let plain = Registry::start();
    plain.image("team/app:1", &layers(2));
    let out = pull(&format!("{}/team/app:1", plain.address), &[env[2], env[3]]);
    assert!(out.contains("pulled 2 layers"), "{out}");
    assert_eq!(asked.lock().unwrap().len(), 0);
}

/// A proxy that brings every `CONNECT` to one address, and remembers what it was asked.
fn proxy(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, log) = (stream.unwrap(), log.clone());
            thread::spawn(move || tunnel(&stream, to, &log));
        }
    });
    (address, asked)
}

fn tunnel(client: &TcpStream, to: std::net::SocketAddr, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    log.lock().unwrap().push(first.trim_end().to_owned());
    let mut line = first;
    while !line.trim_end().is_empty() {
        line.clear();
        reader.read_line(&mut line).ok()?;
    }
    (&mut &*client)
        .write_all(b"HTTP/1.1 200 Connected\r\n\r\n")
        .ok()?;
    let server = TcpStream::connect(to).ok()?;
    let (mut from, mut back) = (server.try_clone().ok()?, client.try_clone().ok()?);
    thread::spawn(move || {
        _ = io::copy(&mut from, &mut back);
        _ = back.shutdown(std::net::Shutdown::Both);
    });
    _ = io::copy(&mut reader, &mut &server);
    _ = server.shutdown(std::net::Shutdown::Both);
    Some(())
}

#[test]
fn plain_http_is_refused_for_other_machines() {
    for host in ["192.0.2.1:5000", "registry.example", "localhost.example:80"] {
        let client = Client::new();
        let failure = client.failure(&format!("{host}/app:1").parse().unwrap());
        assert!(matches!(failure, oci::OciError::InsecureHost { .. }), "{failure}");
    }
    let server = Registry::start();
    server.image("app:1", &layers(1));
    let client = Client::new();
    let reference = format!("localhost:{}/app:1", server.address.port())
        .parse()
        .unwrap();
    let mut count = 0;
    let mut ready = |_: &oci::Manifest, _: usize, _| {
        count += 1;
        Ok(())
    };
    client
        .registry()
        .pull(&reference, &mut ready, &NoProgress, &Cancel::new())
        .unwrap();
    assert_eq!(count, 1);
}
