//! Repositories in guests: in, again, out, and what must not happen on the way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use banger_e2e::repository::{IGNORED, SAYS, UNTRACKED, untouched};
use banger_e2e::workspace::{LIMIT, assert_same_answers, create, exec, run, sh, text, workspace};
use banger_e2e::{Content, Out, Rig, finished, line_with};
use rustix::process::{Pid, Signal, kill_process};

#[tokio::test]
async fn a_repository_is_the_same_in_the_guest() {
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let repository = rig.repository("repo").await;
    let path = text(&repository).to_owned();
    let before = untouched(&repository);

    // First, what it would be; nothing is made.
    let dry = run(&rig, &["--dry-run", &path]).await.ok();
    let list = dry.text();
    assert!(
        list.contains("Makefile") && list.contains("deep/er/still/für"),
        "{dry}"
    );
    for absent in [UNTRACKED, IGNORED, "gone-staged"] {
        assert!(!list.lines().any(|line| line == absent), "{absent} in {dry}");
    }
    assert_eq!(rig.names().await, [""; 0]);

    // From a directory inside it: the repository that encloses it.
    let inside = repository.join("src");
    let out = run(&rig, &["--name", "w", text(&inside), "--", "make", "test"]).await;
    let host = finished(rig.program("make").arg("-C").arg(&repository).arg("test"), LIMIT).await;
    let out = out
        .exits(host.status)
        .says(&["to-err", "1 ", "--include-untracked"]);
    let told = out.text();
    assert!(told.starts_with(&format!("{SAYS}/root/repo\n")), "{out}");
    assert_eq!(
        told.lines().nth(1),
        host.text()
            .lines()
            .rfind(|l| l.chars().all(|c| c.is_ascii_digit())),
        "{out}\n{host}"
    );

    assert_same_answers(&rig, &repository).await;
    let absent = sh(&rig, &format!("ls {UNTRACKED} ignored 2>/dev/null || true"))
        .await
        .ok();
    assert_eq!(absent.text(), "");
    let odd = sh(
        &rig,
        "cat not*; readlink outward; stat -c %a program mode README; ./program",
    )
    .await
    .ok();
    assert_eq!(odd.text(), "odd\n/etc/hostname\n755\n755\n644\nprogram");
    // It is a repository to work in, as the user of the host.
    let who = sh(&rig, "git config user.email; git fsck --no-progress >&2")
        .await
        .ok();
    assert_eq!(who.text(), "ada@example.org");

    let info = rig.show("w").await;
    let head = rig.git(&repository, &["rev-parse", "HEAD"]).await.ok().text();
    assert_eq!(info["workspace"], path.as_str(), "{info}");
    assert_eq!(info["workspace_path"], "/root/repo", "{info}");
    assert_eq!(info["workspace_commit"], head.as_str(), "{info}");
    assert_eq!(info["workspace_mode"], "shallow_overlay", "{info}");
    let list = rig.banger(["vm", "list"]).await.ok().text();
    assert!(list.contains("WORKSPACE") && list.contains("repo"), "{list}");
    let shown = workspace(&rig, &["show", "w"]).await.ok().text();
    assert!(shown.contains(&path) && shown.contains(&head[..7]), "{shown}");

    // The same directory finds its VM.
    let again = run(&rig, &[&path, "--", "git", "rev-parse", "HEAD"]).await.ok();
    assert_eq!(again.text(), head);
    assert_eq!(rig.names().await, ["w"]);
    // Neither daemon nor VM must stay for it.
    let daemon = rig.daemon_pid().expect("a daemon runs");
    rig.kill(daemon).await;
    assert_eq!(exec(&rig, &["pwd"]).await.ok().text(), "/root/repo");
    rig.banger(["vm", "restart", "w"]).await.ok();
    assert_same_answers(&rig, &repository).await;
    let of = rig
        .banger(["vm", "exec", "w", "--workdir", "/tmp", "--", "pwd"])
        .await;
    assert_eq!(of.ok().text(), "/tmp");
    assert!(
        untouched(&repository) == before,
        "the host's repository was changed"
    );
}

