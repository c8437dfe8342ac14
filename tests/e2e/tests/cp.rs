//! `banger vm cp`, both ways.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_e2e::{Content, Out, Rig, finished};
use rustix::fs::{Mode, mknodat};
use tree_listing::Listing;

const LIMIT: Duration = Duration::from_secs(240);

async fn cp(rig: &Rig, words: &[&str]) -> Out {
    finished(rig.command(["vm", "cp"]).args(words), LIMIT).await
}

async fn guest(rig: &Rig, script: &str) -> Out {
    rig.banger(["vm", "exec", "a", "--", "sh", "-euc", script]).await
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the rig's paths are text")
}

/// A tree as copies keep it: whose it was is not kept.
fn listed(path: &Path) -> Listing {
    let mut listing = tree_listing::list(path).expect("the tree can be read");
    for fields in listing.values_mut() {
        fields.retain(|key, _| ["type", "mode", "mtime", "size", "sha256", "target"].contains(&key.as_str()));
        // When a link was made is nobody's concern.
        if fields["type"] == "symlink" {
            fields.remove("mtime");
        }
    }
    listing
}

fn tree(rig: &Rig) -> PathBuf {
    let tree = rig.dir().join("h/tree");
    fs::create_dir_all(tree.join("empty")).unwrap();
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    fs::write(tree.join("deep/er/ünïcode name"), "x").unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"bytes \xff\xfe\nand a line")), "odd").unwrap();
    fs::write(tree.join("x".repeat(255)), "long").unwrap();
    fs::write(tree.join("program"), "#!/bin/sh\necho runs\n").unwrap();
    fs::write(tree.join("none"), "").unwrap();
    symlink("deep/er", tree.join("link")).unwrap();
    symlink("gone", tree.join("dangling")).unwrap();
    for (name, mode) in [
        ("program", 0o751),
        ("none", 0o400),
        ("deep", 0o700),
        ("empty", 0o1777),
    ] {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    tree
}

#[tokio::test]
async fn files_and_directories_go_both_ways_as_they_are() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    let home = rig.dir().join("h");
    let tree = tree(&rig);

    // As cp(1) does it: to a name that is not there, into a directory that is.
    cp(&rig, &[text(&tree), "a:/root/copy"]).await.ok();
    cp(&rig, &[text(&tree), "a:/tmp"]).await.ok();
    assert_eq!(
        guest(&rig, "/root/copy/program; cat /tmp/tree/link/*")
            .await
            .ok()
            .text(),
        "runs\nx"
    );
    let facts = "cd /root/copy; stat -c '%a %u' program none deep; stat -c %a empty; readlink link; readlink dangling";
    let out = guest(&rig, facts).await.ok();
    assert!(out.text().starts_with("751 0\n400 0\n700 0\n"), "{out}");
    assert!(out.text().ends_with("deep/er\ngone"), "{out}");
    cp(&rig, &["a:/root/copy", text(&home.join("back"))]).await.ok();
    let mut expected = listed(&tree);
    let mut back = listed(&home.join("back"));
    // The sticky bit of a directory may stay behind.
    for listing in [&mut expected, &mut back] {
        let mode = listing.get_mut("empty").unwrap().get_mut("mode").unwrap();
        *mode = mode.trim_start_matches('1').to_owned();
    }
    assert_eq!(back, expected);
    // Into a directory of the host that is there, and a path of the user's own home.
    fs::create_dir(home.join("into")).unwrap();
    cp(&rig, &["a:copy/program", text(&home.join("into"))]).await.ok();
    assert_eq!(
        fs::read(home.join("into/program")).unwrap(),
        fs::read(tree.join("program")).unwrap()
    );
    cp(&rig, &[text(&tree.join("program")), "a:named"]).await.ok();
    assert_eq!(guest(&rig, "/root/named").await.ok().text(), "runs");
    // Relative to where the user is.
    cp(&rig, &["tree/program", "a:/tmp/relative"]).await.ok();
    cp(&rig, &["a:/tmp/relative", "relative"]).await.ok();
    assert_eq!(
        fs::read(home.join("relative")).unwrap(),
        fs::read(tree.join("program")).unwrap()
    );
    // Over what is there.
    fs::write(home.join("relative"), "second").unwrap();
    cp(&rig, &["relative", "a:/tmp/relative"]).await.ok();
    assert_eq!(guest(&rig, "cat /tmp/relative").await.ok().text(), "second");

    large(&rig).await;
    refusals(&rig, &tree).await;
}

