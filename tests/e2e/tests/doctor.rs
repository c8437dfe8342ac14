//! `banger doctor` says what works, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use banger_e2e::{Content, Rig};

/// Every file below a directory with its content.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(contents(&path)),
            Ok(kind) if kind.is_file() => {
                found.insert(path.clone(), content(&path));
            }
            _ => {
                found.insert(path, Vec::new());
            }
        }
    }
    found
}

/// A file's bytes; of a disk or an image, which are large and sparse, when it was written: its inode
/// changes too whenever another test links to the same image.
fn content(path: &Path) -> Vec<u8> {
    use std::os::unix::fs::MetadataExt;
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
