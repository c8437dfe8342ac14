//! Repositories that would have their own commands run: none is, by any git that is started.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_workspace::{Cancel, Options, Plan};
use common::{Repo, can_run, full_copy, options, say, snapshot, untracked};

/// Names the repository to the process that is traced.
const REPOSITORY: &str = "BANGER_TEST_POISONED";

const HOOKS: [&str; 12] = [
    "applypatch-msg",
    "post-checkout",
    "post-index-change",
    "pre-auto-gc",
    "post-rewrite",
    "pre-commit",
    "reference-transaction",
    "fsmonitor-watchman",
    "query-fsmonitor",
    "sendemail-validate",
    "post-update",
    "pre-push",
];

/// Every key that names a program; COMMAND stands for it.
const CONFIG: &str = r#"
[core]
	repositoryformatversion = 1
	fsmonitor = COMMAND
	fsmonitorHookVersion = 2
	hooksPath = HOOKS
	sshCommand = COMMAND
	pager = COMMAND
	editor = COMMAND
	askPass = COMMAND
	gitProxy = COMMAND
	alternateRefsCommand = COMMAND
	attributesFile = .gitattributes
	splitIndex = true
	untrackedCache = true
	worktree = /etc
[extensions]
	partialClone = origin
[alias]
	ls-files = !COMMAND
	config = !COMMAND
	pack-objects = !COMMAND
	status = !COMMAND
[filter "x"]
	clean = COMMAND
	smudge = COMMAND
	process = COMMAND
	required = true
[diff]
	external = COMMAND
[diff "x"]
	textconv = COMMAND
	command = COMMAND
	cachetextconv = true
[merge "x"]
	driver = COMMAND
[credential]
	helper = !COMMAND
[gpg]
	program = COMMAND
[gpg "ssh"]
	program = COMMAND
	defaultKeyCommand = COMMAND
[log]
	showSignature = true
[uploadpack]
	packObjectsHook = COMMAND
[sequence]
	editor = COMMAND
[interactive]
	diffFilter = COMMAND
[pager]
	ls-files = COMMAND
	config = COMMAND
	rev-parse = COMMAND
[trailer "x"]
	command = COMMAND
[remote "origin"]
	url = ext::COMMAND
	uploadpack = COMMAND
	vcs = COMMAND
	promisor = true
	partialCloneFilter = blob:none
[submodule "s"]
	url = ext::COMMAND
	update = !COMMAND
	active = true
[submodule]
	recurse = true
[gc]
	auto = 1
[maintenance]
	auto = true
[include]
	path = included
[includeIf "gitdir:/"]
	path = included
"#;

