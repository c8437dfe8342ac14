//! Pulls in a process of their own: they depend on its environment, or on its file systems.

use std::ffi::OsStr;
use std::process::Command;

use banger_image::{Cancel, oci};

use crate::{Client, Heard, say};

const REFERENCE: &str = "BANGER_TEST_REFERENCE";
/// Set for a registry that speaks TLS.
pub(crate) const SECURE: &str = "BANGER_TEST_SECURE";

/// Not a test by itself: what `pull` runs.
#[test]
fn child_entry() {
    let Ok(reference) = std::env::var(REFERENCE) else {
        return say("skipped: it is for the other tests");
    };
    let client = Client::new();
    let registry = oci::Registry {
        insecure: std::env::var_os(SECURE).is_none(),
        ..client.registry()
    };
    let heard = Heard::default();
    let reference = reference.parse().unwrap();
    let pulled = registry.pull(&reference, &mut |_, _, _| Ok(()), &heard, &Cancel::new());
    for message in heard.messages.lock().unwrap().iter() {
        say(&format!("message: {message}"));
    }
    match pulled {
        Ok(manifest) => say(&format!("pulled {} layers", manifest.layers.len())),
        Err(error) => {
            let mut next: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = next {
                say(&format!("error: {error}"));
                next = error.source();
            }
        }
    }
    let unfinished = client
        .files()
        .iter()
        .filter(|name| name.ends_with(".partial"))
        .count();
    say(&format!("unfinished: {unfinished}"));
}

/// A pull in a process that has no logins but those of `env`. What it says.
pub(crate) fn pull(reference: &str, env: &[(&str, &OsStr)]) -> String {
    let program = std::env::current_exe().unwrap();
    run(Command::new(program), reference, env)
}

/// The same with a disk of so many KiB; nothing where none can be had.
pub(crate) fn pull_on_small_disk(reference: &str, kib: u32) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        let mount = format!("mount -t tmpfs -o size={kib}k none \"$TMPDIR\" && exec \"$0\" \"$@\"");
        command.arg(mount).env("TMPDIR", dir.path());
        command
    };
    let possible = unshare()
        .arg("true")
        .status()
        .is_ok_and(|status| status.success());
    possible.then(|| {
        let mut command = unshare();
        command.arg(std::env::current_exe().unwrap());
        run(command, reference, &[("TMPDIR", dir.path().as_os_str())])
    })
}

fn run(mut command: Command, reference: &str, env: &[(&str, &OsStr)]) -> String {
    let home = tempfile::tempdir().unwrap();
    let out = command
        .args(["child::child_entry", "--exact", "--nocapture"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env(REFERENCE, reference)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap()
}
