//! Copies, ports, figures and changes.

use crate::host::Host;

#[test]
fn copies_go_both_ways_by_docker_s_syntax() {
    let host = Host::new();
    let ran = host.run(&["vm", "cp", "-L", "/etc/x:y", "a:"]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (Some(0), "Copied 1.5 KiB to a:.\n"),
        "{ran:?}"
    );
    let mut out = host.command(&["vm", "cp", "a:/var/log/x", "."]);
    let output = out.current_dir("/usr").output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.ends_with("A FIFO was left out\n") && !err.contains('\x1b'),
        "{err}"
    );
    assert_eq!(
        host.fake.calls(),
        ["copy-in /etc/x:y . Some(true)", "copy-out /var/log/x /usr/."]
    );
    for bad in [
        ["x", "y"],
        ["a:x", "b:y"],
        ["-", "a:x"],
        ["a:x", "-"],
        ["a:", "x"],
    ] {
        let ran = host.run(&["vm", "cp", bad[0], bad[1]]);
        assert_eq!(ran.status, Some(2), "{ran:?}");
    }
    let json = host.run(&["vm", "cp", "--json", "/x", "a:/y"]);
    assert!(json.out.contains("\"bytes\":1536"), "{json:?}");
    assert_eq!(host.run(&["vm", "cp", "nobody:/x", "y"]).status, Some(1));
}

#[test]
fn what_listens_is_shown_where_it_is_reached_and_cleaned() {
    let host = Host::new();
    let ran = host.run(&["vm", "ports", "a"]);
    assert_eq!(
        ran.out,
        "PROTO   ENDPOINT             PROCESS      COMMAND\n\
         tcp     http://0.0.0.0:80/   httpd (12)   httpd -f\n\
         tcp     127.0.0.1:81         httpd (12)   httpd\n",
        "{ran:?}"
    );
    let several = host.run(&["vm", "ports", "a", "b", "--json"]);
    assert_eq!(several.status, Some(1), "{several:?}");
    assert!(several.err.contains("b: The VM b does not run"), "{several:?}");
    let json = several.json();
    assert_eq!(
        (&json[0]["name"], &json[0]["ports"][1]["port"]),
        (&"a".into(), &81.into())
    );
}

#[test]
fn ports_are_published_listed_and_closed() {
    let host = Host::new();
    let ran = host.run(&["vm", "port", "add", "a", "80", "3000:81"]);
    assert_eq!(ran.out, "127.0.0.1:40000 -> 80\n127.0.0.1:3000 -> 81\n");
    assert_eq!(
        host.run(&["vm", "port", "rm", "a", "3000"]).out,
        "127.0.0.1:3000: closed\n"
    );
    assert_eq!(host.run(&["vm", "port", "add", "a", "22:22"]).status, Some(1));
    assert_eq!(
        host.fake.calls(),
        [
            "publish 0:80",
            "publish 3000:81",
            "unpublish 3000",
            "publish 22:22"
        ]
    );
    assert_eq!(
        host.run(&["vm", "port", "list", "--json"]).json(),
        serde_json::json!([])
    );
}

#[test]
fn figures_are_rates_of_two_samples() {
    let host = Host::new();
    let ran = host.run(&["vm", "stats"]);
    let row = ran.out.lines().nth(1).unwrap();
    for cell in [
        "50.00%",
        "256MiB / --",
        "64MiB / 512MiB",
        "12.3MB / 1kB",
        "-- -- --",
        "3GiB",
    ] {
        assert!(row.contains(cell), "{cell}: {ran:?}");
    }
    let json = host.run(&["vm", "stats", "a", "--json"]).json();
    assert_eq!(
        (&json[0]["cpu_percent"], &json[0]["memory_max_bytes"]),
        (&50.0.into(), &serde_json::Value::Null)
    );
    let ran = host.run(&["vm", "stats", "b"]);
    assert_eq!(
        (ran.status, ran.err.matches("does not run").count()),
        (Some(1), 1),
        "{ran:?}"
    );
}

#[test]
fn changes_say_what_waits_for_the_next_start() {
    let host = Host::new();
    let ran = host.run(&["vm", "set", "a", "--vcpu", "4", "--label", "k=v"]);
    assert_eq!(
        ran.out,
        "a: changed; with its next start: vcpu (`banger vm restart a`)\n"
    );
    assert_eq!(
        host.run(&["vm", "set", "a", "--remove-label", "k"]).out,
        "a: changed\n"
    );
    assert_eq!(host.run(&["vm", "rename", "a", "new"]).out, "a: now new\n");
    let calls = host.fake.calls();
    assert!(
        calls[0].contains("vcpus: Some(4)") && calls[0].contains("\"k\": \"v\""),
        "{calls:?}"
    );
    assert_eq!(calls[2], "rename a new");
}

#[test]
fn prune_takes_only_what_has_the_label() {
    let host = Host::new();
    let prune = |filter: &str| host.run(&["vm", "prune", "--dry-run", "--filter", filter]).out;
    assert_eq!(prune("label=team"), "b\nboot-fails\n");
    assert_eq!(prune("label=team=b"), "b\n");
    assert_eq!(prune("label=team=a"), "");
    assert_eq!(prune("label=none"), "");
}
