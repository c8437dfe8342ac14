//! Manifests and indexes (OCI image-spec; docker's schema 2), read with suspicion.

use serde::Deserialize;

use super::error::{OciError, shown};
use crate::digest::Digest;
use crate::layer::Compression;

/// What a registry says that an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    Manifest(ImageManifest),
    Index(Vec<Entry>),
}

/// The parts of one image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageManifest {
    pub(super) config: Blob,
    pub(super) layers: Vec<(Blob, Compression)>,
}

/// Content by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// A manifest or a further index of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) blob: Blob,
    pub(super) media_type: &'static str,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// The largest manifest or index, as other clients have it.
pub(super) const MAX_DOCUMENT: usize = 4 << 20;
/// The largest configuration of an image.
pub(super) const MAX_CONFIG: u64 = 4 << 20;
pub(super) const MAX_LAYERS: usize = 512;
/// All layers of one image as they are stored, in bytes.
pub(super) const MAX_IMAGE: u64 = 64 << 30;
const MAX_ENTRIES: usize = 4096;
/// Platforms that an error lists.
const SHOWN_PLATFORMS: usize = 16;

const OS: &str = "linux";
const ARCHITECTURE: &str = "amd64";

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What is taken of a registry, as an `Accept` header.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// Media types with which a server says that it does not know.
const UNKNOWING: [&str; 4] = ["", "application/json", "application/octet-stream", "text/plain"];

/// Every field that decides what a document is: those of both kinds, and those of the first
/// schema. Unknown ones are none of our business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawBlob>,
    layers: Option<Vec<RawBlob>>,
    manifests: Option<Vec<RawBlob>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBlob {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

impl Document {
    /// Reads a document. `announced` is the media type with which it came; nothing when it
    /// comes of the cache.
    ///
    /// # Errors
    /// [`OciError::Malformed`], [`OciError::Unsupported`], [`OciError::TooLarge`].
    pub(super) fn parse(text: &[u8], announced: &str) -> Result<Self, OciError> {
        let announced = announced.split(';').next().unwrap_or_default().trim();
        let announced = announced.to_ascii_lowercase();
        if announced.starts_with(SCHEMA_1) {
            return Err(schema_1());
        }
        let raw: Raw = serde_json::from_slice(text)
            .map_err(|error| OciError::malformed("manifest", shown(&error.to_string())))?;
        let media_type = raw.checked_media_type(&announced)?;
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) if matches!(media_type, None | Some(DOCKER_INDEX | OCI_INDEX)) => {
                Self::index(manifests)
            }
            (None, Some(config), Some(layers))
                if matches!(media_type, None | Some(DOCKER_MANIFEST | OCI_MANIFEST)) =>
            {
                Self::manifest(raw.artifact_type.as_deref(), &config, &layers)
            }
            (Some(_), ..) => Err(OciError::malformed(
                "manifest",
                "it says that it is both an index and a manifest",
            )),
            _ => Err(OciError::malformed(
                "manifest",
                "it is neither an index of manifests, nor has it a configuration and layers",
            )),
        }
    }

    fn index(manifests: Vec<RawBlob>) -> Result<Self, OciError> {
        if manifests.len() > MAX_ENTRIES {
            return Err(OciError::TooLarge {
                what: "index".to_owned(),
                limit: format!("{MAX_ENTRIES} manifests"),
            });
        }
        let mut entries = Vec::new();
        for raw in manifests {
            // Others are what another client may want.
            if let Some(media_type) = known(&raw.media_type) {
                entries.push(Entry {
                    blob: raw.blob("manifest", MAX_DOCUMENT as u64)?,
                    media_type,
                    platform: raw.platform,
                });
            }
        }
        Ok(Self::Index(entries))
    }

    fn manifest(artifact: Option<&str>, config: &RawBlob, layers: &[RawBlob]) -> Result<Self, OciError> {
        if ![DOCKER_CONFIG, OCI_CONFIG].contains(&config.media_type.as_str()) {
            return Err(not_an_image(artifact.unwrap_or(&config.media_type)));
        }
        if layers.len() > MAX_LAYERS {
            return Err(OciError::TooLarge {
                what: "image".to_owned(),
                limit: format!("{MAX_LAYERS} layers"),
            });
        }
        let mut total = 0_u64;
        let mut found = Vec::new();
        for layer in layers {
            let compression = compression(&layer.media_type)?;
            let blob = layer.blob("layer", MAX_IMAGE)?;
            total = total.saturating_add(blob.size);
            found.push((blob, compression));
        }
        if total > MAX_IMAGE {
            return Err(OciError::TooLarge {
                what: "image".to_owned(),
                limit: format!("{} GiB", MAX_IMAGE >> 30),
            });
        }
        Ok(Self::Manifest(ImageManifest {
            config: config.blob("configuration", MAX_CONFIG)?,
            layers: found,
        }))
    }
}

