//! A Debian as its own image in a registry is: without an init, ssh or kernel.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::layout::Image;
use crate::rig::finished;
use crate::store;

const LIMIT: Duration = Duration::from_secs(900);
/// Part of the name in the cache: another number makes it anew.
const VERSION: u32 = 1;

/// A small Debian, made once by mmdebstrap from the archive.
///
/// # Errors
/// Why it cannot be had here.
pub async fn debian() -> Result<Image, String> {
    let dir = store::kept(&format!("debian-tar-{VERSION}"), async |dir| make(dir).await).await?;
    let layer = fs::read(dir.join("root.tar")).map_err(|e| e.to_string())?;
    let config = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": ["bash"],
    });
    Ok(Image::new([layer], config))
}

async fn make(dir: &Path) -> Result<(), String> {
    if !crate::has_program("mmdebstrap") {
        return Err("no mmdebstrap here".to_owned());
    }
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--variant=minbase", "--format=tar"])
        .args([
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ])
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
        .arg("bookworm")
        .arg(dir.join("root.tar"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let out = finished(&mut mmdebstrap, LIMIT).await;
    if out.status == 0 {
        Ok(())
    } else {
        Err(out.to_string())
    }
}
