//! The images that the tests fill a registry with, all made here.

mod debian;
mod layered;

use std::path::{Path, PathBuf};

use serde_json::json;

pub use debian::{bench, debian};
pub use layered::layered;

use crate::layer::{Entry, Layer};
use crate::layout::Image;

const OS_RELEASE: &str = "NAME=\"Test Linux\"\nID=testlinux\nVERSION_ID=3.20\n";
/// Names of busybox that an image goes without: it has no init.
const OTHER_PROGRAMS: [&str; 3] = ["busybox", "init", "linuxrc"];

/// An Alpine-like image: a static busybox under its many names, users, `os-release`.
///
/// # Errors
/// Why there is no busybox.
pub fn busybox() -> Result<Image, String> {
    let files = Layer::of([
        Entry::directory("home/worker").owner(1000, 1000).mode(0o700),
        Entry::file("home/worker/notes", "mine\n").owner(1000, 1000),
    ]);
    let config = json!({
        "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "COLOUR=blue", "SPACES=a b  c"],
        "Cmd": ["/bin/sh"],
        "Labels": { "org.example.title": "busybox" },
    });
    Ok(Image::new([base()?, files], config))
}

/// The same with a user, a directory and a program of its own.
///
/// # Errors
/// Why there is no busybox.
pub fn service() -> Result<Image, String> {
    let mut image = busybox()?;
    image.config = json!({
        "Env": ["PATH=/bin", "COLOUR=red", "MODE=service"],
        "User": "worker:staff",
        "WorkingDir": "/home/worker",
        "Entrypoint": ["/bin/sh", "-c", "id -un; id -gn; pwd; echo \"$MODE $0 $*\"; exit 3"],
        "Cmd": ["one", "two words"],
    });
    Ok(image)
}

/// A distroless-like image: one static program and nothing that could run a script.
///
/// # Errors
/// Why there is no program.
pub fn distroless() -> Result<Image, String> {
    let program = crate::rig::bin_dir().join("static-app");
    let program = std::fs::read(&program)
        .map_err(|_| format!("no {}: run scripts/build test-programs", program.display()))?;
    let layer = Layer::of([
        Entry::directory("./").mode(0o755),
        Entry::file("app", program).mode(0o555),
        Entry::directory("work").owner(65532, 65532),
    ]);
    let config = json!({
        "Env": ["PATH=/", "COLOUR=green"],
        "User": "65532",
        "WorkingDir": "/work",
        "Entrypoint": ["/app"],
        "Cmd": ["7", "eight"],
    });
    Ok(Image::new([layer], config))
}

/// A static busybox with what a guest needs to be of use.
fn base() -> Result<Vec<u8>, String> {
    let busybox = busybox_program()?;
    let program = std::fs::read(&busybox).map_err(|e| e.to_string())?;
    let mut entries = vec![Entry::directory("./").mode(0o755)];
    for name in [
        "bin", "dev", "etc", "home", "proc", "root", "run", "srv", "sys", "usr", "usr/bin",
    ] {
        entries.push(Entry::directory(name));
    }
    entries.extend([
        Entry::directory("tmp").mode(0o1777),
        Entry::file("bin/busybox", program).mode(0o755),
        Entry::file("etc/os-release", OS_RELEASE),
        Entry::file(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000:A worker:/home/worker:/bin/sh\n",
        ),
        Entry::file("etc/group", "root:x:0:\nstaff:x:50:worker\nworker:x:1000:\n"),
    ]);
    let list = std::process::Command::new(&busybox)
        .arg("--list")
        .output()
        .map_err(|e| e.to_string())?;
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        if !OTHER_PROGRAMS.contains(&applet) {
            entries.push(Entry::symlink(format!("bin/{applet}"), "busybox"));
        }
    }
    Ok(Layer::of(entries))
}

fn busybox_program() -> Result<PathBuf, String> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
        .map(Path::to_owned)
        .ok_or_else(|| "no busybox here: install busybox-static".to_owned())
}
