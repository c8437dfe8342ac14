//! Repositories that cannot be used, and files that cannot be taken: each says why.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use banger_workspace::{Cancel, Error, ErrorKind, Git, Options, Plan, Repository, Scratch};
use common::{Guest, Repo, can_run, full_copy, git_ok, has, options, say, snapshot, untracked};

fn refused(path: &Path) -> Error {
    let error = Plan::new(path, &options(), &Cancel::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRepository, "{error}");
    error
}

/// The error shows the way out, and it is one.
fn full_copy_is_the_way_out(path: &Path) {
    let hint = refused(path).hint().unwrap();
    assert!(hint.contains("--mode full_copy"), "{hint}");
    let plan = Plan::new(path, &full_copy(), &Cancel::new()).unwrap();
    Guest::of(&plan);
}

#[test]
fn none_bare_empty_and_unborn() {
    if !can_run() {
        return;
    }
    let none = tempfile::tempdir().unwrap();
    fs::write(none.path().join("file"), "x").unwrap();
    assert!(matches!(refused(none.path()), Error::NotARepository(_)));
    full_copy_is_the_way_out(none.path());
    // git takes an empty `.git` for none, too.
    fs::create_dir(none.path().join(".git")).unwrap();
    assert!(matches!(refused(none.path()), Error::NotARepository(_)));

    let bare = Repo::empty(&["--bare"]);
    assert!(matches!(refused(&bare.path()), Error::Bare(_)));
    assert!(matches!(refused(&bare.path().join("objects")), Error::Bare(_)));
    full_copy_is_the_way_out(&bare.path());

    let empty = Repo::empty(&[]);
    assert!(matches!(refused(&empty.path()), Error::Empty(_)));
    full_copy_is_the_way_out(&empty.path());

    let unborn = Repo::new();
    unborn.git(&["symbolic-ref", "HEAD", "refs/heads/nothing"]);
    assert!(matches!(refused(&unborn.path()), Error::Empty(_)));
}

#[test]
fn submodules_reftables_and_the_unknown() {
    if !can_run() {
        return;
    }
    let inner = Repo::new();
    let repo = Repo::new();
    repo.git(&[
        "submodule",
        "-q",
        "add",
        inner.path().to_str().unwrap(),
        "vendor/inner",
    ]);
    repo.commit("submodule");
    let error = refused(&repo.path());
    assert!(error.to_string().contains("vendor/inner"), "{error}");
    full_copy_is_the_way_out(&repo.path());
    // The module itself is a repository like others.
    Plan::new(&repo.path().join("vendor/inner"), &options(), &Cancel::new()).unwrap();

    let strange = Repo::new();
    strange.git(&["config", "core.repositoryformatversion", "1"]);
    strange.git(&["config", "extensions.strange", "true"]);
    assert!(refused(&strange.path()).to_string().contains("strange"));
    let later = Repo::new();
    later.git(&["config", "core.repositoryformatversion", "7"]);
    full_copy_is_the_way_out(&later.path());

    let dir = tempfile::tempdir().unwrap();
    let made = common::git_in(dir.path(), &["init", "-q", "--ref-format=reftable"]);
    if made.status.success() {
        assert!(refused(dir.path()).to_string().contains("reftables"));
    }
}

