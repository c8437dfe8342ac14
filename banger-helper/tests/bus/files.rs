//! The files that are installed with the helper, against what reviewers look for.

use std::collections::BTreeMap;

use banger_bus::helper::{ACTION_PREFIX, ACTIONS};

use crate::support::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// What is between two texts, each time.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    let parts = text.split(begin).skip(1);
    parts.map(|part| part.split(end).next().unwrap()).collect()
}

fn one<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let found = between(text, begin, end);
    assert_eq!(found.len(), 1, "{begin} in {text}");
    found[0]
}

/// Which user, in which session, gets what for each action.
const OWN_RUN: [&str; 3] = ["auth_admin", "auth_admin", "yes"];
const OWN: [&str; 3] = ["no", "yes", "yes"];
const OTHERS: [&str; 3] = ["no", "auth_admin", "auth_admin"];

fn defaults(action: &str) -> [&'static str; 3] {
    match action {
        "acquire-slot" | "launch" | "route-names" => OWN_RUN,
        "release-slot" | "stop" | "kill" | "list" | "open-log" | "status" => OWN,
        "repair" | "list-all" | "evict" => OTHERS,
        other => panic!("{other} is new: what does it default to?"),
    }
}

#[test]
fn each_method_has_one_action_that_names_its_object() {
    let policy = read("polkit/org.banger.helper.policy");
    let actions: BTreeMap<&str, &str> = between(&policy, "<action id=\"", "</action>")
        .into_iter()
        .map(|action| action.split_once("\">").unwrap())
        .collect();
    assert_eq!(actions.len(), ACTIONS.len());
    for (_, action) in ACTIONS {
        let body = actions[format!("{ACTION_PREFIX}{action}").as_str()];
        let found = [
            one(body, "<allow_any>", "<"),
            one(body, "<allow_inactive>", "<"),
            one(body, "<allow_active>", "<"),
        ];
        assert_eq!(found, defaults(action), "{action}");
        let message = one(body, "<message>", "<");
        let named = between(message, "$(", ")");
        assert!(!named.is_empty(), "{action}: {message}");
        for name in named {
            assert!(
                ["user", "network", "slot", "vm", "port"].contains(&name),
                "{action}: {name}"
            );
        }
    }
    let kept = between(&policy, "<allow_", "<")
        .iter()
        .any(|allow| allow.contains("_keep"));
    assert!(!kept, "what is granted for one object is granted for all");
}

#[test]
fn the_group_gets_what_is_its_members_own() {
    let rules = read("polkit/50-banger.rules");
    let listed = one(&rules, "var own = [", "]");
    let mut granted = between(listed, "\"", "\"");
    granted.retain(|part| part.chars().any(|c| c.is_ascii_lowercase()));
    granted.sort_unstable();
    let mut own: Vec<&str> = ACTIONS.iter().map(|(_, action)| *action).collect();
    own.retain(|action| defaults(action) != OTHERS);
    own.sort_unstable();
    assert_eq!(granted, own);
    assert_eq!(between(&rules, "isInGroup(", ")"), ["\"banger\""]);
}

#[test]
fn the_bus_lets_through_what_is_listed() {
    let policy = read("dbus/org.banger.Helper.conf");
    let owners = between(&policy, "<policy user=\"root\">", "</policy>");
    assert_eq!(owners.len(), 1);
    assert_eq!(
        between(&policy, "own=\"", "\"").len(),
        1,
        "root's, and nobody else's"
    );
    let root = between(owners[0], "<", "/>");
    let signals = "allow send_destination=\"org.banger.Helper\" send_type=\"signal\"";
    assert_eq!(root, ["allow own=\"org.banger.Helper\"", signals]);
    assert!(!policy.contains("\"*\"") && !policy.contains("group=") && !policy.contains("at_console"));

    let everybody = one(&policy, "<policy context=\"default\">", "</policy>");
    let rules = between(everybody, "<", "/>");
    assert_eq!(rules[0], "deny send_destination=\"org.banger.Helper\"");
    let mut members = Vec::new();
    for rule in &rules[1..] {
        let prefix = "allow send_destination=\"org.banger.Helper\" send_interface=\"";
        let rest = rule.strip_prefix(prefix).unwrap_or_else(|| panic!("{rule}"));
        let (interface, member) = rest.split_once("\" send_member=\"").unwrap();
        members.push((interface, member.trim_end_matches('"')));
    }
    let own = members
        .iter()
        .filter(|(interface, _)| *interface == "org.banger.Helper");
    let own: Vec<&str> = own.map(|(_, member)| *member).collect();
    let methods: Vec<&str> = ACTIONS.iter().map(|(method, _)| *method).collect();
    assert_eq!(own, methods);
    let others: Vec<&str> = members[own.len()..].iter().map(|(_, member)| *member).collect();
    assert_eq!(others, ["Introspect", "Ping", "Get", "GetAll"]);
}

#[test]
fn the_interface_takes_numbers_handles_and_descriptors() {
    let xml = read("dbus/org.banger.Helper.xml");
    let taken: Vec<&str> = between(&xml, "<arg ", "/>")
        .into_iter()
        .filter(|argument| argument.contains("direction=\"in\""))
        .map(|argument| one(argument, "type=\"", "\""))
        .collect();
    for kind in &taken {
        // The options' own types are looked at below.
        assert!(["y", "q", "(tt)", "h", "a{yh}", "a{sv}"].contains(kind), "{kind}");
    }
    // Of all options one is a text: a name for people, checked as a VM's name.
    let options = read("crates/banger-bus/src/helper/data.rs");
    assert_eq!(options.matches("Option<String>").count(), 1);
    assert_eq!(options.matches("pub name: Option<String>").count(), 1);
}

/// What must not be in the helper's source at all.
#[test]
fn the_source_has_nothing_that_reviewers_look_for() {
    let mut sources = Vec::new();
    collect(&root().join("banger-helper/src"), &mut sources);
    assert!(sources.len() > 20);
    for (path, text) in sources {
        for never in [
            "new_for_owner",
            "new_for_pid",
            "nft -f",
            "flush ruleset",
            "allow_unauthorized",
        ] {
            assert!(!text.contains(never), "{path}: {never}");
        }
        assert!(
            !text.contains("cfg(feature"),
            "{path}: authorisation is no build feature"
        );
    }
}

/// The larger tests of its parts are in `tests/unit` for that reason.
#[test]
fn the_source_can_be_read_in_an_afternoon() {
    let mut sources = Vec::new();
    collect(&root().join("banger-helper/src"), &mut sources);
    let lines: usize = sources.iter().map(|(_, text)| text.lines().count()).sum();
    assert!(lines <= 5_000, "{lines} lines");
}

fn collect(directory: &std::path::Path, sources: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            sources.push((path.display().to_string(), text));
        }
    }
}

#[test]
fn the_unit_is_hardened_to_its_bound() {
    let unit = read("systemd/banger-helper.service.in").replace("@libexecdir@/banger-helper", "/bin/true");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("banger-helper.service");
    std::fs::write(&file, unit).unwrap();
    let output = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--threshold=20", "--no-pager"])
        .arg(&file)
        .output();
    let Ok(output) = output else {
        let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|rung| rung == "bus"),
            "no systemd-analyze"
        );
        println!("skipped: no systemd-analyze");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
