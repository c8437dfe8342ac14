//! `[[file_sync]]`: the owner's files in every guest, at each start, and nowhere else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use banger_e2e::{BARE, Content, Out, Rig, finished};

const LIMIT: Duration = Duration::from_secs(180);
/// Made up, and looked for where it must not be.
const CANARY: &str = "canary-7f3a9c5e1d";
const SECOND: &str = "canary-b4e80d2c6f";

async fn guest(rig: &Rig, script: &str) -> Out {
    rig.banger(["vm", "exec", "a", "--", "sh", "-euc", script]).await
}

fn configure(rig: &Rig, text: &str) {
    let file = rig.dirs().config_file();
    fs::create_dir_all(file.parent().expect("it is in a directory")).unwrap();
    fs::write(file, text).unwrap();
}

fn secret(home: &Path, canary: &str) {
    fs::create_dir_all(home.join("keys/deep")).unwrap();
    fs::write(home.join("token"), format!("{canary}\n")).unwrap();
    fs::write(home.join("keys/deep/key"), format!("{canary} in a tree\n")).unwrap();
    fs::write(home.join("keys/public"), "not secret\n").unwrap();
    fs::set_permissions(home.join("keys/public"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(home.join("keys/deep/key"), fs::Permissions::from_mode(0o640)).unwrap();
}

/// Every file below a directory that has these words, by grep.
async fn with_words(rig: &Rig, words: &str, below: &Path) -> String {
    let mut grep = rig.program("grep");
    let out = finished(
        grep.args(["-rlaF", "--devices=skip", "--", words]).arg(below),
        LIMIT,
    )
    .await;
    assert!(out.status <= 1 || !out.stdout.is_empty(), "{out}");
    out.text()
}

/// What processes say of themselves to everybody.
fn command_lines() -> String {
    let mut all = String::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            all.push_str(&String::from_utf8_lossy(&bytes));
            all.push('\n');
        }
    }
    all
}

#[tokio::test]
async fn files_are_there_after_each_start_and_on_no_disk() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let home = rig.dir().join("h");
    secret(&home, CANARY);
    symlink("public", home.join("keys/link")).unwrap();
    symlink("token", home.join("named-link")).unwrap();
    configure(
        &rig,
        "[[file_sync]]\nhost = \"~/token\"\nguest = \"~/.config/app/token\"\n\
         [[file_sync]]\nhost = \"~/named-link\"\nguest = \"/root/second\"\nmode = \"0640\"\n\
         [[file_sync]]\nhost = \"~/keys\"\nguest = \"~/keys\"\n\
         [[file_sync]]\nhost = \"~/not-there\"\nguest = \"~/missing\"\n",
    );
    let out = finished(&mut rig.new_vm("create", BARE, &["a"]), LIMIT)
        .await
        .ok();
    let facts = "cat .config/app/token second keys/deep/key; \
                 stat -L -c %a .config/app/token second keys/public keys/deep/key; ls keys; test ! -e missing";
    let expected =
        |canary: &str| format!("{canary}\n{canary}\n{canary} in a tree\n600\n640\n644\n640\ndeep\npublic");
    let script = format!("cd /root; {facts}");
    assert_eq!(guest(&rig, &script).await.ok().text(), expected(CANARY), "{out}");
    let daemon = fs::read_to_string(rig.dirs().daemon_log()).unwrap_or_default();
    assert!(
        out.stderr.contains("not-there") || daemon.contains("not-there"),
        "what is missing is told: {out}"
    );

    // An edit counts from the next start on; what was changed in the guest does not stay.
    secret(&home, SECOND);
    guest(&rig, "echo changed > /root/keys/public || true").await.ok();
    let running = command_lines();
    rig.banger(["vm", "restart", "a"]).await.ok();
    assert_eq!(guest(&rig, &script).await.ok().text(), expected(SECOND));

    // Nowhere but in the owner's own files: no disk, no log, no database, no list of processes.
    for text in [&running, &command_lines()] {
        assert!(
            !text.contains(CANARY) && !text.contains(SECOND),
            "a process shows a secret"
        );
    }
    guest(&rig, "sync").await.ok();
    rig.banger(["vm", "stop", "a"]).await.ok();
    for canary in [CANARY, SECOND] {
        for dir in [
            rig.dirs().state,
            rig.dirs().runtime,
            rig.dir().join("k"),
            rig.dir().join("c"),
        ] {
            assert_eq!(
                with_words(&rig, canary, &dir).await,
                "",
                "{canary} in {}",
                dir.display()
            );
        }
    }
    // The test would see it: this file of the guest's is on its disk.
    rig.banger(["vm", "start", "a"]).await.ok();
    guest(&rig, "echo on-disk-5d1f > /root/plain; sync").await.ok();
    rig.banger(["vm", "stop", "a"]).await.ok();
    assert_ne!(with_words(&rig, "on-disk-5d1f", &rig.dirs().state).await, "");
}

