//! Images as directories in OCI's image layout, as skopeo and umoci read them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// An image: its layers (tar archives, the lowest first) and what it says of its processes.
#[derive(Debug, Clone)]
pub struct Image {
    pub layers: Vec<(Vec<u8>, Compression)>,
    /// The member `config` of OCI's image configuration.
    pub config: Value,
    pub architecture: &'static str,
}

/// A directory in OCI's image layout.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
    tags: Vec<Value>,
}

impl Image {
    /// An image for this machine with layers compressed by gzip.
    pub fn new(layers: impl IntoIterator<Item = Vec<u8>>, config: Value) -> Self {
        Self {
            layers: layers
                .into_iter()
                .map(|layer| (layer, Compression::Gzip))
                .collect(),
            config,
            architecture: "amd64",
        }
    }

    #[must_use]
    pub fn compressed(mut self, compression: Compression) -> Self {
        for layer in &mut self.layers {
            layer.1 = compression;
        }
        self
    }
}

impl Layout {
    /// # Panics
    /// When it cannot be made.
    pub fn create(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("the layout's directory is writable");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("the layout's directory is writable");
        Self {
            dir: dir.to_owned(),
            tags: Vec::new(),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The digest of the last image of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn digest(&self, tag: &str) -> String {
        let of = |value: &Value| value["annotations"]["org.opencontainers.image.ref.name"] == tag;
        let found = self
            .tags
            .iter()
            .rfind(|value| of(value))
            .expect("the tag is there");
        found["digest"].as_str().expect("it has a digest").to_owned()
    }

    /// Writes an image's blobs; its descriptor.
    pub fn image(&self, image: &Image) -> Value {
        let mut diff_ids = Vec::new();
        let mut layers = Vec::new();
        for (tar, compression) in &image.layers {
            diff_ids.push(digest(tar));
            let (suffix, bytes) = compress(tar, *compression);
            layers.push(self.blob(&format!("{LAYER}{suffix}"), &bytes));
        }
        let config = json!({
            "architecture": image.architecture,
            "os": "linux",
            "config": image.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.blob(CONFIG, config.to_string().as_bytes());
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        let mut descriptor = self.blob(MANIFEST, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({ "architecture": image.architecture, "os": "linux" });
        descriptor
    }

    /// Writes an index of images; its descriptor.
    pub fn index(&self, manifests: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        self.blob(INDEX, index.to_string().as_bytes())
    }

    /// Gives what a descriptor names a tag.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn tag(&mut self, tag: &str, mut descriptor: Value) {
        descriptor["annotations"]["org.opencontainers.image.ref.name"] = json!(tag);
        self.tags.push(descriptor);
        let index = json!({ "schemaVersion": 2, "manifests": self.tags });
        fs::write(self.dir.join("index.json"), index.to_string())
            .expect("the layout's directory is writable");
    }

    /// Writes an image and gives it a tag.
    pub fn add(&mut self, tag: &str, image: &Image) {
        let descriptor = self.image(image);
        self.tag(tag, descriptor);
    }

    /// Writes a blob; its descriptor.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(self.dir.join("blobs/sha256").join(name), bytes)
            .expect("the layout's directory is writable");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            _ = write!(text, "{byte:02x}");
            text
        })
}

fn compress(tar: &[u8], compression: Compression) -> (&'static str, Vec<u8>) {
    match compression {
        Compression::None => ("", tar.to_vec()),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(tar).expect("memory takes it");
            ("+gzip", encoder.finish().expect("memory takes it"))
        }
        Compression::Zstd => ("+zstd", zstd::encode_all(tar, 3).expect("memory takes it")),
    }
}
