//! Repositories in many states: what arrives is what a person had.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Guest, Repo, assert_equal, assert_same, can_run, git_ok, has, options, snapshot, untracked};

/// Plans, sends, compares, and looks whether the repository is as it was.
fn arrives(repo: &Repo) {
    let before = snapshot(&repo.path());
    let plan = repo.plan(&untracked()).unwrap();
    let guest = Guest::of(&plan);
    drop(plan);
    assert!(before == snapshot(&repo.path()), "the repository was touched");
    assert_equal(&repo.path(), guest.path(), true);
}

fn dirty(repo: &Repo) {
    repo.write("a", "changed\n");
    repo.write("staged", "new\n");
    repo.git(&["add", "staged"]);
    repo.write("staged", "new and more\n");
    repo.write("meant", "to be added\n");
    repo.git(&["add", "-N", "meant"]);
    fs::remove_file(repo.path().join("d/b")).unwrap();
    fs::set_permissions(repo.path().join("x.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(repo.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", repo.path().join("link")).unwrap();
    repo.write("loose/file", "not tracked\n");
}

#[test]
fn clean_and_dirty_ones() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    arrives(&repo);
    dirty(&repo);
    arrives(&repo);
    repo.git(&["rm", "-q", "--cached", "x.sh"]);
    arrives(&repo);
}

#[test]
fn without_untracked_files_they_are_counted() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    dirty(&repo);
    repo.write(".gitignore", "ignored\n");
    repo.write("ignored", "x");
    let plan = repo.plan(&options()).unwrap();
    assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
    assert!(
        plan.notes[0].starts_with("2 files that git does not track"),
        "{:?}",
        plan.notes
    );
    assert!(!has(&plan, "loose/file") && !has(&plan, "ignored") && has(&plan, "staged"));
    assert_equal(&repo.path(), Guest::of(&plan).path(), false);
    let plan = repo.plan(&untracked()).unwrap();
    assert!(has(&plan, "loose/file") && !has(&plan, "ignored"));
}

#[test]
fn the_first_commit_a_merge_and_a_detached_head() {
    if !can_run() {
        return;
    }
    let repo = Repo::empty(&[]);
    repo.write("only", "1");
    repo.commit("root");
    arrives(&repo);
    let repo = Repo::new();
    repo.git(&["checkout", "-q", "-b", "other", "HEAD~1"]);
    repo.write("c", "c");
    repo.commit("other");
    repo.git(&["checkout", "-q", "main"]);
    repo.git(&["merge", "-q", "-m", "merged", "other"]);
    arrives(&repo);
    repo.git(&["checkout", "-q", "--detach"]);
    arrives(&repo);
    repo.git(&["pack-refs", "--all"]);
    repo.git(&["gc", "-q"]);
    repo.git(&["checkout", "-q", "other"]);
    arrives(&repo);
}

fn conflicting() -> Repo {
    let repo = Repo::new();
    repo.git(&["checkout", "-q", "-b", "other", "HEAD~1"]);
    repo.write("a", "theirs\n");
    repo.write("theirs", "t");
    repo.commit("theirs");
    repo.git(&["checkout", "-q", "main"]);
    repo
}

#[test]
fn in_the_middle_of_a_merge_a_pick_a_revert_and_a_rebase() {
    if !can_run() {
        return;
    }
    for command in [
        &["merge", "other"][..],
        &["cherry-pick", "other"],
        &["revert", "--no-edit", "HEAD~1"],
        &["merge", "--squash", "other"],
    ] {
        let repo = conflicting();
        common::git_in(&repo.path(), command);
        arrives(&repo);
    }
    let repo = conflicting();
    common::git_in(&repo.path(), &["rebase", "other"]);
    let plan = repo.plan(&options()).unwrap();
    assert!(plan.notes[0].contains("rebase"), "{:?}", plan.notes);
    let guest = Guest::of(&plan);
    for args in [
        &["status", "--porcelain=v2", "--branch"][..],
        &["log", "-1"],
        &["diff"],
        &["ls-files", "--stage"],
    ] {
        assert_same(&repo.path(), guest.path(), args);
    }
}

