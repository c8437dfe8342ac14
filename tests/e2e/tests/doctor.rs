//! `banger doctor` says what works, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_e2e::{BARE, Content, Rig, finished, skipped};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// Everything below a directory: a file's content, and of all mode, owner and when it was changed.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let mut about = Vec::new();
        if let Ok(meta) = fs::symlink_metadata(&path) {
            let facts = (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec());
            about = format!("{facts:?} ").into_bytes();
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(contents(&path)),
            Ok(kind) if kind.is_file() => about.extend(content(&path)),
            _ => {}
        }
        found.insert(path, about);
    }
    found
}

/// A file's bytes; of a disk or an image, which are large and sparse, when it was written: its inode
/// changes too whenever another test links to the same image.
fn content(path: &Path) -> Vec<u8> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > 16 << 20 => format!(
            "{} {} {} {}",
            meta.ino(),
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec()
        )
        .into_bytes(),
        _ => fs::read(path).unwrap_or_default(),
    }
}

#[tokio::test]
async fn doctor_says_what_is_used_and_changes_nothing() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.run_bare(&["--name", "a", "--", "true"]).await.ok();
    rig.banger(["vm", "stop", "a"]).await.ok();
    // Nobody else may change the store while it is compared.
    rig.kill(rig.daemon_pid().unwrap()).await;
    let before = contents(rig.dir());
    let out = rig.banger(["doctor", "--json"]).await;
    assert!(out.status <= 1, "{out}");
    let document = out.json();
    assert!(contents(rig.dir()) == before, "doctor changed a file");
    assert_eq!(rig.daemon_pid(), None, "doctor started a daemon");

    let checks = document["checks"].as_array().unwrap();
    for check in checks {
        let status = check["status"].as_str().unwrap();
        assert!(["ok", "info", "warning", "failure"].contains(&status), "{check}");
        assert!(
            !check["name"].as_str().unwrap().is_empty() && !check["message"].as_str().unwrap().is_empty()
        );
        assert!(
            status == "ok" || status == "info" || check["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
            "no way out: {check}"
        );
    }
    let named = |word: &str| {
        let found = checks
            .iter()
            .find(|check| check["name"].as_str().unwrap().to_lowercase().contains(word));
        found.unwrap_or_else(|| panic!("no check of {word} in {document:#}"))
    };
    let kvm = named("kvm");
    let accelerator = rig.property("a", "accelerator").await;
    // Opening /dev/kvm proves nothing: what it says must agree with what ran.
    assert_eq!(
        kvm["status"] == "ok",
        accelerator == "kvm",
        "{kvm} and {accelerator}"
    );
    if accelerator == "tcg" {
        let text = format!("{} {}", kvm["message"], kvm["hint"]).to_lowercase();
        assert!(text.contains("emulat"), "it says what is used instead: {kvm}");
    }
    named("engine");
    named("image");
}

#[tokio::test]
async fn doctor_works_for_a_user_who_has_nothing() {
    let rig = Rig::empty();
    let before = contents(rig.dir());
    let out = rig.banger(["doctor"]).await;
    assert!(out.status <= 1 && !out.stdout.is_empty(), "{out}");
    assert!(contents(rig.dir()) == before, "doctor made a file");
    // A configuration that is refused is reported and not repaired.
    let config = rig.dirs().config_file();
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "engin = \"qemu\"\n").unwrap();
    let out = rig.banger(["doctor"]).await.exits(1);
    assert!(out.text().contains("engin"), "{out}");
    assert_eq!(fs::read_to_string(&config).unwrap(), "engin = \"qemu\"\n");
}

/// The check of a name in what `doctor --json` wrote.
fn check<'a>(document: &'a Value, name: &str) -> &'a Value {
    let checks = document["checks"].as_array().expect("there are checks");
    checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {document:#}"))
}

