//! A guest with nothing but busybox, reached by the stock OpenSSH client.

use std::fs;
use std::path::Path;
use std::time::Duration;

use banger_e2e::{Content, Out, Rig, finished, has_program};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(120);

struct Ssh<'a> {
    rig: &'a Rig,
    port: String,
    alias: String,
}

#[tokio::test]
async fn the_stock_openssh_client_works_with_a_pinned_host_key() {
    if !has_program("ssh") {
        return banger_e2e::skipped("guest", "no OpenSSH client here");
    }
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("bare").await;
    assert_eq!(rig.property("bare", "init").await, "banger-guest");
    let ssh = Ssh {
        rig: &rig,
        port: rig.property("bare", "ssh_port").await,
        alias: format!("banger-{}", rig.property("bare", "id").await),
    };

    let out = rig
        .banger(["vm", "ssh", "bare", "--", "echo over ssh; exit 9"])
        .await
        .exits(9);
    assert_eq!(out.text(), "over ssh");
    ssh.command("ssh", "-p", &["root@127.0.0.1", "exit 11"])
        .await
        .exits(11);
    copies(&ssh).await;
    rsync(&ssh).await;
    host_key_is_pinned(&ssh).await;
    only_keys_are_accepted(&ssh).await;
}

async fn copies(ssh: &Ssh<'_>) {
    let dir = ssh.rig.dir();
    let data: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(dir.join("file"), &data).unwrap();
    fs::create_dir_all(dir.join("tree/sub")).unwrap();
    fs::write(dir.join("tree/sub/ünïcode name"), "x").unwrap();
    fs::set_permissions(
        dir.join("file"),
        std::os::unix::fs::PermissionsExt::from_mode(0o751),
    )
    .unwrap();
    let file = dir.join("file").display().to_string();
    let tree = dir.join("tree").display().to_string();

    ssh.command("scp", "-P", &["-p", "-r", &file, &tree, "root@127.0.0.1:/tmp/"])
        .await
        .ok();
    let back = dir.join("back").display().to_string();
    ssh.command("scp", "-P", &["-p", "root@127.0.0.1:/tmp/file", &back])
        .await
        .ok();
    assert!(fs::read(&back).unwrap() == data, "scp changed the content");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&back).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o751);

    let batch = dir.join("batch");
    let sftp_back = dir.join("sftp-back");
    let lines = format!(
        "cd /tmp\nmkdir d\nput {file} d/put\nrename d/put d/renamed\nls -l d\nget d/renamed {}\nrm d/renamed\nrmdir d\nls \"tree/sub\"\n",
        sftp_back.display()
    );
    fs::write(&batch, lines).unwrap();
    let out = ssh
        .command("sftp", "-P", &["-b", batch.to_str().unwrap(), "root@127.0.0.1"])
        .await
        .ok();
    assert!(
        out.text().contains("renamed") && out.text().contains("ünïcode name"),
        "{out}"
    );
    assert!(fs::read(&sftp_back).unwrap() == data, "sftp changed the content");
}

/// rsync needs its program on both sides: it is put there by ssh first, with its libraries.
async fn rsync(ssh: &Ssh<'_>) {
    if !has_program("rsync") {
        return banger_e2e::skipped("guest", "no rsync here");
    }
    let script = r#"
        files=$(command -v rsync; ldd "$(command -v rsync)" | grep -o '/[^ ]*')
        tar -chf - $files | banger vm exec bare -- tar -xf - -C /"#;
    finished(ssh.rig.program("sh").args(["-euc", script]), LIMIT)
        .await
        .ok();
    let dir = ssh.rig.dir();
    let shell = ssh.options("ssh", "-p").join(" ");
    let sync = |more: &'static str| {
        let mut command = ssh.rig.program("rsync");
        command.args(["-a", "--itemize-changes", more, "-e", &shell]);
        command
            .arg(format!("{}/", dir.join("tree").display()))
            .arg("root@127.0.0.1:/tmp/synced/");
        command
    };
    let out = finished(&mut sync("--delete"), LIMIT).await.ok();
    assert!(out.text().contains("sub/"), "{out}");
    let again = finished(&mut sync("--checksum"), LIMIT).await.ok();
    assert_eq!(again.text(), "", "a second run has nothing to do");
}