#[tokio::test]
async fn a_second_sync_brings_what_changed_and_overwrites_nothing() {
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let repository = rig.repository("repo").await;
    let path = text(&repository).to_owned();
    // Enough that sending it twice would be seen.
    let noise = rig.dir().join("noise");
    let mut head = rig.program("sh");
    head.args(["-c", "head -c 20000000 /dev/urandom"]);
    fs::write(&noise, finished(&mut head, LIMIT).await.ok().stdout).unwrap();
    fs::rename(&noise, repository.join("large")).unwrap();
    rig.git(&repository, &["add", "large"]).await.ok();
    create(&rig, &[]).await;
    let prepare = ["prepare", "w", &path];
    let first = workspace(&rig, &[&prepare[..], &["--json"]].concat()).await.ok();
    assert!(bytes(&first) > 20_000_000, "{first}");
    assert_same_answers(&rig, &repository).await;

    // Changed, gone, new, a file that becomes a directory, a commit.
    fs::write(repository.join("README"), "changed again\n").unwrap();
    fs::remove_file(repository.join("binary")).unwrap();
    fs::remove_file(repository.join("empty")).unwrap();
    fs::create_dir(repository.join("empty")).unwrap();
    fs::write(repository.join("empty/not"), "x\n").unwrap();
    rig.git(&repository, &["add", "empty"]).await.ok();
    rig.git(&repository, &["commit", "--quiet", "-m", "Third"])
        .await
        .ok();
    let second = workspace(&rig, &[&prepare[..], &["--json"]].concat()).await.ok();
    assert!(bytes(&second) < 100_000, "{second}");
    assert_same_answers(&rig, &repository).await;
    workspace(&rig, &[&prepare[..], &["--include-untracked"]].concat())
        .await
        .ok();
    let there = sh(&rig, &format!("cat {UNTRACKED}; test ! -e {IGNORED}"))
        .await
        .ok();
    assert_eq!(there.text(), "not tracked");

    // What was changed in the guest is not overwritten, and named.
    sh(&rig, "echo guest > README; echo guest > src/second.c")
        .await
        .ok();
    fs::write(repository.join("README"), "the host, too\n").unwrap();
    let refused = workspace(&rig, &prepare).await.exits(1);
    let refused = refused.says(&["README", "--force"]);
    assert!(
        !refused.stderr.contains("second.c"),
        "only what both have changed: {refused}"
    );
    assert_eq!(sh(&rig, "cat README").await.ok().text(), "guest");
    workspace(&rig, &[&prepare[..], &["--force"]].concat()).await.ok();
    let now = sh(&rig, "cat README src/second.c").await.ok();
    assert!(now.text().starts_with("the host, too"), "{now}");

    // Nor is a commit, which stays where nothing is brought.
    sh(&rig, "git commit --quiet --all -m guest").await.ok();
    workspace(&rig, &prepare).await.ok();
    fs::write(repository.join("README"), "the host goes on\n").unwrap();
    let commit = sh(&rig, "git rev-parse HEAD").await.ok().text();
    workspace(&rig, &prepare).await.exits(1).says(&["export"]);
    assert_eq!(sh(&rig, "git rev-parse HEAD").await.ok().text(), commit);
}

