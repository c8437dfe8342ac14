//! `org.banger.Job` and `org.banger.Process`.

use std::collections::HashMap;
use std::sync::Arc;

use banger_model::JobResult;
use zbus::object_server::SignalEmitter;
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use crate::api::JobApi;
use crate::error::{Error, ErrorKind, Result};
use crate::info::JobPart;

/// How a job ended, as its `Removed` signal tells.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOutcome {
    pub result: JobResult,
    /// The error of a job that is not done.
    pub error: Option<Error>,
    /// The object it made or worked on.
    pub object: Option<OwnedObjectPath>,
    /// `exec`: the command's exit status, 128+N after signal N.
    pub exit_status: Option<i32>,
    /// `exec`: the signal that ended the command, without `SIG`.
    pub signal: Option<String>,
    /// `prune-images`: what was removed, an image's name or a layer's digest each. `export-…`
    /// and `publish-…`: the file that was written. `pull-image`: the layers that came over the
    /// network, by the names of their parts.
    pub names: Vec<String>,
    /// `prune-images`: the bytes that were given back. `export-…` and `publish-…`: the file's.
    /// `pull-image`: those that came over the network.
    pub bytes: Option<u64>,
    /// `export-…` and `publish-…`: `sha256:<64 hexadecimal digits>` of the file.
    pub digest: Option<String>,
}

/// A job on the bus.
pub struct JobObject {
    pub api: Arc<dyn JobApi>,
}

/// The process side of an `exec` job, at the same path.
pub struct ProcessObject {
    pub api: Arc<dyn JobApi>,
}

#[zbus::interface(
    name = "org.banger.Job",
    proxy(default_service = "org.banger.Manager", visibility = "pub")
)]
impl JobObject {
    /// Asks it to end; `Removed` follows when everything it had begun is undone.
    fn cancel(&self) {
        self.api.cancel();
    }

    /// The last thing that is heard of a job. `result` is one of `done`, `cancelled`, `failed`,
    /// `timeout`; `error` and `message` are empty when it is done. `details` may have `Object` (o),
    /// `ExitStatus` (i), `Signal` (s), `Names` (as), `Bytes` (t) and `Digest` (s).
    #[zbus(signal)]
    pub async fn removed(
        emitter: &SignalEmitter<'_>,
        result: &str,
        error: &str,
        message: &str,
        details: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u32 {
        self.api.info().id
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn operation(&self) -> String {
        self.api.info().operation
    }

    #[zbus(property)]
    fn object(&self) -> OwnedObjectPath {
        self.api.info().object
    }

    #[zbus(property)]
    fn stage(&self) -> String {
        self.api.info().stage
    }

    #[zbus(property)]
    fn fraction(&self) -> f64 {
        self.api.info().fraction
    }

    #[zbus(property)]
    fn message(&self) -> String {
        self.api.info().message
    }

    #[zbus(property)]
    fn parts(&self) -> Vec<JobPart> {
        self.api.info().parts
    }
}

#[zbus::interface(
    name = "org.banger.Process",
    proxy(default_service = "org.banger.Manager", visibility = "pub")
)]
impl ProcessObject {
    /// Sends a signal to the command's process group: a name without `SIG`, as `INT` or `TERM`.
    async fn signal(&self, name: String) -> Result<()> {
        self.api.signal(name).await
    }

    /// Tells the terminal its new size.
    async fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        self.api.resize(columns, rows).await
    }
}

impl JobOutcome {
    pub fn done() -> Self {
        Self {
            result: JobResult::Done,
            error: None,
            object: None,
            exit_status: None,
            signal: None,
            names: Vec::new(),
            bytes: None,
            digest: None,
        }
    }

    /// The result follows from the error's kind.
    pub fn failed(error: Error) -> Self {
        let result = match error.kind {
            ErrorKind::Cancelled => JobResult::Cancelled,
            ErrorKind::Timeout => JobResult::Timeout,
            _ => JobResult::Failed,
        };
        Self {
            result,
            error: Some(error),
            ..Self::done()
        }
    }

    /// Sends `Removed` for the job of `emitter`'s path.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn emit(&self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        let mut details = HashMap::new();
        if let Some(object) = &self.object {
            details.insert("Object", Variant::from(object.as_ref()));
        }
        if let Some(status) = self.exit_status {
            details.insert("ExitStatus", Variant::from(status));
        }
        if let Some(signal) = &self.signal {
            details.insert("Signal", Variant::from(signal.as_str()));
        }
        if !self.names.is_empty() {
            details.insert("Names", Variant::from(&self.names));
        }
        if let Some(bytes) = self.bytes {
            details.insert("Bytes", Variant::from(bytes));
        }
        if let Some(digest) = &self.digest {
            details.insert("Digest", Variant::from(digest.as_str()));
        }
        let (name, message) = self
            .error
            .as_ref()
            .map_or(("", ""), |e| (e.kind.name(), e.message.as_str()));
        JobObject::removed(emitter, self.result.as_str(), name, message, details).await
    }

    /// Reads the arguments of `Removed`. An unknown result counts as failed.
    pub fn from_signal(
        result: &str,
        error: &str,
        message: &str,
        details: &HashMap<String, OwnedVariant>,
    ) -> Self {
        let get = |key: &str| details.get(key).and_then(|value| value.try_clone().ok());
        Self {
            result: result.parse().unwrap_or(JobResult::Failed),
            error: (!error.is_empty()).then(|| Error::from_name(error, message)),
            object: get("Object").and_then(|value| value.try_into().ok()),
            exit_status: get("ExitStatus").and_then(|value| value.try_into().ok()),
            signal: get("Signal").and_then(|value| value.try_into().ok()),
            names: get("Names")
                .and_then(|value| value.try_into().ok())
                .unwrap_or_default(),
            bytes: get("Bytes").and_then(|value| value.try_into().ok()),
            digest: get("Digest").and_then(|value| value.try_into().ok()),
        }
    }
}