#[tokio::test]
async fn what_cannot_be_synced_fails_the_start() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let home = rig.dir().join("h");
    fs::write(home.join("token"), "x").unwrap();
    // Wrong shapes: refused with their line, before anything is made.
    for (entry, word) in [
        ("guest = \"~/x\"", "host"),
        ("host = \"~/token\"", "guest"),
        ("host = \"token\"\nguest = \"~/x\"", "token"),
        ("host = \"~/token\"\nguest = \"/etc/x\"", "/etc/x"),
        ("host = \"~/token\"\nguest = \"~/../x\"", ".."),
        ("host = \"~/token\"\nguest = \"/root/\"", "/root"),
        ("host = \"~/token\"\nguest = \"~/x\"\nmode = \"rw\"", "mode"),
        ("host = \"~/token\"\nguest = \"~/x\"\nmode = \"4755\"", "mode"),
        ("host = \"~/token\"\nguest = \"~/x\"\nowner = 1", "owner"),
        ("host = [\"~/token\"]\nguest = \"~/x\"", "host"),
    ] {
        configure(&rig, &format!("\n[[file_sync]]\n{entry}\n"));
        let out = finished(&mut rig.new_vm("create", BARE, &["a"]), LIMIT).await;
        assert_eq!(out.status, 1, "{entry}: {out}");
        assert!(
            out.stderr.contains(word) && out.stderr.contains("line"),
            "{entry}: {out}"
        );
        configure(&rig, "");
        assert_eq!(rig.names().await, [""; 0], "{entry}");
    }

    // The daemon has not forgotten with what it began.
    if let Some(pid) = rig.daemon_pid() {
        rig.kill(pid).await;
    }

    // Nothing that can be read.
    finished(rig.program("mkfifo").arg(home.join("fifo")), LIMIT)
        .await
        .ok();
    configure(&rig, "[[file_sync]]\nhost = \"~/fifo\"\nguest = \"~/fifo\"\n");
    let out = finished(&mut rig.new_vm("create", BARE, &["a"]), LIMIT).await;
    assert_eq!(out.status, 1, "{out}");
    assert!(out.stderr.contains("fifo"), "{out}");
    configure(&rig, "[[file_sync]]\nhost = \"~/token\"\nguest = \"~/token\"\n");
    rig.banger(["vm", "start", "a"]).await;
    assert_eq!(guest(&rig, "cat /root/token").await.ok().text(), "x");
    // A directory of the image's is in the way.
    guest(&rig, "mkdir -p /root/.config/app").await.ok();
    configure(
        &rig,
        "[[file_sync]]\nhost = \"~/token\"\nguest = \"~/.config/app\"\n",
    );
    let out = rig.banger(["vm", "restart", "a"]).await;
    assert!(out.status == 0 || out.stderr.contains(".config/app"), "{out}");
}