#[test]
fn a_merge_can_be_finished_in_the_guest() {
    if !can_run() {
        return;
    }
    let repo = conflicting();
    common::git_in(&repo.path(), &["merge", "other"]);
    let guest = Guest::of(&repo.plan(&options()).unwrap());
    git_ok(guest.path(), &["add", "a"]);
    git_ok(guest.path(), &["commit", "-q", "--no-edit"]);
    let said = git_ok(guest.path(), &["rev-list", "--parents", "-n1", "HEAD"]);
    let parents = String::from_utf8(said).unwrap().split_whitespace().count();
    assert_eq!(parents, 3);
}

#[test]
fn clones_that_are_shallow_shared_or_of_sha256() {
    if !can_run() {
        return;
    }
    let origin = Repo::new();
    for (name, option) in [
        ("shallow", "--depth=1"),
        ("shared", "--shared"),
        ("deeper", "--depth=2"),
    ] {
        let url = format!("file://{}", origin.path().display());
        let from = if option == "--shared" {
            origin.path().display().to_string()
        } else {
            url
        };
        let target = origin.beside(name);
        git_ok(
            &origin.path(),
            &["clone", "-q", option, &from, target.to_str().unwrap()],
        );
        fs::write(target.join("a"), "changed\n").unwrap();
        let plan = banger_workspace::Plan::new(&target, &options(), &Default::default()).unwrap();
        let guest = Guest::of(&plan);
        assert_same(&target, guest.path(), &["status", "--porcelain=v2"]);
        for args in [&["log", "-1"][..], &["diff"], &["show", "--stat"]] {
            assert_same(&target, guest.path(), args);
        }
        git_ok(guest.path(), &["fsck", "--full"]);
    }
    let repo = Repo::with(&["--object-format=sha256"]);
    arrives(&repo);
    dirty(&repo);
    arrives(&repo);
}

#[test]
fn what_follows_its_origin_says_so() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    repo.git(&["remote", "add", "origin", "https://me:secret@example.org/x.git"]);
    repo.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
    repo.git(&["branch", "-q", "--set-upstream-to=origin/main"]);
    arrives(&repo);
    let guest = Guest::of(&repo.plan(&options()).unwrap());
    let config = fs::read_to_string(guest.path().join(".git/config")).unwrap();
    assert!(
        config.contains("https://example.org/x.git") && !config.contains("secret"),
        "{config}"
    );
}

#[test]
fn a_work_tree_of_its_own_and_a_directory_inside() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    let tree = repo.beside("tree");
    repo.git(&["worktree", "add", "-q", "-b", "side", tree.to_str().unwrap()]);
    fs::write(tree.join("a"), "side\n").unwrap();
    let inside = tree.join("d");
    let head = banger_workspace::Repository::head_of(&tree).unwrap();
    assert_eq!(head.branch.as_deref(), Some("side"));
    assert_eq!(
        format!("{}\n", head.commit).into_bytes(),
        git_ok(&tree, &["rev-parse", "HEAD"])
    );
    let before = snapshot(repo.path().parent().unwrap());
    let plan = banger_workspace::Plan::new(&inside, &options(), &Default::default()).unwrap();
    assert_eq!(
        (plan.root.as_path(), plan.branch.as_deref()),
        (tree.as_path(), Some("side"))
    );
    assert_equal(&tree, Guest::of(&plan).path(), true);
    drop(plan);
    assert!(before == snapshot(repo.path().parent().unwrap()));
}

#[test]
fn indexes_that_are_split_sparse_or_of_version_4() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    repo.git(&["update-index", "--split-index", "--untracked-cache"]);
    dirty(&repo);
    arrives(&repo);
    let repo = Repo::new();
    repo.git(&["update-index", "--index-version", "4"]);
    arrives(&repo);
    let repo = Repo::new();
    repo.write("e/f/g", "deep");
    repo.commit("deep");
    repo.git(&["sparse-checkout", "set", "--cone", "--sparse-index", "d"]);
    let plan = repo.plan(&untracked()).unwrap();
    assert!(!has(&plan, "e/f/g"));
    let guest = Guest::of(&plan);
    assert_same(&repo.path(), guest.path(), &["status", "--porcelain=v2"]);
    assert_same(&repo.path(), guest.path(), &["diff"]);
}

