//! What there is, for people and for programs.

use crate::host::{Host, input};

#[test]
fn only_what_runs_is_listed_unless_all_is_asked_for() {
    let host = Host::new();
    let ran = host.run(&["ps"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(
        lines[0].starts_with("NAME   STATE     IMAGE             ADDRESS     WORKSPACE   AGE"),
        "{ran:?}"
    );
    assert!(
        lines[1].starts_with("a      running   debian-bookworm   127.0.0.1"),
        "{ran:?}"
    );
    assert_eq!((lines.len(), ran.err.as_str()), (2, ""));
    let all = host.run(&["vm", "list", "--all"]);
    assert!(all.out.contains("stopped (guest-panic)"), "{all:?}");
    assert_eq!(host.run(&["vm", "ls", "-a", "-q"]).out, "a\nb\nboot-fails\n");
    assert_eq!(host.run(&["ps", "-aq", "--filter", "label=team=b"]).out, "b\n");
}

#[test]
fn programs_get_every_property() {
    let host = Host::new();
    let vms = host.run(&["vm", "list", "--json"]).json();
    assert_eq!(vms.as_array().unwrap().len(), 1);
    let shown = host.run(&["vm", "show", "a", "b", "--json"]).json();
    assert_eq!(shown[0], vms[0]);
    assert_eq!(
        (&shown[0]["pid"], &shown[1]["stop_reason"]),
        (&4242.into(), &"guest-panic".into())
    );
    assert_eq!(shown[0]["labels"]["team"], "a");
    let images = host.run(&["image", "list", "--json"]).json();
    assert_eq!(images[1]["name"], "debian-bookworm");
    let kernels = host.run(&["kernel", "list", "--json"]).json();
    assert_eq!(kernels[0]["aliases"][0], "debian-6.1");
    let available = host.run(&["image", "list", "--available", "--json"]).json();
    assert_eq!(available[0]["description"], "One of the images");
}

#[test]
fn people_get_what_is_there() {
    let host = Host::new();
    let ran = host.run(&["vm", "show", "a"]);
    assert!(ran.out.contains("\nprocess       4242\n"), "{ran:?}");
    assert!(!ran.out.contains("unit"), "{ran:?}");
    let kernel = host.run(&["kernel", "show", "6.1"]);
    assert!(kernel.out.contains("warning   No overlayfs"), "{kernel:?}");
    assert!(host.run(&["image", "list"]).out.contains("900.0 MiB"));
}

#[test]
fn the_log_is_passed_on_as_it_is_to_a_pipe() {
    let host = Host::new();
    let ran = host.run(&["vm", "logs", "a", "-n", "7", "--boot"]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), "one\x1b[2J\ntwo\n"));
    assert_eq!(host.fake.calls(), ["log Some(7) Some(true)"]);
}

#[test]
fn status_tells_of_the_daemon() {
    let host = Host::new();
    let status = host.run(&["daemon", "status", "--json"]).json();
    assert_eq!(
        (&status["running"], &status["version"]),
        (&true.into(), &"0.0.1".into())
    );
    assert_eq!(status["transport"], "private-socket");
    let nobody = Host::without_daemon();
    let ran = nobody.run(&["daemon", "status"]);
    assert_eq!(ran.status, Some(3), "{ran:?}");
    assert!(ran.out.contains("not running"), "{ran:?}");
}

#[test]
fn completion_knows_names_and_never_starts_a_daemon() {
    let complete = |host: &Host, words: &[&str]| {
        let mut command = host.command(&[&["--", "banger"], words].concat());
        command
            .env("COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
            .env("_CLAP_IFS", "\n");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let host = Host::new();
    assert_eq!(complete(&host, &["vm", "stop", "b"]), "b\nboot-fails");
    assert_eq!(complete(&host, &["vm", "cp", "bo"]), "boot-fails:");
    assert!(complete(&host, &["vm", "sto"]).contains("stop"));
    let nobody = Host::without_daemon();
    assert!(!complete(&nobody, &["vm", "stop", "b"]).contains("boot"));
    assert!(!nobody.path("run/banger").exists());
    for shell in ["bash", "zsh", "fish"] {
        let script = nobody.run(&["completion", shell]);
        assert!(
            script.status == Some(0) && script.out.contains("banger"),
            "{script:?}"
        );
    }
}

/// What bash makes of a line, broken into words as bash does it.
fn bash(host: &Host, words: &[&str]) -> String {
    let script = "source /dev/stdin; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; \
                  f=$(complete -p banger); f=${f##*-F }; f=${f%% *}; \
                  $f banger \"${!#}\" x; echo \"${COMPREPLY[@]}\"";
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_banger"))
        .parent()
        .unwrap();
    let banger = host.command(&["completion", "bash"]).output().unwrap().stdout;
    let mut bash = std::process::Command::new("bash");
    let environment = host.command(&[]);
    bash.envs(
        environment
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    )
    .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
    .args(["-c", script, "bash"])
    .args(words)
    .stdin(input(host, &banger));
    String::from_utf8(bash.output().unwrap().stdout).unwrap()
}

#[test]
fn bash_completes_names_with_colons() {
    let host = Host::new();
    let lines = [
        (&["banger", "vm", "stop", "b"][..], "b boot-fails\n"),
        (&["banger", "image", "show", "al"], "alpine:3.20\n"),
        (&["banger", "image", "show", "alpine", ":"], "3.20\n"),
        (&["banger", "image", "show", "alpine", ":", "3"], "3.20\n"),
        (
            &["banger", "image", "delete", "alpine", ":", "3.20", "deb"],
            "debian-bookworm\n",
        ),
        (&["banger", "image", "pull", "debian-m"], "debian-minimal\n"),
        (&["banger", "image", "show", "x", ":", "3"], "\n"),
    ];
    for (words, completed) in lines {
        assert_eq!(bash(&host, words), completed, "{words:?}");
    }
}
