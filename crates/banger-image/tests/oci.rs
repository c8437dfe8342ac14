//! The registry client against a registry in this process that also lies.

#[path = "support/registry.rs"]
mod registry;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use banger_image::oci::{Manifest, OciError, Reference, RetryPolicy, cache};
use banger_image::{Cancel, Digest, Error, NoProgress, Part, PartState, Progress, oci};
use registry::{INDEX, MANIFEST, Registry, Reply, entry};
use serde_json::json;

type Result<T> = std::result::Result<T, Error>;

/// One cache, and how it is used.
struct Client {
    cache: tempfile::TempDir,
    offline: bool,
    cache_bytes: u64,
}

impl Client {
    fn new() -> Self {
        Self {
            cache: tempfile::tempdir().unwrap(),
            offline: false,
            cache_bytes: cache::DEFAULT_BYTES,
        }
    }

    fn registry(&self) -> oci::Registry<'_> {
        oci::Registry {
            cache: self.cache.path(),
            cache_bytes: self.cache_bytes,
            insecure: true,
            offline: self.offline,
            retry: RetryPolicy::immediate(),
        }
    }

    /// The manifest, and the layers as they were handed over.
    fn pull(&self, reference: &Reference) -> Result<(Manifest, Vec<Vec<u8>>)> {
        self.pull_with(reference, &NoProgress, &Cancel::new())
    }

    fn pull_with(
        &self,
        reference: &Reference,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<(Manifest, Vec<Vec<u8>>)> {
        let mut layers = Vec::new();
        let mut ready = |manifest: &Manifest, number: usize, mut blob: File| {
            assert_eq!(number, layers.len());
            let mut bytes = Vec::new();
            blob.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, manifest.layers[number].size);
            layers.push(bytes);
            Ok(())
        };
        let manifest = self.registry().pull(reference, &mut ready, progress, cancel)?;
        Ok((manifest, layers))
    }

    fn failure(&self, reference: &Reference) -> OciError {
        match self.pull(reference) {
            Err(Error::Oci { source, .. }) => *source,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{reference} was pulled"),
        }
    }

    /// The files of the cache, below it.
    fn files(&self) -> Vec<String> {
        files(self.cache.path())
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// Layers of different sizes and contents.
fn layers(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| bytes(100_000 * ((number * 7) % count) + 10 + number))
        .collect()
}

fn bytes(len: usize) -> Vec<u8> {
    let mut state = len as u32 | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn a_pull_hands_over_all_layers_in_order_and_keeps_them() {
    let server = Registry::start();
    let mut content = layers(7);
    // One layer twice: docker's empty one often is.
    content.push(content[2].clone());
    let digest = server.image("team/app:1", &content);
    let client = Client::new();
    let reference = server.reference("team/app:1");
    let (manifest, pulled) = client.pull(&reference).unwrap();
    assert_eq!(pulled, content);
    assert_eq!(manifest.digest, digest);
    assert_eq!(manifest.reference, format!("{}/team/app:1", server.address));
    assert_eq!(manifest.created, Some(1_716_401_900));
    assert_eq!(manifest.config.process.command, ["/bin/sh"]);
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| request.is_manifest()).count(), 1);
    assert_eq!(requests.iter().filter(|request| request.is_blob()).count(), 8);

    // Again: one request for the manifest, and nothing else.
    assert_eq!(
        client.pull(&reference).unwrap(),
        (manifest.clone(), content.clone())
    );
    let lines: Vec<String> = server.requests().iter().map(registry::Request::line).collect();
    assert_eq!(lines, ["HEAD /v2/team/app/manifests/1"]);

    // By its digest, and offline: none at all.
    let pinned = server.reference(&format!("team/app@{digest}"));
    assert_eq!(client.pull(&pinned).unwrap().1, content);
    let offline = Client {
        offline: true,
        ..client
    };
    assert_eq!(offline.pull(&reference).unwrap(), (manifest, content));
    assert!(matches!(
        offline.failure(&server.reference("team/app:2")),
        OciError::Offline
    ));
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_tag_that_moved_is_fetched_again() {
    let server = Registry::start();
    let client = Client::new();
    let reference = server.reference("app:1");
    server.image("app:1", &layers(2));
    client.pull(&reference).unwrap();
    let digest = server.image("app:1", &layers(3));
    let (manifest, pulled) = client.pull(&reference).unwrap();
    assert_eq!((manifest.digest, pulled), (digest, layers(3)));
}

#[test]
fn unwanted_layers_are_not_fetched() {
    let server = Registry::start();
    let digest = server.image("app:1", &layers(2));
    let client = Client::new();
    let manifest = client.registry().pull_if(
        &server.reference("app:1"),
        &mut |manifest| manifest.digest != digest,
        &mut |_, _, _| panic!("unwanted"),
        &NoProgress,
        &Cancel::new(),
    );
    assert_eq!(manifest.unwrap().digest, digest);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn an_index_leads_to_this_platform() {
    let server = Registry::start();
    let content = layers(2);
    let manifest = server.manifest(&content);
    let size = manifest.to_string().len();
    let mine = server.document("app:mine", &manifest, MANIFEST);
    let other = Digest::of(b"other");
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            entry(&other, 5, "linux/arm64/v8"),
            entry(&other, 5, "unknown/unknown"),
            entry(&mine, size, "linux/amd64"),
        ],
    });
    server.document("app:1", &index, INDEX);
    let client = Client::new();
    let (pulled, blobs) = client.pull(&server.reference("app:1")).unwrap();
    assert_eq!((pulled.digest, blobs), (mine, content));
    server.requests();
    client.pull(&server.reference("app:1")).unwrap();
    assert_eq!(server.requests().len(), 1);
}
