//! Images of a registry in the store: made by a confined process, as bangerd has it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;

use banger_image::catalog::Catalog;
use banger_image::image::{self, Image, Origin, Pull, PullReference};
use banger_image::unpack::{Unpacker, run_child};
use banger_image::{Cancel, Digest, Error, Mirrors, PartState};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use serde_json::json;

use crate::registry::{CONFIG, GZIP, MANIFEST, Registry};
use crate::{Client, Heard};

/// Not a test by itself: the unpacker's `main` when the standard input is its socket.
#[test]
fn child_entry() {
    if socket_type(io::stdin()) == Ok(SocketType::SEQPACKET) {
        let code = run_child();
        process::exit(i32::from(code != process::ExitCode::SUCCESS));
    }
}

/// A layer with one file, and the digest of its content.
fn layer(name: &str, text: &str) -> (Vec<u8>, Digest) {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    let content = archive.into_inner().unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&content).unwrap();
    (gzip.finish().unwrap(), Digest::of(&content))
}

/// Stores an image of such layers, made at a time in RFC 3339.
fn store(server: &Registry, name: &str, layers: &[(Vec<u8>, Digest)], created: &str) {
    let config = json!({
        "created": created,
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": ["A=1"], "User": "nobody"},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| layer.1).collect::<Vec<_>>()},
    });
    let config = config.to_string().into_bytes();
    let blob = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": server.blob(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "config": blob(CONFIG, &config),
        "layers": layers.iter().map(|layer| blob(GZIP, &layer.0)).collect::<Vec<_>>(),
    });
    server.document(name, &manifest, MANIFEST);
}

fn unpacker() -> Unpacker {
    Unpacker {
        program: "/proc/self/exe".into(),
        arguments: ["image::child_entry", "--exact", "--nocapture"]
            .map(Into::into)
            .to_vec(),
    }
}