impl Raw {
    /// What the document and the answer that brought it agree on; nothing when neither says.
    fn checked_media_type(&self, announced: &str) -> Result<Option<&'static str>, OciError> {
        if self.fs_layers.is_some() || self.schema_version == Some(1) {
            return Err(schema_1());
        }
        if self.schema_version != Some(2) {
            return Err(OciError::malformed("manifest", "its schemaVersion is not 2"));
        }
        let supported = |text: &str| {
            let unsupported = || OciError::unsupported("media type of the manifest", shown(text));
            known(text).ok_or_else(unsupported)
        };
        let inside = self.media_type.as_deref().filter(|text| !text.is_empty());
        match (inside, announced) {
            (Some(inside), announced) if UNKNOWING.contains(&announced) => supported(inside).map(Some),
            (None, announced) if UNKNOWING.contains(&announced) => Ok(None),
            (Some(inside), announced) if inside != announced => Err(OciError::malformed(
                "manifest",
                format!("it is {} inside and {} outside", shown(inside), shown(announced)),
            )),
            (_, announced) => supported(announced).map(Some),
        }
    }
}

impl RawBlob {
    fn blob(&self, what: &str, limit: u64) -> Result<Blob, OciError> {
        if self.size > limit {
            return Err(OciError::TooLarge {
                what: what.to_owned(),
                limit: format!("{} MiB", limit >> 20),
            });
        }
        let digest = self.digest.parse();
        let digest = digest.map_err(|_| {
            let reason = format!("{} is not a digest of sha256", shown(&self.digest));
            OciError::malformed(format!("manifest's {what}"), reason)
        })?;
        Ok(Blob {
            digest,
            size: self.size,
        })
    }
}

impl Platform {
    fn fits(&self) -> bool {
        self.os == OS && self.architecture == ARCHITECTURE
    }

    /// As `linux/arm/v7`.
    fn text(&self) -> String {
        let variant = if self.variant.is_empty() { "" } else { "/" };
        shown(&format!(
            "{}/{}{variant}{}",
            self.os, self.architecture, self.variant
        ))
    }

    /// What build tools give to what is about an image, and not one.
    fn is_about_another(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

/// The entry for this kind of machine. The plain variant is before those that need newer
/// processors, and an entry that does not say is the last resort: its configuration says.
///
/// # Errors
/// [`OciError::WrongPlatform`] with what there is.
pub(super) fn choose(entries: &[Entry]) -> Result<&Entry, OciError> {
    let rank = |entry: &Entry| match &entry.platform {
        Some(platform) if platform.fits() => match platform.variant.as_str() {
            "" | "v1" => Some(0),
            variant => Some(variant.strip_prefix('v')?.parse().unwrap_or(8).clamp(2, 8)),
        },
        Some(_) => None,
        None => Some(9_u8),
    };
    let best = entries
        .iter()
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .min_by_key(|(rank, _)| *rank);
    best.map(|(_, entry)| entry).ok_or_else(|| {
        let platforms = entries.iter().filter_map(|entry| entry.platform.as_ref());
        let others = platforms.filter(|platform| !platform.is_about_another());
        let mut have: Vec<String> = others.map(Platform::text).collect();
        have.sort_unstable();
        have.dedup();
        have.truncate(SHOWN_PLATFORMS);
        wrong_platform(have)
    })
}

/// Checks what an image's configuration says about itself.
pub(super) fn check_platform(os: &str, architecture: &str) -> Result<(), OciError> {
    let platform = Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        variant: String::new(),
    };
    if platform.fits() {
        Ok(())
    } else {
        Err(wrong_platform(vec![platform.text()]))
    }
}

fn known(media_type: &str) -> Option<&'static str> {
    let all = [DOCKER_MANIFEST, DOCKER_INDEX, OCI_MANIFEST, OCI_INDEX];
    all.into_iter().find(|known| *known == media_type)
}

