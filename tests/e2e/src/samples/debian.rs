//! A Debian as its own image in a registry is: without an init, ssh or kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::layout::{Image, Layout};
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

/// A layout with what the measurements pull, made once: `small`, a Debian with Python and git in
/// one layer, about 100 MB compressed; `large`, that and what this machine has in /usr, in layers of
/// real files, about 500 MB compressed.
///
/// # Errors
/// Why it cannot be had here.
pub async fn bench() -> Result<PathBuf, String> {
    let tar = store::kept(&format!("bench-tar-{VERSION}"), async |dir| {
        bootstrap(dir, &["--include=python3,git,curl,ca-certificates,vim-tiny"]).await
    })
    .await?;
    store::kept(&format!("bench-layout-{}", VERSION + 1), async |dir| {
        let base = fs::read(tar.join("root.tar")).map_err(|e| e.to_string())?;
        let mut layout = Layout::create(&dir.join("layout"));
        layout.add("small", &Image::new([base.clone()], json!({})));
        let mut layers = vec![base];
        for part in ["usr/share", "usr/bin", "usr/include", "usr/lib/python3"] {
            if Path::new("/").join(part).is_dir() {
                layers.push(tar_of(part).await?);
            }
        }
        layout.add("large", &Image::new(layers, json!({})));
        Ok(())
    })
    .await
    .map(|dir| dir.join("layout"))
}

/// A directory of this machine as a layer.
async fn tar_of(path: &str) -> Result<Vec<u8>, String> {
    let mut tar = Command::new("tar");
    tar.args([
        "-C",
        "/",
        "--sort=name",
        "--warning=no-file-changed",
        "-cf",
        "-",
        path,
    ])
    .stdin(Stdio::null())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped());
    let out = finished(&mut tar, LIMIT).await;
    if out.status == 0 {
        Ok(out.stdout)
    } else {
        Err(out.stderr)
    }
}

async fn make(dir: &Path) -> Result<(), String> {
    bootstrap(
        dir,
        &[
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
        ],
    )
    .await
}

async fn bootstrap(dir: &Path, more: &[&str]) -> Result<(), String> {
    if !crate::has_program("mmdebstrap") {
        return Err("no mmdebstrap here".to_owned());
    }
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--variant=minbase", "--format=tar"])
        .args(more)
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