#[test]
fn no_command_of_a_poisoned_repository_runs() {
    if !can_run() {
        return;
    }
    if !Path::new("/usr/bin/strace").exists() {
        say("skipped: no strace here");
        return;
    }
    for make in [plain, linked, detached_git_dir, borrowing] {
        let repo = Repo::new();
        let canary = repo.beside("canary");
        let command = poison(&repo, &canary);
        make(&repo);
        let before = snapshot(&repo.path());
        let trace = trace(&repo);
        assert!(!canary.exists(), "a command of the repository ran");
        assert!(before == snapshot(&repo.path()), "the repository was touched");
        let started: Vec<_> = trace
            .lines()
            .filter(|line| line.contains("execve(") && !line.contains(" = -1 "))
            .collect();
        assert!(started.len() > 10, "{trace}");
        // The first one is this test itself.
        for line in &started[1..] {
            let program = line.split('"').nth(1).unwrap();
            let is_git = program.ends_with("/git") || program.starts_with("/usr/lib/git-core/");
            assert!(is_git && !line.contains(&*command.to_string_lossy()), "{line}");
        }
        // What could not be started was not asked for either.
        let refused = trace.lines().find(|line| line.contains("canary"));
        assert_eq!(refused, None);
        // The poison works: a git that believes the repository runs it.
        let out = common::git_in(&repo.path(), &["--no-pager", "--work-tree=.", "diff"]);
        assert!(canary.exists(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// What the traced process does: all that is done to a repository on its way in.
#[test]
fn traced() {
    let Some(path) = std::env::var_os(REPOSITORY).map(PathBuf::from) else {
        return;
    };
    let from = Options {
        from: Some("HEAD~1".to_owned()),
        ..options()
    };
    for options in [options(), untracked(), from, full_copy()] {
        let plan = Plan::new(&path, &options, &Cancel::new()).unwrap();
        let first = plan.payload(None, &Cancel::new()).unwrap();
        plan.payload(Some(&first.manifest), &Cancel::new()).unwrap();
    }
}

fn trace(repo: &Repo) -> String {
    let output = repo.beside("trace");
    let out = Command::new("/usr/bin/strace")
        .args(["-f", "-s", "4096", "-e", "trace=execve,execveat", "-o"])
        .arg(&output)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "traced", "--nocapture"])
        .env(REPOSITORY, repo.path())
        // Neither is an owner's environment passed on.
        .env("GIT_SSH_COMMAND", repo.beside("evil"))
        .env("GIT_EXTERNAL_DIFF", repo.beside("evil"))
        .env("GIT_TRACE", "1")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fs::read_to_string(output).unwrap()
}

fn poison(repo: &Repo, canary: &Path) -> PathBuf {
    let command = repo.beside("evil");
    let script = format!("#!/bin/sh\necho \"$0 $@\" >> '{}'\ncat\n", canary.display());
    let make = |path: &Path| {
        fs::write(path, &script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    make(&command);
    repo.write(".gitattributes", "* filter=x diff=x merge=x text=auto ident\n");
    repo.write(
        ".gitmodules",
        "[submodule \"s\"]\n\tpath = s\n\turl = ext::x\n\tupdate = !x\n",
    );
    repo.commit("poison");
    // Replaced objects, and a repository within, as if it were bare.
    repo.git(&["replace", "HEAD", "HEAD~1"]);
    repo.git(&["init", "-q", "--bare", "inner"]);
    let git_dir = repo.path().join(".git");
    let hooks = git_dir.join("hooks");
    fs::create_dir_all(&hooks).unwrap();
    for name in HOOKS {
        make(&hooks.join(name));
    }
    let text = CONFIG
        .replace("COMMAND", command.to_str().unwrap())
        .replace("HOOKS", hooks.to_str().unwrap());
    let (included, _) = text.split_once("[include]").unwrap();
    fs::write(git_dir.join("included"), included).unwrap();
    fs::write(git_dir.join("config"), &text).unwrap();
    fs::write(repo.path().join("inner/config"), &text).unwrap();
    // Changes that git can only judge by looking at contents.
    repo.write("a", "x\nx\n");
    repo.write("d/b", "y\n");
    command
}

fn plain(_: &Repo) {}

fn linked(repo: &Repo) {
    let elsewhere = repo.beside("elsewhere");
    fs::rename(repo.path().join(".git"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(elsewhere, repo.path().join(".git")).unwrap();
}

fn detached_git_dir(repo: &Repo) {
    let elsewhere = repo.beside("elsewhere");
    fs::rename(repo.path().join(".git"), &elsewhere).unwrap();
    repo.write(".git", &format!("gitdir: {}\n", elsewhere.display()));
}

/// All objects are another repository's, which is as bad.
fn borrowing(repo: &Repo) {
    let other = repo.beside("other");
    fs::create_dir(&other).unwrap();
    let objects = repo.path().join(".git/objects");
    fs::rename(&objects, other.join("objects")).unwrap();
    fs::copy(repo.path().join(".git/config"), other.join("config")).unwrap();
    fs::create_dir_all(objects.join("info")).unwrap();
    let line = format!("{}\n", other.join("objects").display());
    fs::write(objects.join("info/alternates"), line).unwrap();
}
