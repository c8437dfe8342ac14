//! An image layout for `umoci`, and what it makes of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::listing::{Listing, of_directory};
use super::{skip, tool};

/// Has umoci unpack layers; `Err` is what it says. `None` is a skip.
pub fn unpack(layers: &[Vec<u8>]) -> Option<Result<Listing, String>> {
    let umoci = tool("umoci")?;
    if !rustix::process::geteuid().is_root() {
        skip("umoci keeps owners as root only");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    write(&layout, layers);
    let bundle = dir.path().join("bundle");
    let output = Command::new(umoci)
        .args(["unpack", "--image"])
        .arg(format!("{}:latest", layout.display()))
        .arg(&bundle)
        .output()
        .unwrap();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Some(Err(text));
    }
    Some(Ok(of_directory(&bundle.join("rootfs"))))
}

fn write(layout: &Path, layers: &[Vec<u8>]) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = hex(&Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).unwrap();
        json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let described: Vec<Value> = layers
        .iter()
        .map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    let diff_ids: Vec<&Value> = described.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| json!({})).collect::<Vec<_>>(),
    });
    let config = blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": described});
    let mut manifest = blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