/// 200 MB that no compression helps with.
async fn large(rig: &Rig) {
    let file = rig.dir().join("h/large");
    let mut make = rig.program("sh");
    finished(
        make.args([
            "-euc",
            "head -c 200000000 /dev/urandom > large; sha256sum < large",
        ]),
        LIMIT,
    )
    .await
    .ok();
    let sum = finished(rig.program("sh").args(["-c", "sha256sum < large"]), LIMIT)
        .await
        .ok()
        .text();
    cp(rig, &[text(&file), "a:/root/"]).await.ok();
    assert_eq!(guest(rig, "sha256sum < /root/large").await.ok().text(), sum);
    cp(rig, &["a:/root/large", text(&rig.dir().join("h/large-back"))])
        .await
        .ok();
    let back = finished(rig.program("sh").args(["-c", "sha256sum < large-back"]), LIMIT).await;
    assert_eq!(back.ok().text(), sum);
    for name in ["large", "large-back"] {
        fs::remove_file(rig.dir().join("h").join(name)).unwrap();
    }
    guest(rig, "rm /root/large").await.ok();
}

async fn refusals(rig: &Rig, tree: &Path) {
    let to = rig.dir().join("h/refused");
    cp(rig, &[text(&rig.dir().join("h/none")), "a:/tmp/"])
        .await
        .exits(1)
        .says(&["none"]);
    cp(rig, &["a:/no/such", text(&to)])
        .await
        .exits(1)
        .says(&["/no/such"]);
    cp(rig, &["a:/tmp/relative", "/no/such/dir/x"])
        .await
        .exits(1)
        .says(&["/no/such"]);
    cp(rig, &["nobody:/tmp/relative", text(&to)])
        .await
        .exits(1)
        .says(&["nobody"]);
    // A VM on one side, a path on the other.
    cp(rig, &[text(tree), text(&to)]).await.exits(2);
    // A file where a directory would have to be.
    cp(rig, &[text(tree), "a:/tmp/relative"])
        .await
        .exits(1)
        .says(&["/tmp/relative"]);
    assert_eq!(guest(rig, "cat /tmp/relative").await.ok().text(), "second");
    assert!(!to.exists());
    rig.banger(["vm", "stop", "a"]).await.ok();
    cp(rig, &[text(tree), "a:/tmp/x"]).await.exits(1).says(&["a"]);
}

#[tokio::test]
async fn what_a_guest_gives_is_taken_with_care() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    let home = rig.dir().join("h");
    fs::write(home.join("canary"), "alive").unwrap();
    let script = format!(
        "mkdir -p /root/bad/sub; cd /root/bad
        ln -s {0}/h/canary outward; ln -s ../canary up; ln -s sub inward
        mkfifo fifo; mknod null c 1 3; echo x > setuid; chmod 6755 setuid
        printf x > \"$(printf 'name\\033[31m\\nin lines')\"; echo plain > plain; ln plain twin",
        rig.dir().display()
    );
    guest(&rig, &script).await.ok();
    let out = cp(&rig, &["a:/root/bad", text(&home.join("bad"))]).await;
    assert!(out.status <= 1 && !out.stderr.contains('\x1b'), "{out}");
    if home.join("bad").exists() {
        let listing = tree_listing::list(&home.join("bad")).unwrap();
        for (path, fields) in &listing {
            let mode = u32::from_str_radix(&fields["mode"], 8).unwrap();
            assert_eq!(mode & 0o6000, 0, "{path} {fields:?}");
            assert!(
                ["file", "directory", "link"].contains(&fields["type"].as_str()),
                "{path} {fields:?}"
            );
            let outward = fields
                .get("target")
                .is_some_and(|to| to.starts_with('/') || to.starts_with(".."));
            assert!(!outward, "{path} {fields:?}");
        }
    }
    // Over a link of the host's: the link is not a way out.
    symlink("canary", home.join("link")).unwrap();
    cp(&rig, &["a:/root/bad/plain", text(&home.join("link"))]).await;
    assert_eq!(fs::read_to_string(home.join("canary")).unwrap(), "alive");

    // A file without an end is not waited for, and a full guest is told as such.
    cp(&rig, &["a:/dev/zero", text(&home.join("zero"))])
        .await
        .exits(1);
    // It ends, with what there is by its size.
    cp(&rig, &["a:/proc/kmsg", text(&home.join("kmsg"))]).await;
    let (directory, fifo) = (fs::File::open(&home).unwrap(), home.join("fifo"));
    mknodat(
        &directory,
        "fifo",
        rustix::fs::FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    cp(&rig, &[text(&fifo), "a:/tmp/"]).await.exits(1).says(&["fifo"]);
    fs::File::create(home.join("huge"))
        .unwrap()
        .set_len(40 << 20)
        .unwrap();
    guest(&rig, "mkdir /small; mount -t tmpfs -o size=1M none /small")
        .await
        .ok();
    let out = cp(&rig, &[text(&home.join("huge")), "a:/small/huge"])
        .await
        .exits(1);
    assert!(
        out.stderr.contains("space") || out.stderr.contains("full"),
        "{out}"
    );
    assert_eq!(
        guest(&rig, "ls -A /small").await.ok().text(),
        "",
        "nothing half-made stays"
    );
}
