//! The configuration of an image (OCI image-spec, config.md). Nothing of it is used on the
//! host: it says what runs in a guest.

use std::collections::BTreeMap;

use banger_model::limits::MAX_PAIRS;
use banger_model::spec::is_pair;
use banger_model::{ImageConfig, Process};
use serde::Deserialize;

use super::document::check_platform;
use super::error::{OciError, shown};
use super::time::rfc3339;
use crate::digest::Digest;

/// What is used of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) config: ImageConfig,
    /// Seconds since 1970.
    pub(super) created: Option<i64>,
    pub(super) diff_ids: Vec<Digest>,
    /// What was left out, for people.
    pub(super) warnings: Vec<String>,
}

/// All labels in bytes: nothing depends on them.
const MAX_LABELS: usize = 64 << 10;
/// The whole of what is kept, as JSON in bytes.
const MAX_KEPT: usize = 512 << 10;

#[derive(Deserialize)]
struct Raw {
    created: Option<String>,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    config: Option<RawProcess>,
    rootfs: Rootfs,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawProcess {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Rootfs {
    diff_ids: Option<Vec<String>>,
}

impl Configuration {
    /// Reads a configuration that belongs to an image of so many layers.
    ///
    /// # Errors
    /// [`OciError::WrongPlatform`], [`OciError::Malformed`], [`OciError::TooLarge`].
    pub(super) fn parse(text: &[u8], layers: usize) -> Result<Self, OciError> {
        let malformed = |reason: String| OciError::malformed("image's configuration", reason);
        let raw: Raw = serde_json::from_slice(text).map_err(|error| malformed(shown(&error.to_string())))?;
        check_platform(&raw.os, &raw.architecture)?;
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() != layers {
            return Err(malformed(format!(
                "it has {} layers, and the manifest {layers}",
                diff_ids.len()
            )));
        }
        let diff_ids: Result<Vec<Digest>, _> = diff_ids.iter().map(|id| id.parse()).collect();
        let diff_ids = diff_ids.map_err(|error| malformed(error.to_string()))?;
        let mut warnings = Vec::new();
        let process = raw.config.unwrap_or_default();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let config = ImageConfig {
            env: environment(process.env.unwrap_or_default(), &mut warnings),
            process: Process {
                user: given(process.user),
                working_directory: given(process.working_dir),
                entrypoint: process.entrypoint.unwrap_or_default(),
                command: process.cmd.unwrap_or_default(),
            },
            labels: labels(process.labels.unwrap_or_default()),
        };
        config
            .process
            .check()
            .map_err(|error| malformed(shown(&error.to_string())))?;
        if serde_json::to_vec(&config).map_or(usize::MAX, |text| text.len()) > MAX_KEPT {
            return Err(OciError::TooLarge {
                what: "image's configuration".to_owned(),
                limit: format!("{} KiB of variables and words", MAX_KEPT >> 10),
            });
        }
        Ok(Self {
            config,
            created: raw.created.as_deref().and_then(rfc3339),
            diff_ids,
            warnings,
        })
    }
}

/// The last of several values counts, as for a container.
fn environment(entries: Vec<String>, warnings: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut left_out = Vec::new();
    for entry in entries {
        match entry.split_once('=') {
            Some((key, value)) if is_pair(key, value) && (env.contains_key(key) || env.len() < MAX_PAIRS) => {
                env.insert(key.to_owned(), value.to_owned());
            }
            _ => left_out.push(shown(entry.split('=').next().unwrap_or_default())),
        }
    }
    if let Some(first) = left_out.first() {
        let others = match left_out.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        warnings.push(format!(
            "Left out variables of the image that a VM cannot have: {first:?}{others}"
        ));
    }
    env
}

fn labels(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut bytes = 0;
    labels
        .into_iter()
        .filter(|(key, value)| {
            bytes += key.len() + value.len();
            bytes <= MAX_LABELS
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn configuration(config: &Value) -> Value {
        json!({
            "created": "2024-05-22T18:18:20Z",
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"a").to_string()]},
            "history": [{"empty_layer": true}, {"created_by": "x"}],
        })
    }

    fn parse(value: &Value) -> Result<Configuration, OciError> {
        Configuration::parse(value.to_string().as_bytes(), 1)
    }

    #[test]
    fn what_an_image_says_about_its_processes_is_kept() {
        let found = parse(&configuration(&json!({
            "User": "1000:1000",
            "Env": ["PATH=/bin", "A=1", "A=2=3", "E="],
            "Entrypoint": ["/init", "-x"],
            "Cmd": null,
            "WorkingDir": "/srv",
            "Labels": {"a": "b"},
            "ExposedPorts": {"80/tcp": {}},
        })))
        .unwrap();
        assert_eq!(found.created, Some(1_716_401_900));
        assert_eq!(found.warnings, [""; 0]);
        let pairs: Vec<_> = found.config.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["A=2=3", "E=", "PATH=/bin"]);
        let process = &found.config.process;
        assert_eq!(process.user.as_deref(), Some("1000:1000"));
        assert_eq!(process.working_directory.as_deref(), Some("/srv"));
        assert_eq!(process.entrypoint, ["/init", "-x"]);
        assert_eq!(process.command, [""; 0]);
        let empty = parse(&configuration(
            &json!({"User": "", "WorkingDir": "", "Env": null}),
        ))
        .unwrap();
        assert_eq!(empty.config, ImageConfig::default());
        assert_eq!(
            parse(&configuration(&Value::Null)).unwrap().config,
            ImageConfig::default()
        );
    }

    #[test]
    fn variables_that_a_vm_cannot_have_are_left_out() {
        let long = format!("LONG={}", "x".repeat(5000));
        let found = parse(&configuration(
            &json!({"Env": ["A=1", "no", "=x", "a b=1", "N=\u{0}", long]}),
        ));
        let found = found.unwrap();
        assert_eq!(found.config.env.len(), 1);
        assert_eq!(found.warnings.len(), 1);
        assert!(
            found.warnings[0].contains("\"no\" and 4 more"),
            "{:?}",
            found.warnings
        );
        let many: Vec<String> = (0..300).map(|number| format!("V{number}=1")).collect();
        let found = parse(&configuration(&json!({"Env": many}))).unwrap();
        assert_eq!(found.config.env.len(), MAX_PAIRS);
        let labels: BTreeMap<String, String> = (0..300).map(|n| (n.to_string(), "x".repeat(1000))).collect();
        let found = parse(&configuration(&json!({"Labels": labels}))).unwrap();
        assert_eq!(found.config.labels.len(), MAX_LABELS / 1003);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let with = |key: &str, value: Value| {
            let mut whole = configuration(&Value::Null);
            whole[key] = value;
            parse(&whole)
        };
        for (key, value) in [
            ("architecture", json!("arm64")),
            ("os", json!("windows")),
            ("os", json!("")),
            ("rootfs", json!({"diff_ids": []})),
            ("rootfs", json!({"diff_ids": null})),
            ("rootfs", json!({"diff_ids": ["sha256:x"]})),
            ("rootfs", Value::Null),
            ("config", json!({"User": "a b"})),
            ("config", json!({"WorkingDir": "srv"})),
            ("config", json!({"Cmd": ["a\u{0}"]})),
            ("config", json!({"Cmd": "sh"})),
            ("config", json!({"Cmd": ["x".repeat(MAX_KEPT)]})),
        ] {
            assert!(with(key, value.clone()).is_err(), "{key}: {value}");
        }
        let error = with("architecture", json!("arm64")).unwrap_err().to_string();
        assert!(error.contains("linux/arm64"), "{error}");
    }
}