#[tokio::test]
async fn a_branch_of_its_own_and_a_stale_one_are_told() {
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let repository = rig.repository("repo").await;
    let path = text(&repository).to_owned();
    let first = rig.git(&repository, &["rev-parse", "HEAD~1"]).await.ok().text();
    let out = run(
        &rig,
        &[
            "--name",
            "w",
            "--branch",
            "topic",
            "--from",
            "HEAD~1",
            &path,
            "--",
            "git",
            "status",
            "--branch",
            "--porcelain",
        ],
    )
    .await
    .ok();
    assert_eq!(out.text(), "## topic", "what is not committed stays out");
    assert_eq!(sh(&rig, "git rev-parse HEAD").await.ok().text(), first);
    run(&rig, &["--from", "HEAD", &path, "--", "true"]).await.exits(2);

    // Another VM at the host's commit; then the host goes on.
    rig.banger(["vm", "delete", "-f", "w"]).await.ok();
    let out = run(&rig, &["--name", "w", &path, "--", "true"]).await.ok();
    assert!(!out.stderr.contains("auto-prepare"), "{out}");
    rig.git(&repository, &["commit", "--quiet", "-m", "Third"])
        .await
        .ok();
    let head = rig.git(&repository, &["rev-parse", "HEAD"]).await.ok().text();
    let stale = sh(&rig, "git rev-parse HEAD")
        .await
        .ok()
        .says(&["--auto-prepare"]);
    assert_ne!(stale.text(), head);
    assert_eq!(stale.stderr.lines().count(), 1, "{stale}");
    let auto = [
        "vm",
        "exec",
        "w",
        "--auto-prepare",
        "--",
        "git",
        "rev-parse",
        "HEAD",
    ];
    assert_eq!(rig.banger(auto).await.ok().text(), head);
    assert_same_answers(&rig, &repository).await;
}

#[tokio::test]
async fn what_was_made_in_the_guest_comes_back() {
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let repository = rig.repository("repo").await;
    let path = text(&repository).to_owned();
    // A hook of the host's that nobody may call.
    let hook = repository.join(".git/hooks/reference-transaction");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(
        &hook,
        format!("#!/bin/sh\ntouch {}/called\n", rig.dir().display()),
    )
    .unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    run(&rig, &["--name", "w", &path, "--", "true"]).await.ok();
    let before = untouched(&repository);
    let nothing = workspace(&rig, &["export", "w"]).await;
    assert!(nothing.status <= 1, "{nothing}");

    let script = "echo made in the guest > made; git add made; git commit --quiet -m Made made
        git branch --quiet other; echo more > more; git add more; git commit --quiet -m More more
        echo not committed > README";
    sh(&rig, script).await.ok();
    let made = sh(&rig, "git rev-parse HEAD").await.ok().text();
    workspace(&rig, &["export", "w"]).await.ok();
    let host = |name: &'static str| {
        let (rig, repository) = (&rig, &repository);
        async move { rig.git(repository, &["rev-parse", "--verify", name]).await }
    };
    assert_eq!(host("refs/banger/w/main").await.ok().text(), made);
    assert_eq!(
        host("refs/banger/w/other").await.ok().text(),
        host("refs/banger/w/main~1").await.ok().text()
    );
    let content = rig
        .git(&repository, &["show", "refs/banger/w/main:made"])
        .await
        .ok();
    assert_eq!(content.text(), "made in the guest");
    assert!(
        untouched(&repository) == before,
        "the host's work tree was touched"
    );
    rig.git(&repository, &["fsck", "--no-progress"]).await.ok();

    // Rewritten in the guest: only on request.
    sh(&rig, "git commit --quiet --amend -m Amended").await.ok();
    workspace(&rig, &["export", "w"])
        .await
        .exits(1)
        .says(&["--force"]);
    assert_eq!(host("refs/banger/w/main").await.ok().text(), made);
    workspace(&rig, &["export", "w", "--force"]).await.ok();
    let amended = host("refs/banger/w/main").await.ok().text();
    assert_ne!(amended, made);
    // A branch of the host's: a new one, and never the one that is checked out.
    workspace(&rig, &["export", "w", "--to", "brought"]).await.ok();
    assert_eq!(host("refs/heads/brought").await.ok().text(), amended);
    workspace(&rig, &["export", "w", "--to", "main"])
        .await
        .exits(1)
        .says(&["main"]);

    // A patch applies to what the host has; a directory has everything.
    let (patch, dir) = (rig.dir().join("patch"), rig.dir().join("out"));
    workspace(&rig, &["export", "w", "--patch", text(&patch)])
        .await
        .ok();
    let diff = fs::read_to_string(&patch).unwrap();
    assert!(
        diff.contains("+made in the guest") && diff.contains("+not committed"),
        "{diff}"
    );
    workspace(&rig, &["export", "w", "--patch", text(&patch)])
        .await
        .exits(1)
        .says(&["patch"]);
    workspace(&rig, &["export", "w", "--dir", text(&dir)]).await.ok();
    assert_eq!(
        fs::read_to_string(dir.join("made")).unwrap(),
        "made in the guest\n"
    );
    assert_eq!(fs::read_to_string(dir.join("README")).unwrap(), "not committed\n");
    workspace(&rig, &["export", "w", "--dir", text(&dir)])
        .await
        .exits(1);
    assert!(
        !rig.dir().join("called").exists(),
        "a hook of the host's was called"
    );
    let mut after = untouched(&repository);
    after.remove(".git/refs/heads/brought");
    let mut before = before;
    for listing in [&mut before, &mut after] {
        listing.remove(".git/refs/heads");
    }
    assert!(after == before, "the host's work tree was touched");
}

