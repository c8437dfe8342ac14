//! Registries that lie: each lie has its error, and nothing of it stays in the cache.

use banger_image::Digest;
use banger_image::oci::OciError;
use serde_json::{Value, json};

use crate::registry::{CONFIG, GZIP, INDEX, MANIFEST, Registry, Reply, Request, configuration, entry};
use crate::{Client, bytes, layers};

/// A lie: what it is, how it is told, and whether an error is the right one.
struct Lie {
    name: &'static str,
    tell: fn(&Registry),
    is: fn(&OciError) -> bool,
}

macro_rules! lie {
    ($name:literal, $tell:expr, $error:pat) => {
        Lie {
            name: $name,
            tell: $tell,
            is: |error| matches!(error, $error),
        }
    };
}

#[test]
fn each_lie_has_its_error_and_leaves_nothing() {
    let lies = [
        // Bodies.
        lie!(
            "an endless manifest",
            |server| {
                endless(server, Request::is_manifest, None);
            },
            OciError::TooLarge { .. }
        ),
        lie!(
            "a huge manifest",
            |server| {
                endless(server, Request::is_manifest, Some(5 << 20));
            },
            OciError::TooLarge { .. }
        ),
        lie!(
            "an endless configuration",
            |server| {
                server.image("app:1", &[]);
                endless(server, Request::is_blob, None);
            },
            OciError::TooLarge { .. }
        ),
        lie!(
            "an endless layer",
            |server| {
                server.image("app:1", &layers(1));
                server
                    .rule(|request, number| (number == 2 && request.is_blob()).then(|| endless_reply(None)));
            },
            OciError::SizeMismatch { .. }
        ),
        lie!(
            "a layer that is longer than announced",
            |server| {
                layer(server, |bytes| Reply::new(200, [bytes, b"x"].concat()));
            },
            OciError::SizeMismatch { .. }
        ),
        lie!(
            "a layer that is shorter than announced",
            |server| {
                layer(server, |bytes| Reply::new(200, &bytes[1..]));
            },
            OciError::SizeMismatch { .. }
        ),
        lie!(
            "a layer whose end never comes",
            |server| {
                layer(server, |bytes| Reply::new(200, bytes).cut(0));
            },
            OciError::BrokenOff { .. }
        ),
        lie!(
            "another layer of the same size",
            |server| {
                layer(server, |bytes| Reply::new(200, vec![0; bytes.len()]));
            },
            OciError::DigestMismatch { .. }
        ),
        lie!(
            "a part of a layer that nobody asked for",
            |server| {
                layer(server, |bytes| {
                    Reply::new(206, &bytes[5..])
                        .with("Content-Range", &format!("bytes 5-{0}/{0}", bytes.len()))
                });
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "a layer that is not there",
            |server| {
                layer(server, |_| Reply::new(404, ""));
            },
            OciError::NotFound { .. }
        ),
        // Digests.
        lie!(
            "a manifest of another digest than announced",
            |server| {
                let manifest = server.manifest(&layers(1)).to_string();
                server.rule(move |request, _| {
                    let reply = Reply::new(200, manifest.clone()).with("Content-Type", &MANIFEST);
                    request
                        .is_manifest()
                        .then(|| reply.with("Docker-Content-Digest", &Digest::of(b"x")))
                });
            },
            OciError::DigestMismatch { .. }
        ),
        lie!(
            "a digest that is none",
            |server| {
                let manifest = server.manifest(&layers(1)).to_string();
                server.rule(move |_, _| {
                    let reply = Reply::new(200, manifest.clone()).with("Content-Type", &MANIFEST);
                    Some(reply.with("Docker-Content-Digest", &"sha256:../../etc"))
                });
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "an index whose manifest is another",
            |server| {
                index(server, 0, "linux/amd64");
                swap(server, Request::is_manifest, 1, b"{}");
            },
            OciError::DigestMismatch { .. }
        ),
        lie!(
            "an index with another size of its manifest",
            |server| {
                index(server, 1, "linux/amd64");
            },
            OciError::SizeMismatch { .. }
        ),
        lie!(
            "another configuration",
            |server| {
                server.image("app:1", &[]);
                let other = configuration("linux", "amd64", 0).to_string();
                swap(
                    server,
                    Request::is_blob,
                    0,
                    other.replace("/bin/sh", "/bin/no").as_bytes(),
                );
            },
            OciError::DigestMismatch { .. }
        ),
        lie!(
            "a configuration of another size",
            |server| {
                server.image("app:1", &[]);
                swap(server, Request::is_blob, 0, b"{}");
            },
            OciError::SizeMismatch { .. }
        ),
        // Documents.
        lie!(
            "no JSON",
            |server| {
                server.rule(|_, _| Some(Reply::new(200, "<html>").with("Content-Type", &MANIFEST)));
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "a login page",
            |server| {
                server.rule(|_, _| Some(Reply::new(200, "<html>").with("Content-Type", &"text/html")));
            },
            OciError::Malformed { .. } | OciError::Unsupported { .. }
        ),
        lie!(
            "an empty answer",
            |server| {
                server.rule(|_, _| Some(Reply::new(200, "")));
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "both an index and a manifest",
            |server| {
                document(server, "manifests", json!([]), MANIFEST);
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "one type inside, another outside",
            |server| {
                document(server, "mediaType", json!(MANIFEST), INDEX);
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "schema 1",
            |server| {
                document(
                    server,
                    "schemaVersion",
                    json!(1),
                    "application/vnd.docker.distribution.manifest.v1+prettyjws",
                );
            },
            OciError::Unsupported { .. }
        ),
        lie!(
            "a manifest of another type than its index says",
            |server| {
                index(server, 0, "linux/amd64");
                server.rule(|request, number| {
                    let manifest = json!({"schemaVersion": 2, "config": {}, "layers": []});
                    (request.is_manifest() && number == 1).then(|| Reply::new(200, manifest.to_string()))
                });
            },
            OciError::DigestMismatch { .. }
        ),
        lie!(
            "513 layers",
            |server| {
                let layer = json!({"mediaType": GZIP, "digest": Digest::of(b"x"), "size": 1});
                document(server, "layers", json!(vec![layer; 513]), MANIFEST);
            },
            OciError::TooLarge { .. }
        ),
        lie!(
            "layers of too many bytes",
            |server| {
                let layer = json!({"mediaType": GZIP, "digest": Digest::of(b"x"), "size": 33_u64 << 30});
                document(server, "layers", json!([layer, layer]), MANIFEST);
            },
            OciError::TooLarge { .. }
        ),
        lie!(
            "a layer of 2^64 bytes",
            |server| {
                let layer = json!({"mediaType": GZIP, "digest": Digest::of(b"x"), "size": u64::MAX});
                document(server, "layers", json!([layer]), MANIFEST);
            },
            OciError::TooLarge { .. }
        ),
        lie!(
            "one layer with two sizes",
            |server| {
                let layer = |size: u64| json!({"mediaType": GZIP, "digest": Digest::of(b"x"), "size": size});
                document(server, "layers", json!([layer(1), layer(2)]), MANIFEST);
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "a path for a digest",
            |server| {
                let layer = json!({"mediaType": GZIP, "digest": "sha256:../../../../etc/passwd", "size": 1});
                document(server, "layers", json!([layer]), MANIFEST);
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "a huge configuration",
            |server| {
                let config = json!({"mediaType": CONFIG, "digest": Digest::of(b"x"), "size": 5 << 20});
                document(server, "config", config, MANIFEST);
            },
            OciError::TooLarge { .. }
        ),
        lie!(
            "a Helm chart",
            |server| {
                let config = json!({"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": Digest::of(b"x"), "size": 2});
                document(server, "config", config, MANIFEST);
            },
            OciError::Unsupported { .. }
        ),
        lie!(
            "a foreign layer",
            |server| {
                let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
                let layer = json!({"mediaType": foreign, "digest": Digest::of(b"x"), "size": 1, "urls": ["https://evil.example"]});
                document(server, "layers", json!([layer]), MANIFEST);
            },
            OciError::Unsupported { .. }
        ),
        // Platforms.
        lie!(
            "other platforms alone",
            |server| {
                index(server, 0, "linux/riscv64");
            },
            OciError::WrongPlatform { .. }
        ),
        lie!(
            "another platform in the configuration",
            |server| {
                config(server, &configuration("linux", "arm64", 1));
            },
            OciError::WrongPlatform { .. }
        ),
        lie!(
            "an empty index",
            |server| {
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
                server.document("app:1", &index, INDEX);
            },
            OciError::WrongPlatform { .. }
        ),
        lie!(
            "more layers in the configuration",
            |server| {
                config(server, &configuration("linux", "amd64", 2));
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "a configuration that is no object",
            |server| {
                config(server, &json!("configuration"));
            },
            OciError::Malformed { .. }
        ),
        // Indexes in indexes.
        lie!(
            "five indexes in one another",
            |server| {
                let manifest = server.manifest(&[]);
                let mut size = manifest.to_string().len();
                let mut digest = server.document("app:0", &manifest, MANIFEST);
                for depth in 0..5 {
                    let mut inner = entry(&digest, size, "linux/amd64");
                    if depth > 0 {
                        inner["mediaType"] = json!(INDEX);
                    }
                    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]});
                    size = index.to_string().len();
                    digest = server.document("app:1", &index, INDEX);
                }
            },
            OciError::Malformed { .. }
        ),
        lie!(
            "an index that leads to itself",
            |server| {
                let mut inner = entry(&Digest::of(b"x"), 300, "linux/amd64");
                inner["mediaType"] = json!(INDEX);
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}).to_string();
                server.rule(move |request, _| {
                    request
                        .is_manifest()
                        .then(|| Reply::new(200, index.clone()).with("Content-Type", &INDEX))
                });
            },
            OciError::DigestMismatch { .. }
        ),
        // Redirects and logins.
        lie!(
            "redirects in a circle",
            |server| {
                server.rule(|request, _| Some(Reply::new(307, "").with("Location", &request.path)));
            },
            OciError::Redirect { .. }
        ),
        lie!(
            "a redirect to plain HTTP elsewhere",
            |server| {
                server.rule(|_, _| Some(Reply::new(302, "").with("Location", &"http://192.0.2.1/x")));
            },
            OciError::Redirect { .. }
        ),
        lie!(
            "a redirect to a file",
            |server| {
                server.rule(|_, _| Some(Reply::new(302, "").with("Location", &"file:///etc/passwd")));
            },
            OciError::Redirect { .. }
        ),
        lie!(
            "a redirect with credentials",
            |server| {
                server.rule(|_, _| Some(Reply::new(302, "").with("Location", &"http://a:b@127.0.0.1/x")));
            },
            OciError::Redirect { .. }
        ),
        lie!(
            "a token server without TLS",
            |server| {
                challenge(server, r#"Bearer realm="http://192.0.2.1/token""#);
            },
            OciError::Challenge { .. }
        ),
        lie!(
            "a token server that is a file",
            |server| {
                challenge(server, r#"Bearer realm="file:///etc/passwd""#);
            },
            OciError::Challenge { .. }
        ),
        lie!(
            "a token server without an address",
            |server| {
                challenge(server, "Bearer");
            },
            OciError::Challenge { .. }
        ),
        lie!(
            "a challenge that is none",
            |server| {
                challenge(server, "=,,,\"");
            },
            OciError::Challenge { .. }
        ),
        lie!(
            "an unknown challenge",
            |server| {
                challenge(server, "Negotiate");
            },
            OciError::Challenge { .. }
        ),
        lie!(
            "an endless token",
            |server| {
                token(server, |_| endless_reply(None));
            },
            OciError::TooLarge { .. }
        ),
        lie!(
            "a token with a line break",
            |server| {
                token(server, |_| Reply::new(200, r#"{"token": "a\r\nX-Evil: 1"}"#));
            },
            OciError::Challenge { .. }
        ),
        lie!(
            "no token",
            |server| {
                token(server, |_| Reply::new(200, "{}"));
            },
            OciError::Challenge { .. }
        ),
        lie!(
            "a token that is refused",
            |server| {
                token(server, |_| Reply::new(200, r#"{"token": "t"}"#));
            },
            OciError::LoginRequired { refused: false, .. }
        ),
        lie!(
            "a token server that wants a login",
            |server| {
                token(server, |_| Reply::new(401, ""));
            },
            OciError::LoginRequired { refused: false, .. }
        ),
        lie!(
            "a password that nobody has",
            |server| {
                challenge(server, r#"Basic realm="x""#);
            },
            OciError::LoginRequired { refused: false, .. }
        ),
        lie!(
            "forbidden",
            |server| {
                server.rule(|_, _| Some(Reply::new(403, "")));
            },
            OciError::LoginRequired { refused: false, .. }
        ),
        lie!("nothing", |_| {}, OciError::NotFound { .. }),
        lie!(
            "a teapot",
            |server| {
                server.rule(|_, _| Some(Reply::new(418, "")));
            },
            OciError::Status { status: 418, .. }
        ),
    ];
    assert!(lies.len() >= 40);
    for Lie { name, tell, is } in lies {
        let server = Registry::start();
        tell(&server);
        let client = Client::new();
        let failure = client.failure(&server.reference("app:1"));
        assert!(is(&failure), "{name}: {failure:?}");
        let text = failure.to_string();
        assert!(
            text.len() < 1000 && !text.contains(['\u{1b}', '\r', '\n']),
            "{name}: {text:?}"
        );
        // The good documents of an image whose layer is bad may stay: they are what they are.
        let layers = [&layers(1)[0], &bytes(50_000)].map(|bytes| Digest::of(bytes).hex());
        for file in client.files() {
            assert!(!file.ends_with(".partial"), "{name}: {file}");
            assert!(!layers.contains(&file), "{name}: {file}");
        }
    }
}

/// Who names a blob of another's image with a wrong size does not take it away from him.
#[test]
fn a_lying_size_does_not_remove_a_good_blob() {
    let server = Registry::start();
    let content = layers(1);
    server.image("good:1", &content);
    let client = Client::new();
    client.pull(&server.reference("good:1")).unwrap();
    for size in [1, content[0].len() + 1] {
        let mut manifest = server.manifest(&content);
        manifest["layers"][0]["size"] = json!(size);
        server.document("app:1", &manifest, MANIFEST);
        let error = client.failure(&server.reference("app:1"));
        assert!(matches!(error, OciError::SizeMismatch { .. }), "{error}");
    }
    let offline = Client {
        offline: true,
        ..client
    };
    assert_eq!(offline.pull(&server.reference("good:1")).unwrap().1, content);
}

/// An image whose one layer is answered with `reply`.
fn layer(server: &Registry, reply: fn(&[u8]) -> Reply) {
    let content = bytes(50_000);
    server.image("app:1", std::slice::from_ref(&content));
    let digest = Digest::of(&content).to_string();
    server.rule(move |request, _| request.path.ends_with(&digest).then(|| reply(&content)));
}

/// The manifest of an image of one layer, with one field set.
fn document(server: &Registry, key: &str, value: Value, media_type: &str) {
    let mut manifest = server.manifest(&layers(1));
    manifest[key] = value;
    server.document("app:1", &manifest, media_type);
}

/// An image of one layer with this configuration.
fn config(server: &Registry, config: &Value) {
    let text = config.to_string().into_bytes();
    let digest = server.blob(&text);
    let config = json!({"mediaType": CONFIG, "digest": digest, "size": text.len()});
    document(server, "config", config, MANIFEST);
}

/// An index of one image for a platform, with so many bytes too many.
fn index(server: &Registry, more: usize, platform: &str) {
    let manifest = server.manifest(&layers(1));
    let size = manifest.to_string().len() + more;
    let digest = server.document("app:0", &manifest, MANIFEST);
    let manifests = json!([
        entry(&digest, size, platform),
        entry(&digest, size, "unknown/unknown")
    ]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    server.document("app:1", &index, INDEX);
}

/// Answers the request of this number among those that fit with another text.
fn swap(server: &Registry, fits: fn(&Request) -> bool, number: usize, text: &[u8]) {
    let text = text.to_vec();
    let seen = std::sync::atomic::AtomicUsize::new(0);
    server.rule(move |request, _| {
        let swap = fits(request) && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == number;
        swap.then(|| Reply::new(200, text.clone()))
    });
}

fn endless(server: &Registry, fits: fn(&Request) -> bool, length: Option<u64>) {
    server.rule(move |request, _| fits(request).then(|| endless_reply(length)));
}

fn endless_reply(length: Option<u64>) -> Reply {
    Reply {
        endless: true,
        length,
        ..Reply::new(200, "").with("Content-Type", &MANIFEST)
    }
}

fn challenge(server: &Registry, challenge: &'static str) {
    server.rule(move |_, _| Some(Reply::new(401, "").with("WWW-Authenticate", &challenge)));
}

/// Wants a token of its own server, which answers so.
fn token(server: &Registry, reply: fn(&Request) -> Reply) {
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", server.address);
    server.rule(move |request, _| {
        Some(if request.path.starts_with("/token") {
            reply(request)
        } else {
            Reply::new(401, "").with("WWW-Authenticate", &realm)
        })
    });
}