#[test]
fn damaged_ones() {
    if !can_run() {
        return;
    }
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 8] = [
        ("config", |git| fs::write(git.join("config"), "[core\nx").unwrap()),
        ("HEAD", |git| {
            fs::write(git.join("HEAD"), "ref: ../../x\n").unwrap();
        }),
        ("HEAD", |git| {
            fs::write(git.join("HEAD"), vec![b'a'; 100_000]).unwrap();
        }),
        ("index", |git| {
            fs::write(git.join("index"), "DIRC nonsense").unwrap();
        }),
        ("index", |git| {
            fs::remove_file(git.join("index")).unwrap();
            fs::create_dir(git.join("index")).unwrap();
        }),
        ("a FIFO", |git| {
            fs::remove_file(git.join("HEAD")).unwrap();
            fifo(&git.join("HEAD"));
        }),
        ("cannot be read", |git| {
            fs::write(git.join("refs/heads/main"), format!("{}\n", "1".repeat(40))).unwrap();
        }),
        ("objects", |git| fs::remove_dir_all(git.join("objects")).unwrap()),
    ];
    for (what, damage) in damages {
        let repo = Repo::new();
        damage(&repo.path().join(".git"));
        let before = snapshot(&repo.path());
        let error = refused(&repo.path()).to_string();
        if what != "a FIFO" && what != "objects" {
            assert!(error.contains(what), "{what}: {error}");
        }
        assert!(error.len() < 5000);
        assert!(before == snapshot(&repo.path()));
    }
}

#[test]
fn a_partial_clone_that_lacks_blobs() {
    if !can_run() {
        return;
    }
    let origin = Repo::new();
    origin.git(&["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", origin.path().display());
    let [whole, lacking] = ["whole", "lacking"].map(|name| origin.beside(name));
    let clone = |more: &[&str], target: &Path| {
        let args = [
            &["clone", "-q", "--filter=blob:none"],
            more,
            &[&url, target.to_str().unwrap()],
        ]
        .concat();
        git_ok(&origin.path(), &args);
    };
    // What is checked out is there: enough, without the parents.
    clone(&[], &whole);
    let guest = Guest::of(&Plan::new(&whole, &options(), &Cancel::new()).unwrap());
    common::assert_same(&whole, guest.path(), &["status", "--porcelain=v2"]);
    git_ok(guest.path(), &["fsck", "--full"]);
    clone(&["--no-checkout"], &lacking);
    let plan = Plan::new(&lacking, &options(), &Cancel::new()).unwrap();
    let error = plan.payload(None, &Cancel::new()).unwrap_err();
    assert!(matches!(error, Error::MissingObjects(_)), "{error}");
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
}

#[test]
fn fifos_stay_out_and_secrets_behind_links_too() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    fs::remove_file(repo.path().join("a")).unwrap();
    fifo(&repo.path().join("a"));
    fifo(&repo.path().join("pipe"));
    let secret = repo.beside("secret");
    fs::write(&secret, "password").unwrap();
    let git = repo.path().join(".git");
    for name in ["MERGE_MSG", "info/exclude"] {
        _ = fs::remove_file(git.join(name));
        std::os::unix::fs::symlink(&secret, git.join(name)).unwrap();
    }
    let plan = repo.plan(&untracked()).unwrap();
    assert!(!has(&plan, "a") && !has(&plan, "pipe"));
    assert!(
        plan.notes.iter().any(|note| note.contains("\"a\"")),
        "{:?}",
        plan.notes
    );
    let guest = Guest::of(&plan);
    assert!(!guest.path().join(".git/MERGE_MSG").exists());
    assert!(!guest.path().join(".git/info/exclude").exists());
    let plan = repo.plan(&full_copy()).unwrap();
    assert!(!has(&plan, "pipe") && has(&plan, ".git/HEAD"));
    Guest::of(&plan);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    if !can_run() {
        return;
    }
    if rustix::process::geteuid().is_root() {
        say("skipped: root reads everything");
        return;
    }
    let repo = Repo::new();
    fs::set_permissions(repo.path().join("a"), fs::Permissions::from_mode(0o0)).unwrap();
    let plan = repo.plan(&options()).unwrap();
    assert!(
        plan.notes[0].contains("cannot be read: \"a\""),
        "{:?}",
        plan.notes
    );
    assert!(!has(&plan, "a"));
}