#[tokio::test]
async fn a_guest_without_room_a_death_and_ctrl_c_leave_nothing_half_known() {
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let repository = rig.repository("repo").await;
    let path = text(&repository).to_owned();
    let script = "for n in 1 2 3; do head -c 30000000 /dev/urandom > large$n; done; git add large*";
    let mut make = rig.program("sh");
    finished(make.args(["-euc", script]).current_dir(&repository), LIMIT)
        .await
        .ok();
    let before = untouched(&repository);
    create(&rig, &["--disk-size", "1G"]).await;

    // No room: told as such, and not taken for a workspace.
    let fill = "dd if=/dev/zero of=/fill bs=1M 2>/dev/null || true; rm -f /fill-some; df -k / | tail -n 1";
    let guest =
        |script: &'static str| rig.banger(["vm", "exec", "w", "--workdir", "/", "--", "sh", "-c", script]);
    guest(fill).await.ok();
    let prepare = ["prepare", "w", path.as_str()];
    let out = workspace(&rig, &prepare).await.exits(1);
    assert!(
        out.stderr.contains("space") || out.stderr.contains("full"),
        "{out}"
    );
    guest("rm /fill; sync").await.ok();

    // Ctrl-C while it is on its way.
    let interrupted = rig.command([&["vm", "workspace"], &prepare[..], &["--json"]].concat());
    let mut interrupted = interrupted_at(interrupted);
    let stdout = interrupted.stdout.as_mut().expect("standard output is a pipe");
    line_with(stdout, "\"progress\"", LIMIT).await;
    let pid = interrupted
        .id()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    kill_process(pid.expect("it runs"), Signal::INT).unwrap();
    rig.wait("an interrupted sync", interrupted).await.exits(130);
    guest("true").await.ok();

    // The daemon dies while it is on its way.
    let dying = rig.command([&["vm", "workspace"], &prepare[..], &["--json"]].concat());
    let mut dying = interrupted_at(dying);
    let stdout = dying.stdout.as_mut().expect("standard output is a pipe");
    line_with(stdout, "\"progress\"", LIMIT).await;
    rig.kill(rig.daemon_pid().expect("a daemon runs")).await;
    let out = rig.wait("a sync whose daemon died", dying).await;
    assert_eq!(out.status, 1, "{out}");

    // The next one is whole.
    workspace(&rig, &prepare).await.ok();
    assert_same_answers(&rig, &repository).await;
    let sums = "sha256sum large1 large2 large3";
    let host = finished(
        rig.program("sh").args(["-c", sums]).current_dir(&repository),
        LIMIT,
    )
    .await;
    assert_eq!(sh(&rig, sums).await.ok().text(), host.ok().text());
    let left = guest("find / -xdev -name '*banger*' -newer /bin/git 2>/dev/null; true")
        .await
        .ok();
    assert_eq!(left.text(), "", "parts of files that never became whole");
    assert!(
        untouched(&repository) == before,
        "the host's repository was changed"
    );
}