fn wrong_platform(mut have: Vec<String>) -> OciError {
    if have.is_empty() {
        have.push("nothing at all".to_owned());
    }
    OciError::WrongPlatform { have }
}

fn compression(media_type: &str) -> Result<Compression, OciError> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Ok(Compression::None)
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
        other => Err(OciError::unsupported(
            format!("layer of type {}", shown(other)),
            if other.contains("nondistributable") || other.contains("foreign") {
                "it is not distributed by the registry, its licence has it elsewhere"
            } else if other.contains("encrypted") {
                "it is encrypted"
            } else {
                "it is no archive of files"
            },
        )),
    }
}

fn not_an_image(kind: &str) -> OciError {
    let reason = if kind.contains("helm") {
        "it is a Helm chart"
    } else if kind.contains("wasm") {
        "it is a WebAssembly module"
    } else if kind.contains("cosign") || kind.contains("signature") || kind.contains("attest") {
        "it is a signature or an attestation"
    } else {
        "it is an artefact, and not an image that can be run"
    };
    OciError::unsupported(format!("content of type {}", shown(kind)), reason)
}

fn schema_1() -> OciError {
    OciError::unsupported(
        "manifest",
        "it is of schema 1, which has no digests of its layers; it has to be pushed again",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest(text: &str) -> String {
        Digest::of(text.as_bytes()).to_string()
    }

    fn layer(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": digest(media_type), "size": 5})
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest("config"), "size": 2},
            "layers": [layer("application/vnd.oci.image.layer.v1.tar+gzip")],
        })
    }

    fn parse(value: &Value, announced: &str) -> Result<Document, OciError> {
        Document::parse(value.to_string().as_bytes(), announced)
    }

    fn with(key: &str, value: Value) -> Value {
        let mut manifest = manifest();
        manifest[key] = value;
        manifest
    }

    fn without(key: &str) -> Value {
        let mut manifest = manifest();
        manifest.as_object_mut().unwrap().remove(key);
        manifest
    }

    fn entry(os: &str, architecture: &str, variant: &str) -> Value {
        let platform = json!({"os": os, "architecture": architecture, "variant": variant});
        let name = format!("{os}/{architecture}/{variant}");
        json!({"mediaType": OCI_MANIFEST, "digest": digest(&name), "size": 7, "platform": platform})
    }

    fn chosen(entries: &[Value]) -> Result<Digest, OciError> {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        match parse(&index, OCI_INDEX)? {
            Document::Index(entries) => choose(&entries).map(|entry| entry.blob.digest),
            Document::Manifest(_) => panic!("an index"),
        }
    }

    #[test]
    fn manifests_are_read_as_they_are_announced() {
        for announced in [
            OCI_MANIFEST,
            &format!("{OCI_MANIFEST}; charset=utf-8"),
            "",
            "text/plain",
        ] {
            let Ok(Document::Manifest(found)) = parse(&manifest(), announced) else {
                panic!("{announced}")
            };
            assert_eq!(found.config.size, 2);
            assert_eq!(found.layers.len(), 1);
            assert_eq!(found.layers[0].1, Compression::Gzip);
        }
        assert!(parse(&without("mediaType"), OCI_MANIFEST).is_ok());
        assert!(parse(&without("mediaType"), "").is_ok());
        assert!(parse(&with("layers", json!([])), "").is_ok());
        assert!(parse(&with("annotations", json!({"a": "b"})), "").is_ok());
    }

    #[test]
    fn ambiguous_and_foreign_documents_are_refused() {
        let blob = layer("application/vnd.oci.image.layer.v1.tar");
        let huge =
            json!({"mediaType": blob["mediaType"], "digest": blob["digest"], "size": MAX_IMAGE / 2 + 1});
        for (what, document, announced) in [
            ("index outside", manifest(), OCI_INDEX),
            ("docker outside", manifest(), DOCKER_MANIFEST),
            ("index inside", with("mediaType", json!(OCI_INDEX)), OCI_INDEX),
            ("index by shape only", without("mediaType"), OCI_INDEX),
            ("both kinds", with("manifests", json!([])), OCI_MANIFEST),
            ("both kinds, unannounced", with("manifests", json!([])), ""),
            ("schema 1 as well", with("fsLayers", json!([])), OCI_MANIFEST),
            ("schema 1", with("schemaVersion", json!(1)), OCI_MANIFEST),
            ("no schema", without("schemaVersion"), OCI_MANIFEST),
            ("no layers", without("layers"), OCI_MANIFEST),
            ("no configuration", without("config"), OCI_MANIFEST),
            (
                "negative size",
                with(
                    "layers",
                    json!([{"mediaType": blob["mediaType"], "digest": blob["digest"], "size": -1}]),
                ),
                "",
            ),
            ("total size", with("layers", json!([huge, huge])), ""),
            (
                "layer count",
                with("layers", json!(vec![blob.clone(); MAX_LAYERS + 1])),
                "",
            ),
            (
                "algorithm",
                with(
                    "layers",
                    json!([{"mediaType": blob["mediaType"], "digest": "sha512:00", "size": 1}]),
                ),
                "",
            ),
            (
                "path",
                with(
                    "layers",
                    json!([{"mediaType": blob["mediaType"], "digest": "sha256:../../x", "size": 1}]),
                ),
                "",
            ),
            ("other type", manifest(), "text/html"),
            (
                "schema 1 outside",
                manifest(),
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
            ),
            ("no object", json!([]), OCI_MANIFEST),
        ] {
            assert!(parse(&document, announced).is_err(), "{what}");
        }
        let twice = format!(
            r#"{{"schemaVersion": 2, "layers": [], {}"#,
            &manifest().to_string()[1..]
        );
        assert!(Document::parse(twice.as_bytes(), "").is_err());
        let deep = "[".repeat(1 << 20);
        assert!(Document::parse(deep.as_bytes(), "").is_err());
    }

    #[test]
    fn what_is_no_image_is_refused_with_a_reason() {
        for (config, word) in [
            ("application/vnd.cncf.helm.config.v1+json", "Helm"),
            ("application/vnd.wasm.config.v0+json", "WebAssembly"),
            ("application/vnd.oci.empty.v1+json", "artefact"),
        ] {
            let config = json!({"mediaType": config, "digest": digest("x"), "size": 2});
            let error = parse(&with("config", config), "").unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        for (media_type, word) in [
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "licence",
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                "licence",
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                "encrypted",
            ),
            ("application/vnd.in-toto+json", "archive"),
            ("", "archive"),
        ] {
            let error = parse(&with("layers", json!([layer(media_type)])), "").unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn the_plain_variant_of_this_architecture_is_chosen() {
        let attestation = entry("unknown", "unknown", "");
        let entries = [
            attestation.clone(),
            entry("linux", "arm64", "v8"),
            entry("linux", "amd64", "v3"),
            entry("linux", "amd64", "v2"),
            entry("linux", "amd64", ""),
        ];
        let name = |text: &str| digest(text).parse::<Digest>().unwrap();
        assert_eq!(chosen(&entries).unwrap(), name("linux/amd64/"));
        assert_eq!(chosen(&entries[..4]).unwrap(), name("linux/amd64/v2"));
        let silent = json!({"mediaType": OCI_INDEX, "digest": digest("silent"), "size": 7});
        assert_eq!(chosen(&[entries[1].clone(), silent]).unwrap(), name("silent"));
        let error = chosen(&[
            entries[1].clone(),
            attestation.clone(),
            entry("windows", "amd64", ""),
        ]);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("only for linux/arm64/v8, windows/amd64"),
            "{error}"
        );
        assert!(!error.contains("unknown"), "{error}");
        for nothing in [vec![], vec![attestation]] {
            let error = chosen(&nothing).unwrap_err().to_string();
            assert!(error.contains("nothing at all"), "{error}");
        }
    }
}
