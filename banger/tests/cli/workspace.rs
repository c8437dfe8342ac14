//! Repositories: which VM has one, what goes in, what is said of it.

use std::fs;

use crate::host::Host;

/// A host with a repository that the VM b has.
fn host() -> (Host, String) {
    let host = Host::new();
    fs::create_dir_all(host.path("repo/.git")).unwrap();
    fs::create_dir_all(host.path("repo/sub")).unwrap();
    let repository = fs::canonicalize(host.path("repo")).unwrap();
    let repository = repository.to_str().unwrap().to_owned();
    host.fake.give_workspace(&repository);
    (host, repository)
}

#[test]
fn the_same_directory_finds_its_vm_starts_it_and_brings_what_changed() {
    let (host, repository) = host();
    let inside = format!("{repository}/sub");
    let ran = host.run(&["vm", "run", "--vcpu", "7", &inside, "--", "sh", "-c", "exit 3"]);
    assert_eq!(ran.status, Some(3), "{ran:?}");
    for said in [
        "spec: 2 vcpu · 512 MiB · 8G disk\n",
        "Using the VM b, which has this repository (--new makes another)\n",
        "for a new one only: --vcpu (",
        "1 file is not tracked\n",
    ] {
        assert!(ran.err.contains(said), "{said}: {ran:?}");
    }
    assert_eq!(
        host.fake.calls(),
        [
            "start b",
            "prepare b branch=None untracked=None force=None",
            "process None"
        ]
    );
}

#[test]
fn another_one_is_made_when_it_is_asked_for_or_will_be_deleted() {
    for option in ["--new", "--rm"] {
        let (host, repository) = host();
        let ran = host.run(&[
            "vm",
            "run",
            "-q",
            option,
            "--branch",
            "t",
            "--include-untracked",
            &repository,
            "--",
            "true",
        ]);
        assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{ran:?}");
        let calls = host.fake.calls();
        assert_eq!(
            calls[..4],
            [
                "list mode=None",
                "create  start=Some(true) vcpus=None",
                "prepare a branch=Some(\"t\") untracked=Some(true) force=None",
                "process None"
            ]
        );
        assert_eq!(calls.len(), if option == "--rm" { 5 } else { 4 }, "{calls:?}");
    }
}

#[test]
fn nothing_is_made_for_what_cannot_be_used() {
    let host = Host::new();
    fs::create_dir(host.path("bare")).unwrap();
    fs::write(host.path("file"), "").unwrap();
    for (name, said) in [
        ("bare", "bare repository"),
        ("file", "no directory"),
        ("none", "none"),
    ] {
        let path = host.path(name);
        let ran = host.run(&["vm", "run", path.to_str().unwrap(), "--", "true"]);
        assert_eq!(ran.status, Some(125), "{ran:?}");
        assert!(ran.err.contains(said), "{ran:?}");
    }
    assert_eq!(host.fake.calls(), ["list mode=None"]);
}

#[test]
fn the_guest_s_own_changes_stop_a_command_and_not_a_shell() {
    let host = Host::new();
    fs::create_dir_all(host.path("changed/.git")).unwrap();
    let path = fs::canonicalize(host.path("changed")).unwrap();
    let path = path.to_str().unwrap();
    host.fake.give_workspace(path);
    let ran = host.run(&["vm", "run", path, "--", "true"]);
    assert_eq!(ran.status, Some(125), "{ran:?}");
    assert!(!host.fake.calls().contains(&"process None".to_owned()));
    let ran = host.run(&["vm", "run", path]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.err.contains("Changed in the guest: README\n"), "{ran:?}");
}

#[test]
fn a_dry_run_lists_and_makes_nothing() {
    let (host, repository) = host();
    let ran = host.run(&["vm", "run", "--dry-run", "--mode", "full_copy", &repository]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (Some(0), "Makefile\n\"a\\033[2J\"\n")
    );
    assert!(
        ran.err
            .contains("mode: full_copy, 2 files; nothing was made\n2 files are not tracked\n"),
        "{ran:?}"
    );
    let null = host.run(&["vm", "run", "--dry-run", "-z", &repository]);
    assert_eq!(null.out, "Makefile\0a\x1b[2J\0");
    let json = host
        .run(&[
            "vm",
            "workspace",
            "prepare",
            "a",
            &repository,
            "--dry-run",
            "--json",
        ])
        .json();
    assert_eq!(
        (&json["mode"], &json["files"][0], &json["notes"][0]),
        (
            &"shallow_overlay".into(),
            &"Makefile".into(),
            &"2 files are not tracked".into()
        )
    );
    assert!(host.fake.calls().iter().all(|call| call.starts_with("list")));
}

#[test]
fn prepare_says_where_it_is_and_cleans_what_it_passes_on() {
    let (host, repository) = host();
    let ran = host.run(&["vm", "workspace", "prepare", "b", &repository, "--force"]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (Some(0), "b: the workspace is in /root/repo\n")
    );
    assert!(ran.err.ends_with("1 file is not tracked\n"), "{ran:?}");
    let json = host.run(&["vm", "workspace", "prepare", "b", &repository, "--json"]);
    let last: serde_json::Value = serde_json::from_str(json.out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["result"], &last["bytes"]), (&"done".into(), &7.into()));
    assert_eq!(
        host.fake.calls()[0],
        "prepare b branch=None untracked=None force=Some(true)"
    );
}

#[test]
fn results_come_out_to_absolute_paths() {
    let (host, _) = host();
    let mut command = host.command(&["vm", "workspace", "export", "a", "--patch", "p"]);
    let output = command.current_dir(host.path("repo")).output().unwrap();
    assert_eq!(output.stdout, b"a: refs/banger/a/main\n", "{output:?}");
    let call = &host.fake.calls()[0];
    assert!(call.contains("/repo/p\")") && call.contains("to: None"), "{call}");
}

#[test]
fn a_workspace_is_shown_and_stale_is_said_once() {
    let (host, repository) = host();
    let shown = host.run(&["vm", "workspace", "show", "b"]);
    assert!(
        shown.out.contains(&repository) && shown.out.contains("/root/repo"),
        "{shown:?}"
    );
    let json = host.run(&["vm", "workspace", "show", "b", "--json"]).json();
    assert_eq!(
        (&json["stale"], &json["host_commit"]),
        (&true.into(), &"def".into())
    );
    let none = host.run(&["vm", "workspace", "show", "a"]);
    assert_eq!(none.status, Some(1));
    assert!(
        none.err.contains("The VM a has no workspace\nhint: Bring one"),
        "{none:?}"
    );
    let list = host.run(&["vm", "list", "-a"]);
    assert!(
        list.out.contains("WORKSPACE") && list.out.contains("~/repo"),
        "{list:?}"
    );

    let exec = |words: &[&str]| host.run(&[&["vm", "exec"], words].concat());
    let stale = exec(&["b", "--", "true"]);
    assert_eq!(
        (stale.status, stale.err.lines().count()),
        (Some(0), 1),
        "{stale:?}"
    );
    assert!(stale.err.contains("--auto-prepare"), "{stale:?}");
    assert_eq!(exec(&["b", "-w", "/", "--", "true"]).err, "");
    assert_eq!(exec(&["a", "--", "true"]).err, "");
    let auto = exec(&["b", "--auto-prepare", "--", "true"]);
    assert_eq!((auto.status, auto.err.as_str()), (Some(0), ""));
    assert!(host.fake.calls().iter().any(|call| call.starts_with("prepare b")));
    assert_eq!(exec(&["a", "--auto-prepare", "--", "true"]).status, Some(125));
}