#[tokio::test]
async fn this_projects_own_repository_is_the_same_in_the_guest() {
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if !own.join(".git").exists() {
        return banger_e2e::skipped("guest", "the sources are in no repository");
    }
    // A clone: the tree at hand may be somebody's work, and change while it is read.
    let clone = rig.empty_repository("own").await;
    let pull = [
        "fetch",
        "--quiet",
        "--depth=2",
        &format!("file://{}", text(&own.canonicalize().unwrap())),
        "HEAD",
    ];
    rig.git(&clone, &pull).await.ok();
    rig.git(&clone, &["reset", "--quiet", "--hard", "FETCH_HEAD"])
        .await
        .ok();
    fs::write(clone.join("README.md"), "changed\n").unwrap();
    let script = "git ls-files -z | xargs -0 cat | sha256sum; for f in scripts/*; do sh -n $f 2>/dev/null; done; echo checked";
    let host = finished(rig.program("sh").args(["-c", script]).current_dir(&clone), LIMIT).await;
    let out = run(&rig, &["--name", "w", text(&clone), "--", "sh", "-c", script]).await;
    assert_eq!(out.exits(host.status).text(), host.text());
    assert_same_answers(&rig, &clone).await;
}

#[tokio::test]
async fn what_is_no_repository_is_refused_before_anything_is_made() {
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let nowhere = rig.dir().join("h/nowhere");
    fs::create_dir(&nowhere).unwrap();
    let empty = rig.empty_repository("empty").await;
    let bare = rig.dir().join("h/bare.git");
    finished(
        rig.program("git").args(["init", "--quiet", "--bare"]).arg(&bare),
        LIMIT,
    )
    .await
    .ok();
    let repository = rig.repository("repo").await;
    let with_submodule = rig.empty_repository("super").await;
    fs::write(with_submodule.join("file"), "x").unwrap();
    let add = [
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        text(&repository),
        "sub",
    ];
    rig.git(&with_submodule, &add).await.ok();
    rig.commit(&with_submodule, "With a submodule").await;

    for (path, words) in [
        (&rig.dir().join("h/missing"), &["missing"][..]),
        (&nowhere, &["nowhere", "git"]),
        (&empty, &["commit"]),
        (&bare, &["bare"]),
        (&with_submodule, &["submodule", "full_copy"]),
    ] {
        let out = run(&rig, &["--name", "w", text(path), "--", "true"])
            .await
            .exits(125);
        out.says(words);
        assert_eq!(rig.names().await, [""; 0], "{}", path.display());
    }
    // The way out that the last one names.
    create(&rig, &[]).await;
    workspace(&rig, &["export", "w"]).await.exits(1).says(&["w"]);
    let full = ["prepare", "w", text(&with_submodule), "--mode", "full_copy"];
    workspace(&rig, &full).await.ok();
    let inside = sh(
        &rig,
        "cat sub/src/second.c; git status --porcelain; git -C sub log -1 --format=%s",
    )
    .await;
    assert_eq!(inside.ok().text(), "int second;\nSecond");
}

/// Started, with its messages to be read.
fn interrupted_at(mut command: tokio::process::Command) -> tokio::process::Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("banger can be started")
}

/// What the result line says of the bytes that were sent.
fn bytes(out: &Out) -> u64 {
    let line = out.text().lines().last().map(str::to_owned).unwrap_or_default();
    let result: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {out}"));
    result["bytes"]
        .as_u64()
        .unwrap_or_else(|| panic!("no bytes in {out}"))
}