#[test]
fn line_ends_and_permissions_as_the_repository_has_them() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    repo.git(&["config", "core.autocrlf", "true"]);
    repo.write("crlf", "a\r\nb\r\n");
    repo.commit("crlf");
    arrives(&repo);
    repo.write("crlf", "a\r\nc\r\n");
    arrives(&repo);
    let repo = Repo::new();
    repo.git(&["config", "core.fileMode", "false"]);
    fs::set_permissions(repo.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    arrives(&repo);
}

#[test]
fn the_oddest_names() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    let odd: [&[u8]; 8] = [
        b"new\nline",
        b"\xff\xfe",
        b"tab\t\"quote\"",
        b"-dash",
        b"case",
        b"CASE",
        b" ",
        &[b'n'; 255],
    ];
    for name in odd {
        repo.write(OsStr::from_bytes(name), "x");
    }
    repo.write(Path::new(&["d"; 200].join("/")), "deep");
    std::os::unix::fs::symlink("../../../../etc/shadow", repo.path().join("out")).unwrap();
    std::os::unix::fs::symlink("/nowhere", repo.path().join("dangling")).unwrap();
    arrives(&repo);
    repo.commit("odd");
    arrives(&repo);
    for name in odd {
        repo.write(OsStr::from_bytes(name), "changed");
    }
    arrives(&repo);
}

#[test]
fn lfs_pointers_stay_clean_and_are_noted() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    repo.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    repo.write(
        "x.bin",
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n",
    );
    repo.commit("pointer");
    arrives(&repo);
    assert!(repo.plan(&options()).unwrap().notes[0].contains("LFS"));
}

#[test]
fn types_that_changed_and_directories_that_became_links() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    fs::remove_file(repo.path().join("a")).unwrap();
    repo.write("a/inner", "a directory now");
    fs::rename(repo.path().join("d"), repo.path().join("moved")).unwrap();
    std::os::unix::fs::symlink("moved", repo.path().join("d")).unwrap();
    arrives(&repo);
}

#[test]
fn a_big_sparse_file_is_listed_and_not_read() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    let file = fs::File::create(repo.path().join("big")).unwrap();
    file.set_len(5 << 30).unwrap();
    let plan = repo.plan(&untracked()).unwrap();
    let payload = plan.payload(None, &Default::default()).unwrap();
    assert!(payload.parts[1].paths.contains(&"big".into()));
}

#[test]
fn ten_commits_away_and_branches_of_its_own() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    dirty(&repo);
    let new_branch = banger_workspace::Options {
        branch: Some("topic/x".to_owned()),
        ..options()
    };
    let guest = Guest::of(&repo.plan(&new_branch).unwrap());
    let said = git_ok(guest.path(), &["symbolic-ref", "HEAD"]);
    assert_eq!(said, b"refs/heads/topic/x\n");
    assert_same(&repo.path(), guest.path(), &["status", "--porcelain", "-uno"]);
    let from = banger_workspace::Options {
        from: Some("HEAD~1".to_owned()),
        ..new_branch
    };
    let before = snapshot(&repo.path());
    let guest = Guest::of(&repo.plan(&from).unwrap());
    assert!(before == snapshot(&repo.path()));
    assert_eq!(git_ok(guest.path(), &["status", "--porcelain"]), b"");
    assert_eq!(
        git_ok(guest.path(), &["symbolic-ref", "HEAD"]),
        b"refs/heads/topic/x\n"
    );
    let host = repo.git(&["rev-parse", "HEAD~1"]);
    assert_eq!(git_ok(guest.path(), &["rev-parse", "HEAD"]), host);
    assert_eq!(fs::read(guest.path().join("a")).unwrap(), b"1\n");
    assert_eq!(fs::read_link(guest.path().join("link")).unwrap(), Path::new("a"));
    for bad in ["nothing", "--all", "", "HEAD:a", "x\ny"] {
        let options = banger_workspace::Options {
            from: Some(bad.to_owned()),
            ..options()
        };
        assert!(
            matches!(repo.plan(&options), Err(banger_workspace::Error::NoSuchCommit(_))),
            "{bad:?}"
        );
    }
}