/// Fails unless a check has a status, and says these words with a way out.
#[track_caller]
fn says(document: &Value, name: &str, status: &str, words: &[&str]) {
    let found = check(document, name);
    assert_eq!(found["status"], status, "{found}");
    let text = format!("{} {}", found["message"], found["hint"]);
    for word in words {
        assert!(text.contains(word), "no {word:?} in {found}");
    }
    assert!(
        found["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "{found}"
    );
}

/// What doctor says in a mount namespace of its own, after a script. `None` where there is none;
/// that was said.
async fn doctor_after(rig: &Rig, script: &str) -> Option<Value> {
    let mut unshare = rig.program("unshare");
    let script = format!("{script}\nbanger doctor --json");
    unshare.args(["--mount", "--propagation", "private", "sh", "-uec", &script]);
    let out = finished(&mut unshare, LIMIT).await;
    if out.stderr.contains("unshare failed") {
        skipped("guest", "mount namespaces need root here");
        return None;
    }
    Some(out.exits(1).json())
}

/// Has a program gone, wherever it is.
fn without(program: &str) -> String {
    format!(
        "for place in $(which -a {program}) $(ls /usr/libexec/qemu-kvm 2>/dev/null); do mount --bind /dev/null $(readlink -f $place); done"
    )
}

#[tokio::test]
async fn a_machine_without_an_engine_is_told_what_to_install() {
    let rig = Rig::empty();
    let Some(document) = doctor_after(&rig, &without("qemu-system-x86_64")).await else {
        return;
    };
    says(
        &document,
        "engine-qemu",
        "failure",
        &[
            "No QEMU found",
            "apt install qemu-system-x86",
            "dnf install qemu-system-x86-core",
        ],
    );
}

#[tokio::test]
async fn a_machine_without_mmdebstrap_is_told_what_to_install() {
    let rig = Rig::empty();
    // Whether the rest is well is of no account.
    let script = format!(
        "{}\nbanger doctor --json >$HOME/out || true; cat $HOME/out; exit 1",
        without("mmdebstrap")
    );
    let Some(document) = doctor_after(&rig, &script).await else {
        return;
    };
    says(
        &document,
        "tool-mmdebstrap",
        "warning",
        &[
            "mmdebstrap is missing",
            "building images",
            "apt install mmdebstrap",
        ],
    );
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let rig = Rig::empty();
    let script = r#"
        mount -t tmpfs -o size=64m,mode=700 tmpfs "$XDG_STATE_HOME"
        fallocate -l 65000k "$XDG_STATE_HOME/other""#;
    let Some(document) = doctor_after(&rig, script).await else {
        return;
    };
    says(
        &document,
        "space-state",
        "failure",
        &["is full", "image prune", "vm prune"],
    );
}

/// A store of a user whose daemon was killed, with one VM that does not run.
async fn killed() -> Option<Rig> {
    let rig = Rig::new(Content::Bare).await?;
    finished(&mut rig.new_vm("create", BARE, &["--no-start", "a"]), LIMIT)
        .await
        .ok();
    rig.kill(rig.daemon_pid().unwrap()).await;
    Some(rig)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn wrong_permissions_are_named_and_put_right_only_on_request() {
    let Some(rig) = killed().await else {
        return;
    };
    let dirs = rig.dirs();
    for (path, mode) in [
        (&dirs.state, 0o777),
        (&dirs.ssh_key(), 0o644),
        (&dirs.vms(), 0o755),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let before = contents(rig.dir());
    let document = rig.banger(["doctor", "--json"]).await.exits(1).json();
    assert!(contents(rig.dir()) == before, "doctor changed something");
    let state = dirs.state.display().to_string();
    let by_hand = format!("chmod 700 {state}");
    says(
        &document,
        "directory-state",
        "failure",
        &["can be written by others", &by_hand],
    );
    says(
        &document,
        "private-files",
        "warning",
        &["id_ed25519 can be read by others", "chmod 600"],
    );
    assert_eq!(check(&document, "private-files")["fixable"], true);

    let fixed = rig.banger(["doctor", "--json", "--fix"]).await.json();
    for name in ["directory-state", "private-files"] {
        let found = check(&fixed, name);
        assert_eq!(found["status"], "ok", "{found}");
        assert!(
            found["fixed"].as_str().is_some_and(|text| !text.is_empty()),
            "{found}"
        );
    }
    assert_eq!(
        [mode(&dirs.state), mode(&dirs.ssh_key()), mode(&dirs.vms())],
        [0o700, 0o600, 0o700]
    );
    assert_eq!(rig.names().await, ["a"]);
}

/// As after a `sudo` that keeps HOME.
#[tokio::test]
async fn nothing_of_another_user_is_put_right() {
    let Some(rig) = killed().await else {
        return;
    };
    let state = rig.dirs().state;
    fs::remove_file(rig.dirs().known_hosts()).unwrap();
    if std::os::unix::fs::chown(&state, Some(12345), None).is_err() {
        return skipped("guest", "another user's directory needs root here");
    }
    let before = contents(rig.dir());
    let document = rig.banger(["doctor", "--json", "--fix"]).await.exits(1).json();
    assert!(contents(rig.dir()) == before, "doctor changed something");
    says(
        &document,
        "directory-state",
        "failure",
        &["belongs to user 12345", "run this as that user"],
    );
}

#[tokio::test]
async fn what_a_killed_daemon_left_is_put_in_order_on_request() {
    let Some(rig) = killed().await else {
        return;
    };
    let dirs = rig.dirs();
    let orphan = dirs.vms().join("0123456789abcdef0123456789abcdef");
    let built = dirs.images().join(".tmp-banger-1");
    let theirs = dirs.vms().join("notes");
    for directory in [&orphan, &built, &theirs] {
        fs::create_dir(directory).unwrap();
    }
    assert!(
        dirs.socket().exists(),
        "a daemon that is killed leaves its socket"
    );
    let pinned = fs::read_to_string(dirs.known_hosts()).unwrap();
    fs::remove_file(dirs.known_hosts()).unwrap();
    let before = contents(rig.dir());
    let document = rig.banger(["doctor", "--json"]).await.json();
    assert!(contents(rig.dir()) == before, "doctor changed something");
    let found = check(&document, "leftovers");
    assert_eq!(
        (&found["status"], &found["fixable"]),
        (&"info".into(), &true.into()),
        "{found}"
    );

    let fixed = rig.banger(["doctor", "--json", "--fix"]).await.json();
    let found = check(&fixed, "leftovers");
    assert!(
        found["fixed"]
            .as_str()
            .is_some_and(|text| text.contains("bangerd.sock")),
        "{found}"
    );
    assert!(!orphan.exists() && !built.exists() && !dirs.socket().exists());
    assert!(theirs.exists(), "what is not banger's stays");
    assert_eq!(fs::read_to_string(dirs.known_hosts()).unwrap(), pinned);
    let again = rig.banger(["doctor", "--json", "--fix"]).await.json();
    assert_eq!(check(&again, "leftovers")["message"], "None");
    assert_eq!(rig.names().await, ["a"], "every VM is still there");

    // With a daemon that runs the file is written all the same.
    fs::write(dirs.known_hosts(), "banger-0 ssh-ed25519 AAAA\n").unwrap();
    let document = rig.banger(["doctor", "--json"]).await.json();
    says(&document, "known-hosts", "warning", &["known_hosts"]);
    let fixed = rig.banger(["doctor", "--json", "--fix"]).await.json();
    assert_eq!(check(&fixed, "known-hosts")["status"], "ok");
    assert_eq!(fs::read_to_string(dirs.known_hosts()).unwrap(), pinned);
}

#[tokio::test]
async fn a_packet_is_sent_from_a_vm_that_runs() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    let mirror = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mirror.local_addr().unwrap().port();
    let config = rig.dirs().config_file();
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let with_mirror = |host: &str| {
        let text = format!("debian_mirror = \"http://{host}:{port}/debian\"\n");
        fs::write(&config, text).unwrap();
    };
    // The host's loopback, by the gateway of user mode: only the guest gets there.
    with_mirror("10.0.2.2");
    let document = rig.banger(["doctor", "--json"]).await.json();
    let found = check(&document, "network-guest");
    assert_eq!(found["status"], "ok", "{found}");
    assert!(
        found["message"]
            .as_str()
            .unwrap()
            .starts_with("a reaches 10.0.2.2"),
        "{found}"
    );

    // And by its own name: only the host does.
    with_mirror("127.0.0.1");
    let document = rig.banger(["doctor", "--json"]).await.exits(1).json();
    assert_eq!(check(&document, "network-mirror")["status"], "ok");
    says(
        &document,
        "network-guest",
        "failure",
        &["a does not reach 127.0.0.1"],
    );
}