#[test]
fn a_nested_repository_stays_out() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    repo.git(&["init", "-q", "nested"]);
    repo.write("nested/file", "x");
    git_ok(&repo.path().join("nested"), &["add", "file"]);
    git_ok(&repo.path().join("nested"), &["commit", "-q", "-m", "n"]);
    let plan = repo.plan(&untracked()).unwrap();
    assert!(!has(&plan, "nested/file"));
    assert!(plan.notes[0].contains("\"nested\""), "{:?}", plan.notes);
}

#[test]
fn names_of_branches_are_checked() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    for name in ["-x", "../x", "a b", "x.lock", ""] {
        let options = Options {
            branch: Some(name.to_owned()),
            ..options()
        };
        assert_eq!(
            repo.plan(&options).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
    }
}

#[test]
fn a_full_copy_has_everything() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    repo.write("loose", "x");
    repo.write(".gitignore", "ignored\n");
    repo.write("ignored", "x");
    fs::create_dir(repo.path().join("hollow")).unwrap();
    let plan = Plan::new(&repo.path().join("d"), &full_copy(), &Cancel::new()).unwrap();
    assert_eq!(
        (plan.root.clone(), plan.branch.as_deref()),
        (repo.path(), Some("main"))
    );
    let guest = Guest::of(&plan);
    common::assert_equal(&repo.path(), guest.path(), true);
    assert!(guest.path().join("ignored").exists() && guest.path().join("hollow").is_dir());
}

#[test]
fn git_is_ended_when_it_takes_too_long_or_writes_too_much_or_is_not_wanted() {
    if !can_run() {
        return;
    }
    let repo = Repo::new();
    let repository = Repository::discover(&repo.path()).unwrap();
    let cancel = Cancel::new();
    let scratch = Scratch::reading(&Git::find().unwrap(), &repository, &cancel).unwrap();
    // It waits for more input than it is given: a FIFO that nobody writes to.
    let pipe = scratch.path().join("pipe");
    fifo(&pipe);
    let waiting = || scratch.command(["hash-object", "--no-filters"]).arg(&pipe);
    let error = waiting().limit(Duration::from_millis(50)).run().unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let error = scratch.command(["ls-tree", "HEAD:", "--"]).run().unwrap_err();
    assert!(matches!(error, Error::Git { .. }), "{error}");
    let head = repository.head().unwrap().commit;
    let error = scratch
        .command(["cat-file", "-p", &head])
        .output_limit(10)
        .run()
        .unwrap_err();
    assert!(matches!(error, Error::TooMuchOutput { .. }), "{error}");
    let stopped = std::thread::scope(|scope| {
        let running = scope.spawn(|| waiting().run());
        // Opening the pipe waits until git has opened it.
        let writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        cancel.cancel();
        let result = running.join().unwrap();
        drop(writer);
        result
    });
    assert!(matches!(stopped, Err(Error::Cancelled)));
    repo.plan(&options()).unwrap();
}

#[test]
fn git_reaches_nothing_but_the_repository() {
    if !can_run() || banger_sys::landlock::version().is_none() {
        return;
    }
    let repo = Repo::new();
    let outside = repo.beside("outside");
    fs::write(&outside, "x").unwrap();
    let repository = Repository::discover(&repo.path()).unwrap();
    let cancel = Cancel::new();
    let scratch = Scratch::reading(&Git::find().unwrap(), &repository, &cancel).unwrap();
    let read = scratch.command(["hash-object", "--no-filters"]).arg(&outside);
    assert!(matches!(read.run(), Err(Error::Git { .. })));
    let write = scratch.command([
        "update-ref",
        "refs/heads/made",
        &repository.head().unwrap().commit,
    ]);
    assert!(matches!(write.run(), Err(Error::Git { .. })));
    let written = scratch.command(["update-ref", "-m", "x", "HEAD", "HEAD"]);
    assert!(written.run().is_err());
    let program = scratch
        .command(["ls-files"])
        .config(format!("alias.evil=!{}", outside.display()))
        .run();
    assert!(program.is_ok());
}
