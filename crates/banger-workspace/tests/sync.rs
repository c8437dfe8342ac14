//! Second syncs: only what changed is sent, and nothing of the guest's is lost.

mod common;

use std::fs;
use std::path::PathBuf;

use banger_workspace::{Cancel, Head, Payload, Stat};
use common::{Guest, Repo, assert_equal, can_run, full_copy, git_ok, options, untracked};

fn sent(payload: &Payload) -> Vec<String> {
    let paths = payload.parts.iter().flat_map(|part| &part.paths);
    paths.map(|path| path.display().to_string()).collect()
}

#[test]
fn nothing_changed_and_nothing_is_sent() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    repo.write("loose", "x");
    for options in [options(), untracked(), full_copy()] {
        let mut guest = Guest::of(&repo.plan(&options).unwrap());
        let payload = guest.sync(&repo.plan(&options).unwrap());
        assert!(payload.is_empty(), "{:?} {:?}", sent(&payload), payload.remove);
        assert_eq!(payload.expected, Default::default());
    }
}

#[test]
fn changed_files_alone_travel() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    let mut guest = Guest::of(&repo.plan(&options()).unwrap());
    repo.write("a", "changed in place\n");
    fs::remove_file(repo.path().join("d/b")).unwrap();
    let payload = guest.sync(&repo.plan(&options()).unwrap());
    assert_eq!(sent(&payload), ["a"]);
    assert_eq!(payload.remove, [PathBuf::from("d/b")]);
    assert_equal(&repo.path(), guest.path(), false);
}

/// It was sent with the index, and came again with the commit.
#[test]
fn what_was_staged_does_not_travel_again_when_it_is_committed() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    // Text that cannot be made much smaller.
    let noise: String = (0u64..40_000)
        .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_string())
        .collect();
    repo.write("large", &noise);
    repo.git(&["add", "large"]);
    let mut guest = Guest::of(&repo.plan(&options()).unwrap());
    repo.commit("large");
    let payload = guest.sync(&repo.plan(&options()).unwrap());
    let sizes = payload
        .parts
        .iter()
        .flat_map(|part| part.paths.iter().map(|path| part.root.join(path)));
    let sent: u64 = sizes
        .filter_map(|path| fs::metadata(path).ok())
        .map(|it| it.len())
        .sum();
    assert!(sent < 50_000, "{sent} bytes");
    assert_equal(&repo.path(), guest.path(), false);
}

#[test]
fn commits_branches_and_stages_follow() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    let mut guest = Guest::of(&repo.plan(&options()).unwrap());
    let mut step = |what: &dyn Fn(&Repo)| {
        what(&repo);
        let payload = guest.sync(&repo.plan(&options()).unwrap());
        assert_equal(&repo.path(), guest.path(), false);
        payload
    };
    repo.write("e/new", "staged");
    let payload = step(&|repo| _ = repo.git(&["add", "e/new"]));
    let has_pack = |payload: &Payload| sent(payload).iter().any(|path| path.ends_with(".pack"));
    assert!(has_pack(&payload));
    let payload = step(&|repo| repo.commit("three"));
    assert!(has_pack(&payload) && !sent(&payload).contains(&"e/new".to_owned()));
    step(&|repo| _ = repo.git(&["checkout", "-q", "-b", "other", "HEAD~2"]));
    step(&|repo| repo.write("a", "theirs\n"));
    step(&|repo| repo.commit("other"));
    let payload = step(&|repo| _ = repo.git(&["checkout", "-q", "main"]));
    assert!(!has_pack(&payload) || payload.manifest.head.is_some());
    step(&|repo| _ = common::git_in(&repo.path(), &["merge", "other"]));
    step(&|repo| _ = repo.git(&["merge", "--abort"]));
    step(&|repo| _ = repo.git(&["checkout", "-q", "--detach", "HEAD~1"]));
    step(&|repo| _ = repo.git(&["checkout", "-q", "main"]));
    step(&|repo| _ = repo.git(&["commit", "-q", "--amend", "-m", "amended"]));
    // What was sent first is not there any more.
    step(&|repo| {
        repo.git(&["reflog", "expire", "--expire=now", "--all"]);
        repo.git(&["gc", "-q", "--prune=now"]);
        repo.write("z", "z");
        repo.commit("after gc");
    });
}

#[test]
fn files_become_directories_and_back() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    let mut guest = Guest::of(&repo.plan(&options()).unwrap());
    for round in [true, false] {
        if round {
            fs::remove_file(repo.path().join("a")).unwrap();
            fs::remove_dir_all(repo.path().join("d")).unwrap();
            repo.write("a/inner", "x");
            repo.write("d", "y");
        } else {
            fs::remove_dir_all(repo.path().join("a")).unwrap();
            fs::remove_file(repo.path().join("d")).unwrap();
            repo.write("a", "x");
            repo.write("d/b", "y");
        }
        repo.commit("turned");
        let payload = guest.sync(&repo.plan(&options()).unwrap());
        let d = payload
            .expected
            .files
            .iter()
            .position(|(path, _)| path == &PathBuf::from("d"));
        assert!(d.is_some());
        assert_equal(&repo.path(), guest.path(), false);
    }
}

#[test]
fn what_the_guest_must_have_is_said() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    let guest = Guest::of(&repo.plan(&options()).unwrap());
    let first = guest.manifest.clone().unwrap();
    let commit = String::from_utf8(git_ok(guest.path(), &["rev-parse", "HEAD"])).unwrap();
    repo.write("a", "changed on the host\n");
    repo.write("fresh", "new on the host\n");
    repo.git(&["add", "fresh"]);
    let plan = repo.plan(&options()).unwrap();
    let payload = plan.payload(Some(&first), &Cancel::new()).unwrap();
    let head = Head {
        branch: Some("main".to_owned()),
        commit: commit.trim().to_owned(),
    };
    assert_eq!(payload.expected.head, Some(head));
    let paths: Vec<_> = payload
        .expected
        .files
        .iter()
        .map(|(path, _)| path.clone())
        .collect();
    assert_eq!(paths, [PathBuf::from("a"), PathBuf::from("fresh")]);
    let as_sent: Vec<Option<Stat>> = payload.expected.files.iter().map(|(_, stat)| *stat).collect();
    assert_eq!(payload.expected.conflicts(&as_sent), Vec::<PathBuf>::new());
    let changed = as_sent
        .iter()
        .map(|stat| stat.map(|stat| Stat { size: 99, ..stat }));
    let changed: Vec<_> = changed.collect();
    assert_eq!(payload.expected.conflicts(&changed), [PathBuf::from("a")]);
}