async fn host_key_is_pinned(ssh: &Ssh<'_>) {
    let known = ssh.rig.dirs().known_hosts();
    let pinned = fs::read_to_string(&known).unwrap();
    let key = ssh.rig.property("bare", "host_key").await;
    let body = key.split(' ').nth(1).unwrap();
    assert!(pinned.contains(&ssh.alias) && pinned.contains(body), "{pinned}");
    // Another key under that name: the client refuses, as it must.
    let wrong = ssh.rig.dir().join("wrong_hosts");
    let other = "AAAAC3NzaC1lZDI1NTE5AAAAIJ5HAyT8G2lW1N0JqgLv0eGNFZbq9PqQ4hL9mT0m1iIk";
    fs::write(&wrong, format!("{} ssh-ed25519 {other}\n", ssh.alias)).unwrap();
    let option = format!("UserKnownHostsFile={}", wrong.display());
    let out = ssh
        .command("ssh", "-p", &["-o", &option, "root@127.0.0.1", "true"])
        .await
        .exits(255);
    assert!(!out.stderr.is_empty(), "the client says why");
}

async fn only_keys_are_accepted(ssh: &Ssh<'_>) {
    let strict = [
        "-o",
        "PubkeyAuthentication=no",
        "-o",
        "BatchMode=yes",
        "-v",
        "root@127.0.0.1",
        "true",
    ];
    let out = ssh.command("ssh", "-p", &strict).await.exits(255);
    let offered = out
        .stderr
        .lines()
        .find(|line| line.contains("Authentications that can continue"));
    assert!(
        offered.is_some_and(|line| line.trim().ends_with(": publickey")),
        "{out}"
    );
    // A key that is not the owner's.
    let stranger = ssh.rig.dir().join("stranger");
    let mut keygen = ssh.rig.program("ssh-keygen");
    finished(
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&stranger),
        LIMIT,
    )
    .await
    .ok();
    let out = ssh
        .with_key(&stranger, "ssh", "-p", &["root@127.0.0.1", "true"])
        .await
        .exits(255);
    assert!(out.stderr.contains("Permission denied"), "{out}");
    // A user that does not exist in the guest, with the right key.
    ssh.command("ssh", "-p", &["nobody-there@127.0.0.1", "true"])
        .await
        .exits(255);
}

impl Ssh<'_> {
    /// All of them, with the pinned keys.
    fn options(&self, program: &str, port: &str) -> Vec<String> {
        let mut words = self.options_with(&self.rig.dirs().ssh_key(), program, port);
        words.push(format!(
            "-oUserKnownHostsFile={}",
            self.rig.dirs().known_hosts().display()
        ));
        words
    }

    fn options_with(&self, key: &Path, program: &str, port: &str) -> Vec<String> {
        let mut words = vec![program.to_owned(), "-F".to_owned(), "none".to_owned()];
        words.extend([
            port.to_owned(),
            self.port.clone(),
            "-i".to_owned(),
            key.display().to_string(),
        ]);
        for option in [
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            format!("HostKeyAlias={}", self.alias),
        ] {
            words.extend(["-o".to_owned(), option]);
        }
        words
    }

    async fn command(&self, program: &str, port: &str, more: &[&str]) -> Out {
        let key = self.rig.dirs().ssh_key();
        self.with_key(&key, program, port, more).await
    }

    /// The caller's options come first: of two, ssh takes the first.
    async fn with_key(&self, key: &Path, program: &str, port: &str, more: &[&str]) -> Out {
        let (options, operands) = split(more);
        let words = self.options_with(key, program, port);
        let mut command: Command = self.rig.program(&words[0]);
        command.args(options).args(&words[1..]);
        command.args([
            "-o",
            &format!("UserKnownHostsFile={}", self.rig.dirs().known_hosts().display()),
        ]);
        finished(command.args(operands), LIMIT).await
    }
}

/// Options with their values in front, operands behind.
fn split<'a>(words: &'a [&'a str]) -> (&'a [&'a str], &'a [&'a str]) {
    let mut at = 0;
    while words.get(at).is_some_and(|word| word.starts_with('-')) {
        at += if matches!(words[at], "-o" | "-b") { 2 } else { 1 };
    }
    words.split_at(at)
}
