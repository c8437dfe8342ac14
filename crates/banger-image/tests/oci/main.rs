//! The registry client against registries: one in this process that also lies, and Debian's.

#[path = "../support/registry.rs"]
mod registry;

mod child;
mod hostile;
mod image;
mod login;
mod pull;
mod real;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

use banger_image::oci::{Manifest, OciError, Reference, RetryPolicy, cache};
use banger_image::{Cancel, Error, NoProgress, Part, PartState, Progress, oci};

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// One cache, and how it is used.
pub(crate) struct Client {
    pub(crate) cache: tempfile::TempDir,
    pub(crate) offline: bool,
    pub(crate) cache_bytes: u64,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            cache: tempfile::tempdir().unwrap(),
            offline: false,
            cache_bytes: cache::DEFAULT_BYTES,
        }
    }

    pub(crate) fn registry(&self) -> oci::Registry<'_> {
        oci::Registry {
            cache: self.cache.path(),
            cache_bytes: self.cache_bytes,
            insecure: true,
            offline: self.offline,
            retry: RetryPolicy::immediate(),
        }
    }

    /// The manifest, and the layers as they were handed over.
    pub(crate) fn pull(&self, reference: &Reference) -> Result<(Manifest, Vec<Vec<u8>>)> {
        self.pull_with(reference, &NoProgress, &Cancel::new())
    }

    pub(crate) fn pull_with(
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

    pub(crate) fn failure(&self, reference: &Reference) -> OciError {
        match self.pull(reference) {
            Err(Error::Oci { source, .. }) => *source,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{reference} was pulled"),
        }
    }

    /// The files of the cache, below it.
    pub(crate) fn files(&self) -> Vec<String> {
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
pub(crate) fn layers(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| bytes(100_000 * ((number * 7) % count) + 10 + number))
        .collect()
}

pub(crate) fn bytes(len: usize) -> Vec<u8> {
    let mut state = len as u32 | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

/// What a test hears of a pull.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) parts: Mutex<Vec<(String, PartState, u64)>>,
    pub(crate) messages: Mutex<Vec<String>>,
}

impl Progress for Heard {
    fn stage(&self, _: &str) {}

    fn fraction(&self, _: f64) {}

    fn message(&self, text: &str) {
        self.messages.lock().unwrap().push(text.to_owned());
    }

    fn part(&self, part: &Part<'_>) {
        let heard = (part.name.to_owned(), part.state, part.done);
        self.parts.lock().unwrap().push(heard);
    }
}

/// Whether a rung must run here.
pub(crate) fn required(rung: &str) -> bool {
    let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
    required.split(',').any(|word| word == rung)
}

#[expect(clippy::print_stdout, reason = "how a test says what it does")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