struct Store {
    client: Client,
    images: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        Self {
            client: Client::new(),
            images: tempfile::tempdir().unwrap(),
        }
    }

    fn pull(&self, server: &Registry, name: &str, force: bool, heard: &Heard) -> Result<Image, Error> {
        let unpacker = unpacker();
        let pull = PullReference {
            images: self.images.path(),
            reference: &server.reference(name),
            name: &"mine:1".parse().unwrap(),
            kernel: &"debian-6.1".parse().unwrap(),
            registry: self.client.registry(),
            unpacker: &unpacker,
            force,
        };
        image::pull_reference(&pull, heard, &Cancel::new())
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.images.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn digest(path: &Path) -> Digest {
    Digest::of_reader(fs::File::open(path).unwrap()).unwrap()
}

#[test]
fn an_image_is_made_once_and_of_the_same_layers_the_same() {
    let server = Registry::start();
    let layers = [layer("a", "1"), layer("b", "2")];
    store(&server, "app:1", &layers, "2024-05-22T18:18:20Z");
    let (one, heard) = (Store::new(), Heard::default());
    let image = one.pull(&server, "app:1", false, &heard).unwrap();
    assert_eq!(image.name.as_str(), "mine:1");
    assert_eq!(image.config.env["A"], "1");
    assert_eq!(image.config.process.user.as_deref(), Some("nobody"));
    let Origin::Oci {
        reference,
        layers: fetched,
        ..
    } = &image.origin
    else {
        panic!("{:?}", image.origin)
    };
    assert_eq!(*reference, server.reference("app:1").to_string());
    assert_eq!(*fetched, layers.each_ref().map(|layer| Digest::of(&layer.0)));
    image::check_rootfs(&image.rootfs).unwrap();
    let states: Vec<_> = heard.parts.lock().unwrap().iter().map(|part| part.1).collect();
    assert_eq!(states.last(), Some(&PartState::Done));
    assert_eq!(
        states.iter().filter(|state| **state == PartState::Done).count(),
        2
    );

    // Again: one request, the same image, and a word about it.
    server.requests();
    let heard = Heard::default();
    assert_eq!(one.pull(&server, "app:1", false, &heard).unwrap(), image);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(heard.messages.lock().unwrap()[0], "Image mine:1 is up to date");

    // Again by force, and in another place: the same bytes.
    let bytes = digest(&image.rootfs);
    let again = one.pull(&server, "app:1", true, &Heard::default()).unwrap();
    assert_eq!(digest(&again.rootfs), bytes);
    let other = Store::new().pull(&server, "app:1", false, &Heard::default());
    assert!(other.is_ok());
    assert_eq!(one.entries().len(), 1);

    // A new manifest replaces it.
    store(&server, "app:1", &layers[..1], "2024-05-22T18:18:20Z");
    let newer = one.pull(&server, "app:1", false, &Heard::default()).unwrap();
    assert_ne!(digest(&newer.rootfs), bytes);
    assert_eq!(one.entries().len(), 1);
}

#[test]
fn force_makes_an_image_of_the_catalogue_again() {
    let server = Registry::start();
    store(&server, "app:1", &[layer("a", "1")], "2024-05-22T18:18:20Z");
    let text = format!(
        "[[image]]\nname = 'mine'\nkernel = 'debian-6.1'\ndescription = 'x'\nsource = [{{type = 'oci', reference = '{}'}}]",
        server.reference("app:1")
    );
    let catalog = Catalog::parse(&text, "test").unwrap();
    let here = Store::new();
    let unpacker = unpacker();
    let pull = |force| {
        let pull = Pull {
            images: here.images.path(),
            entry: catalog.images().next().unwrap(),
            kernel: None,
            mirrors: &Mirrors::default(),
            registry: here.client.registry(),
            unpacker: &unpacker,
            force,
        };
        image::pull(&pull, &Heard::default(), &Cancel::new()).unwrap()
    };
    let inode = |image: &Image| fs::metadata(&image.rootfs).unwrap().ino();
    let first = inode(&pull(false));
    assert_eq!(inode(&pull(false)), first);
    assert_ne!(inode(&pull(true)), first);
}

/// Some build tools date everything to the year 1, which no file system can.
#[test]
fn an_image_without_layers_or_a_sensible_date_is_one() {
    let server = Registry::start();
    store(&server, "app:1", &[], "0001-01-01T00:00:00Z");
    let pulls = Store::new();
    let image = pulls.pull(&server, "app:1", false, &Heard::default()).unwrap();
    image::check_rootfs(&image.rootfs).unwrap();
}

#[test]
fn a_layer_that_the_cache_spoilt_is_fetched_again() {
    let server = Registry::start();
    let layers = [layer("a", &"1".repeat(5000)), layer("b", "2")];
    store(&server, "app:1", &layers, "2024-05-22T18:18:20Z");
    let pulls = Store::new();
    let image = pulls.pull(&server, "app:1", false, &Heard::default()).unwrap();
    let bytes = digest(&image.rootfs);
    let name = Digest::of(&layers[0].0).hex();
    let blob = pulls.client.cache.path().join("oci/blobs/sha256").join(name);
    fs::write(&blob, vec![0; layers[0].0.len()]).unwrap();
    let heard = Heard::default();
    let image = pulls.pull(&server, "app:1", true, &heard).unwrap();
    assert_eq!(digest(&image.rootfs), bytes);
    assert!(heard.messages.lock().unwrap()[0].contains("was damaged"));
}

#[test]
fn a_layer_that_lies_about_its_content_makes_no_image() {
    let server = Registry::start();
    let liar = (layer("a", "1").0, Digest::of(b"another"));
    store(&server, "app:1", &[layer("b", "2"), liar], "2024-05-22T18:18:20Z");
    let pulls = Store::new();
    let error = pulls
        .pull(&server, "app:1", false, &Heard::default())
        .unwrap_err();
    assert!(matches!(error, Error::Layer { .. }), "{error}");
    assert_eq!(pulls.entries(), [""; 0].map(PathBuf::from));
}
