//! From a reference to the manifest for this platform, by as few requests as can be.

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Response};

use super::cache::MAX_DEPTH;
use super::config::Configuration;
use super::document::{ACCEPT, Blob, Document, ImageManifest, MAX_CONFIG, MAX_DOCUMENT, choose};
use super::download::Downloads;
use super::error::{Failure, OciError, shown};
use super::http::{Request, body};
use super::reference::Reference;
use super::{Layer, Manifest};
use crate::digest::Digest;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const MANIFEST: &str = "manifest";
const CONFIGURATION: &str = "configuration";

/// A document with its digest, and the media type with which it came.
struct Text {
    digest: Digest,
    bytes: Vec<u8>,
    announced: String,
    /// It is of the cache.
    cached: bool,
}

impl Downloads<'_> {
    /// Finds out what a reference is. Documents are kept once all of them are good.
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Manifest, Failure> {
        let top = self.top(reference).await?;
        let digest = top.digest;
        let mut texts = vec![top];
        let manifest = self.descend(&mut texts).await?;
        let manifest_digest = texts.last().map_or(digest, |text| text.digest);
        let text = self.configuration(&manifest.config).await?;
        let config = Configuration::parse(&text.bytes, manifest.layers.len())?;
        texts.push(text);
        for text in texts.iter().filter(|text| !text.cached) {
            self.store.write(&text.digest, &text.bytes)?;
        }
        if self.store.recall(reference) != Some(digest) {
            self.store.remember(reference, digest)?;
        }
        for warning in &config.warnings {
            self.session.progress.message(warning);
        }
        Ok(Manifest {
            reference: reference.to_string(),
            digest: manifest_digest,
            config: config.config,
            created: config.created,
            layers: layers(&manifest, &config.diff_ids)?,
        })
    }

    /// What the reference itself names.
    async fn top(&self, reference: &Reference) -> Result<Text, Failure> {
        if let Some(digest) = reference.digest() {
            return self.by_digest(digest, None).await;
        }
        let known = self.store.recall(reference);
        if self.offline {
            let digest = known.ok_or(OciError::Offline)?;
            return self.by_digest(&digest, None).await;
        }
        let tag = reference.selector();
        if let Some(known) = known
            && let Some(bytes) = self.store.read(&known)?
            && self.is_still(&tag, &known).await?
        {
            return Ok(Text::cached(known, bytes));
        }
        self.download(&tag).await
    }

    /// Whether a tag still is what it was: a request without a body, which no registry counts
    /// as a pull.
    async fn is_still(&self, tag: &str, known: &Digest) -> Result<bool, Failure> {
        let mut request = self.request(tag)?;
        request.method = Method::HEAD;
        match self.send(&request, MANIFEST).await {
            Ok(response) => Ok(content_digest(&response)? == Some(*known)),
            // Some registries know no HEAD: the whole document says what is wrong.
            Err(OciError::NotFound { .. } | OciError::Status { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A document of the cache, else of the registry.
    async fn by_digest(&self, digest: &Digest, size: Option<u64>) -> Result<Text, Failure> {
        let text = match self.store.read(digest)? {
            Some(bytes) => Text::cached(*digest, bytes),
            None if self.offline => return Err(OciError::Offline.into()),
            None => self.download(&digest.to_string()).await?,
        };
        if text.digest != *digest {
            return Err(OciError::DigestMismatch {
                what: MANIFEST.to_owned(),
                expected: *digest,
                found: text.digest,
            }
            .into());
        }
        match size {
            Some(size) if size != text.bytes.len() as u64 => Err(OciError::SizeMismatch {
                what: MANIFEST.to_owned(),
                expected: size,
                found: format!("received {}", text.bytes.len()),
            }
            .into()),
            _ => Ok(text),
        }
    }

    /// Goes from an index to the manifest, which is the last of the texts then.
    async fn descend(&self, texts: &mut Vec<Text>) -> Result<ImageManifest, Failure> {
        for _ in 0..=MAX_DEPTH {
            let Some(text) = texts.last() else { break };
            match Document::parse(&text.bytes, &text.announced)? {
                Document::Manifest(manifest) => return Ok(manifest),
                Document::Index(entries) => {
                    let chosen = choose(&entries)?;
                    let mut next = self
                        .by_digest(&chosen.blob.digest, Some(chosen.blob.size))
                        .await?;
                    if !next.cached && !next.announced.is_empty() && next.announced != chosen.media_type {
                        return Err(OciError::malformed(
                            MANIFEST,
                            format!(
                                "it comes as {}, and its index says {}",
                                shown(&next.announced),
                                chosen.media_type
                            ),
                        )
                        .into());
                    }
                    next.announced = chosen.media_type.to_owned();
                    texts.push(next);
                }
            }
        }
        let reason = format!("it has more than {MAX_DEPTH} indexes in one another");
        Err(OciError::malformed("index", reason).into())
    }

    async fn configuration(&self, blob: &Blob) -> Result<Text, Failure> {
        if let Some(bytes) = self.store.read(&blob.digest)? {
            return Ok(Text::cached(blob.digest, bytes));
        }
        if self.offline {
            return Err(OciError::Offline.into());
        }
        let request = Request::get(self.session.url("blobs", &blob.digest.to_string())?);
        let limit = usize::try_from(MAX_CONFIG).unwrap_or(usize::MAX);
        let (_, bytes) = self.receive(&request, CONFIGURATION, limit).await?;
        if bytes.len() as u64 != blob.size {
            return Err(OciError::SizeMismatch {
                what: CONFIGURATION.to_owned(),
                expected: blob.size,
                found: format!("received {}", bytes.len()),
            }
            .into());
        }
        let digest = Digest::of(&bytes);
        if digest != blob.digest {
            return Err(OciError::DigestMismatch {
                what: CONFIGURATION.to_owned(),
                expected: blob.digest,
                found: digest,
            }
            .into());
        }
        Ok(Text {
            digest,
            bytes,
            announced: String::new(),
            cached: false,
        })
    }

    async fn download(&self, selector: &str) -> Result<Text, Failure> {
        let (head, bytes) = self
            .receive(&self.request(selector)?, MANIFEST, MAX_DOCUMENT)
            .await?;
        let digest = Digest::of(&bytes);
        if let Some(said) = head.digest
            && said != digest
        {
            return Err(OciError::DigestMismatch {
                what: MANIFEST.to_owned(),
                expected: said,
                found: digest,
            }
            .into());
        }
        Ok(Text {
            digest,
            bytes,
            announced: head.media_type,
            cached: false,
        })
    }

    fn request(&self, selector: &str) -> Result<Request, OciError> {
        let mut request = Request::get(self.session.url("manifests", selector)?);
        request.accept = Some(HeaderValue::from_static(ACCEPT));
        Ok(request)
    }

    /// A whole answer, asked for again when it breaks off.
    async fn receive(
        &self,
        request: &Request,
        what: &str,
        limit: usize,
    ) -> Result<(Head, Vec<u8>), OciError> {
        let mut failed = 0;
        loop {
            let received = async {
                let response = self.session.send(request.clone(), what).await?;
                let head = Head::of(&response)?;
                Ok((head, body(response, what, limit).await?))
            };
            match received.await {
                Ok(received) => return Ok(received),
                Err(error) => self.pause(&mut failed, error).await?,
            }
        }
    }

    async fn send(&self, request: &Request, what: &str) -> Result<Response, OciError> {
        let mut failed = 0;
        loop {
            match self.session.send(request.clone(), what).await {
                Ok(response) => return Ok(response),
                Err(error) => self.pause(&mut failed, error).await?,
            }
        }
    }

    /// Waits before the next attempt, or gives the error back.
    async fn pause(&self, failed: &mut u32, error: OciError) -> Result<(), OciError> {
        *failed += 1;
        let pause = self.policy.next(*failed, &error).ok_or(error)?;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl Text {
    fn cached(digest: Digest, bytes: Vec<u8>) -> Self {
        Self {
            digest,
            bytes,
            announced: String::new(),
            cached: true,
        }
    }
}

/// What an answer says about its body.
struct Head {
    media_type: String,
    digest: Option<Digest>,
}

impl Head {
    fn of(response: &Response) -> Result<Self, OciError> {
        let media_type = response.headers().get(CONTENT_TYPE);
        Ok(Self {
            media_type: media_type
                .and_then(|value| value.to_str().ok())
                .and_then(|text| text.split(';').next())
                .map(|text| text.trim().to_ascii_lowercase())
                .unwrap_or_default(),
            digest: content_digest(response)?,
        })
    }
}

/// Another algorithm's digest is no contradiction.
fn content_digest(response: &Response) -> Result<Option<Digest>, OciError> {
    let Some(value) = response.headers().get(CONTENT_DIGEST) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    if !text.starts_with("sha256:") {
        return Ok(None);
    }
    let parsed = text.parse();
    parsed
        .map(Some)
        .map_err(|_| OciError::malformed("answer", format!("{} is not a digest", shown(text))))
}

fn layers(manifest: &ImageManifest, diff_ids: &[Digest]) -> Result<Vec<Layer>, OciError> {
    let layers: Vec<Layer> = manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|((blob, compression), diff_id)| Layer {
            digest: blob.digest,
            size: blob.size,
            compression: *compression,
            diff_id: *diff_id,
        })
        .collect();
    let mut sizes = std::collections::BTreeMap::new();
    for layer in &layers {
        if *sizes.entry(layer.digest).or_insert(layer.size) != layer.size {
            return Err(OciError::malformed(MANIFEST, "one layer has two sizes in it"));
        }
    }
    Ok(layers)
}
