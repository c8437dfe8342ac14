//! `banger system install`, `status`, `restart` and `uninstall` on a real systemd.

#![allow(clippy::print_stdout, reason = "what a reader of the log wants to see")]

use std::time::Duration;

use banger_e2e::{ALICE, Machine, NOBODY, Out, finished};

const LIMIT: Duration = Duration::from_secs(120);
/// What a hardened unit may have of `systemd-analyze security`, in tenths.
const MOST_EXPOSED: u32 = 20;

/// `banger` of the build, as root.
async fn banger(machine: &Machine, words: &[&str]) -> Out {
    let program = machine.build().join("banger");
    finished(machine.root(program).args(words), LIMIT).await
}

/// What is where after an installation, and when it was written.
async fn written(machine: &Machine) -> String {
    let script = "find /usr/local /etc/dbus-1 /etc/polkit-1 /etc/systemd /usr/share/polkit-1 \
                  -type f -printf '%p %T@ %m\\n' | sort";
    machine.sh(script).await.ok().text()
}

#[tokio::test]
async fn system_mode_comes_and_goes_without_a_trace() {
    let Some(machine) = Machine::boot_for_system_mode().await else {
        return;
    };
    let before = machine.state().await;
    banger(&machine, &["system", "status"]).await.exits(3);
    banger(&machine, &["system", "uninstall"]).await.ok();
    let build = machine.build().join("banger").display().to_string();
    let refused = machine
        .run_as(ALICE, &[&build, "system", "install"])
        .await
        .exits(1);
    assert!(refused.stderr.contains("sudo"), "{refused}");

    conflicts_and_interruptions(&machine).await;
    let leftover = before.difference(&machine.state().await);
    assert_eq!(leftover, "", "an installation that was given up leaves nothing");

    banger(&machine, &["system", "install"]).await.ok();
    let first = written(&machine).await;
    for name in [
        "bin/banger ",
        "lib/banger/bangerd ",
        "lib/banger/banger-helper ",
        "lib/banger/banger-guest ",
    ] {
        assert!(first.contains(&format!("/usr/local/{name}")), "{name}: {first}");
    }
    assert!(!first.contains("banger-new"), "{first}");

    // Again, from the build and from the installation: nothing is written, nothing is restarted
    // that a running VM would miss.
    banger(&machine, &["system", "install"]).await.ok();
    let installed = "/usr/local/bin/banger";
    finished(machine.root(installed).args(["system", "install"]), LIMIT)
        .await
        .ok();
    assert_eq!(written(&machine).await, first);

    status(&machine).await;
    exposure(&machine).await;
    finished(machine.root(installed).args(["system", "restart"]), LIMIT)
        .await
        .ok();
    banger(&machine, &["system", "status"]).await.ok();

    banger(&machine, &["system", "uninstall"]).await.ok();
    let difference = before.difference(&machine.state().await);
    assert_eq!(difference, "", "uninstall takes back everything");
    banger(&machine, &["system", "status"]).await.exits(3);
}

async fn conflicts_and_interruptions(machine: &Machine) {
    // A file of somebody else's is named, and stops everything before it begins.
    let theirs = "/etc/polkit-1/rules.d/50-banger.rules";
    machine.sh(&format!("echo '// mine' > {theirs}")).await.ok();
    let before = written(machine).await;
    let refused = banger(machine, &["system", "install"]).await.exits(1);
    assert!(
        refused.stderr.contains(theirs) && refused.stderr.contains("--force"),
        "{refused}"
    );
    assert_eq!(written(machine).await, before);
    machine.sh(&format!("rm {theirs}")).await.ok();

    // One that breaks off in the middle says how to go on, and can be taken back.
    let actions = "/usr/share/polkit-1/actions";
    machine
        .sh(&format!(
            "mount --bind {actions} {actions} && mount -o remount,bind,ro {actions}"
        ))
        .await
        .ok();
    let broken = banger(machine, &["system", "install"]).await.exits(1);
    assert!(broken.stderr.contains("org.banger.helper.policy"), "{broken}");
    assert!(broken.stderr.contains("banger system install"), "{broken}");
    let status = banger(machine, &["system", "status"]).await.exits(1);
    assert!(status.text().contains("not completely installed"), "{status}");
    machine.sh(&format!("umount {actions}")).await.ok();
    banger(machine, &["system", "uninstall"]).await.ok();
}

async fn status(machine: &Machine) {
    let root = banger(machine, &["system", "status"]).await.ok();
    println!("{}", root.text());
    let build = machine.build().join("banger").display().to_string();
    let json = machine
        .run_in_session(ALICE, &[&build, "system", "status", "--json"])
        .await
        .ok()
        .json();
    assert_eq!(json["installed"], true, "{json}");
    assert_eq!(json["files_of"], "install", "{json}");
    assert_eq!(json["prefix"], "/usr/local", "{json}");
    assert_eq!(json["helper_version"], json["version"], "{json}");
    let checks = json["checks"].as_array().unwrap();
    assert!(
        !checks.is_empty() && checks.iter().all(|check| check["ok"] == true),
        "{json}"
    );
    let network = &json["units"][0];
    assert_eq!(
        (&network["active"], &network["file_state"]),
        (&"active".into(), &"enabled".into()),
        "{json}"
    );
    // Somebody without any right sees that it is there, and is told no more.
    let nobody = machine
        .run_as(
            NOBODY,
            &["env", "HOME=/nonexistent", &build, "system", "status", "--json"],
        )
        .await;
    assert_eq!(nobody.json()["installed"], true, "{nobody}");
}

/// The helper is open to so little that `systemd-analyze security` has little to say.
async fn exposure(machine: &Machine) {
    for unit in ["banger-helper.service", "banger-network.service"] {
        let out = machine
            .sh(&format!("systemd-analyze security --no-pager {unit}"))
            .await
            .ok();
        let text = out.text();
        for line in text.lines().filter(|line| !line.trim_start().starts_with('✓')) {
            println!("{}", line.trim_end());
        }
        let score = text
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for")?.1.split_once(": "))
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .unwrap_or_else(|| panic!("{text}"));
        let tenths: u32 = score.replace('.', "").parse().unwrap();
        if unit.starts_with("banger-helper") {
            assert!(tenths <= MOST_EXPOSED, "{unit} has {score}");
        }
    }
}

#[tokio::test]
async fn the_files_of_a_package_are_only_enabled() {
    let Some(machine) = Machine::boot_for_system_mode().await else {
        return;
    };
    let before = machine.state().await;
    machine.install("/usr").await;
    let packaged = machine.state().await;
    let banger = async |words: &[&str]| finished(machine.root("/usr/bin/banger").args(words), LIMIT).await;
    banger(&["system", "status"]).await.exits(1);
    let installed = banger(&["system", "install"]).await.ok();
    assert!(installed.stderr.contains("package"), "{installed}");
    let status = banger(&["system", "status", "--json"]).await.ok().json();
    assert_eq!(status["files_of"], "package", "{status}");
    let refused = machine.uninstall("/usr").await.exits(1);
    assert!(refused.stderr.contains("banger system uninstall"), "{refused}");

    banger(&["system", "uninstall"]).await.ok();
    assert_eq!(
        packaged.difference(&machine.state().await),
        "",
        "the package's files stay"
    );
    machine.uninstall("/usr").await.ok();
    // Directories that others may share stay.
    let left = before.difference(&machine.state().await);
    let left: Vec<_> = left
        .lines()
        .filter(|line| !line.contains(" d 755 root root"))
        .collect();
    assert!(left.is_empty(), "make uninstall takes back: {left:?}");
}
