//! Debian's `docker-registry`, filled by `skopeo`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use banger_image::Digest;
use banger_image::layer::Compression;
use banger_image::oci::{OciError, Reference};
use serde_json::{Value, json};

use crate::registry::{CONFIG, GZIP, INDEX, MANIFEST, configuration, entry};
use crate::{Client, bytes, required, say};

const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A registry in a process of its own.
struct Debian {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Debian {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Debian {
    /// Nothing where the programs are missing. `auth` is the configuration of the logins.
    fn start(auth: &str) -> Option<Self> {
        for program in ["docker-registry", "skopeo"] {
            if Command::new(program).arg("--version").output().is_err() {
                assert!(!required("image"), "{program} is missing");
                say(&format!("skipped: no {program}"));
                return None;
            }
        }
        // It cannot be told to take any free port: somebody may be faster with the one found.
        (0..16)
            .find_map(|_| Self::start_once(auth))
            .or_else(|| panic!("no port is free"))
    }

    fn start_once(auth: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\n\
             http: {{addr: '{address}', secret: test}}\n{auth}",
            root = dir.path().join("data").display(),
            auth = auth.replace("DIR", dir.path().to_str().unwrap()),
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        // Nobody has a login.
        fs::write(dir.path().join("htpasswd"), "").unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let listens = log.any(|line| line.unwrap().contains("listening on"));
        // It goes on to write: the pipe must not fill.
        std::thread::spawn(move || log.for_each(drop));
        let started = Self {
            process,
            address,
            _dir: dir,
        };
        listens.then_some(started)
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    /// Copies a layout into the registry.
    fn push(&self, layout: &Layout, name: &str, options: &[&str]) {
        let out = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .args(options)
            .arg(format!("oci:{}:image", layout.0.path().display()))
            .arg(format!("docker://{}/{name}", self.address))
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// An OCI image layout of one image.
struct Layout(tempfile::TempDir);

impl Layout {
    fn new() -> Self {
        let layout = Self(tempfile::tempdir().unwrap());
        let write = |name: &str, text: &str| fs::write(layout.0.path().join(name), text).unwrap();
        write("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#);
        fs::create_dir_all(layout.0.path().join("blobs/sha256")).unwrap();
        layout
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn path(&self, digest: &Digest) -> std::path::PathBuf {
        let blobs: &Path = self.0.path();
        blobs.join("blobs/sha256").join(digest.hex())
    }

    /// The manifest of an image for an architecture.
    fn manifest(&self, architecture: &str, media_type: &str, layers: &[Vec<u8>]) -> Value {
        let config = configuration("linux", architecture, layers.len()).to_string();
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(layer, media_type)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(config.as_bytes(), CONFIG),
            "layers": layers,
        });
        self.blob(manifest.to_string().as_bytes(), MANIFEST)
    }

    /// Makes a manifest or an index the image.
    fn finish(&self, mut top: Value) {
        top["annotations"] = json!({"org.opencontainers.image.ref.name": "image"});
        let index = json!({"schemaVersion": 2, "manifests": [top]});
        fs::write(self.0.path().join("index.json"), index.to_string()).unwrap();
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn images_of_both_kinds_and_compressions_are_pulled() {
    let Some(registry) = Debian::start("") else { return };
    let content = [bytes(2_000_000), bytes(10), bytes(400_000)].map(|bytes| gzip(&bytes));
    let layout = Layout::new();
    layout.finish(layout.manifest("amd64", GZIP, &content));
    registry.push(&layout, "team/oci:1", &[]);
    registry.push(&layout, "team/docker:1", &["--format", "v2s2"]);
    let client = Client::new();
    for name in ["team/oci:1", "team/docker:1"] {
        let (manifest, pulled) = client.pull(&registry.reference(name)).unwrap();
        assert_eq!(pulled, content, "{name}");
        assert!(
            manifest
                .layers
                .iter()
                .all(|layer| layer.compression == Compression::Gzip)
        );
    }
    let content = [zstd::encode_all(&content[0][..], 1).unwrap()];
    layout.finish(layout.manifest("amd64", ZSTD, &content));
    registry.push(&layout, "team/zstd:1", &[]);
    let (manifest, pulled) = client.pull(&registry.reference("team/zstd:1")).unwrap();
    assert_eq!(pulled, content);
    assert_eq!(manifest.layers[0].compression, Compression::Zstd);
    let failure = client.failure(&registry.reference("team/none:1"));
    assert!(matches!(failure, OciError::NotFound { .. }), "{failure}");
    drop(registry);
    let offline = Client {
        offline: true,
        ..client
    };
    let gone = manifest.reference.parse().unwrap();
    assert_eq!(offline.pull(&gone).unwrap().1, pulled);
}

#[test]
fn an_index_of_many_platforms_is_pulled() {
    let Some(registry) = Debian::start("") else { return };
    let layout = Layout::new();
    let mine = [gzip(&bytes(100_000))];
    let mut entries = Vec::new();
    for (architecture, layers) in [("arm64", [gzip(b"other")]), ("amd64", mine.clone())] {
        let manifest = layout.manifest(architecture, GZIP, &layers);
        let digest = manifest["digest"].as_str().unwrap().parse().unwrap();
        let size = usize::try_from(manifest["size"].as_u64().unwrap()).unwrap();
        entries.push(entry(&digest, size, &format!("linux/{architecture}")));
    }
    let index = |entries: &[Value]| {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        layout.finish(layout.blob(index.to_string().as_bytes(), INDEX));
    };
    index(&entries);
    registry.push(&layout, "multi:1", &["--all"]);
    index(&entries[..1]);
    registry.push(&layout, "other:1", &["--all"]);
    let client = Client::new();
    assert_eq!(client.pull(&registry.reference("multi:1")).unwrap().1, mine);
    let failure = client.failure(&registry.reference("other:1"));
    assert!(failure.to_string().contains("only for linux/arm64"), "{failure}");
}

#[test]
fn a_login_is_asked_for() {
    let auth = "auth: {htpasswd: {realm: test, path: DIR/htpasswd}}\n";
    let Some(registry) = Debian::start(auth) else {
        return;
    };
    let failure = Client::new().failure(&registry.reference("app:1"));
    assert!(
        matches!(failure, OciError::LoginRequired { refused: false, .. }),
        "{failure}"
    );
}
