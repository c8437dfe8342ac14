//! `banger doctor` in system mode: what is broken is named with the way out, by a user who may
//! do nothing about it himself.

#![allow(clippy::print_stdout, reason = "what a reader of the log wants to see")]

use std::time::Duration;

use banger_e2e::{ALICE, BOB, Machine, finished, line_with};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(240);
const BANGER: &str = "/usr/local/bin/banger";

/// Drops what comes from the guests' network.
const DROP: &str = r#"printf '%s' 'table ip other { chain input {
    type filter hook input priority 0; iifname "banger0" drop; }; }' | nft -f -"#;

async fn installed() -> Option<Machine> {
    let machine = Machine::boot_for_system_mode().await?;
    let mut install = machine.root(machine.build().join("banger"));
    finished(install.args(["system", "install"]), LIMIT).await.ok();
    Some(machine)
}

async fn doctor(machine: &Machine, words: &[&str]) -> Value {
    let words = [&[BANGER, "doctor", "--json"], words].concat();
    let out = machine.run_in_session(ALICE, &words).await;
    assert!(out.status <= 1, "{out}");
    let document = out.json();
    for check in document["checks"].as_array().expect("there are checks") {
        if ["warning", "failure"]
            .iter()
            .any(|status| check["status"] == *status)
        {
            println!("{check}");
        }
    }
    document
}

fn check<'a>(document: &'a Value, name: &str) -> &'a Value {
    let checks = document["checks"].as_array().expect("there are checks");
    checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {document:#}"))
}

#[track_caller]
fn well(document: &Value, name: &str) {
    let found = check(document, name);
    assert_eq!(found["status"], "ok", "{found}");
}

#[track_caller]
fn fails(document: &Value, name: &str, words: &[&str]) {
    let found = check(document, name);
    assert_eq!(found["status"], "failure", "{found}");
    let text = format!("{} {}", found["message"], found["hint"]);
    for word in words {
        assert!(text.contains(word), "no {word:?} in {found}");
    }
}

async fn sh(machine: &Machine, script: &str) {
    machine.sh(script).await.ok();
}

#[tokio::test]
async fn a_broken_system_mode_is_named_with_the_way_out() {
    let Some(machine) = installed().await else {
        return;
    };
    let document = doctor(&machine, &[]).await;
    let names = [
        "system-bus",
        "session-bus",
        "systemd-user",
        "polkit",
        "helper",
        "system-unit-network",
        "system-guests-filter",
        "system-firewall",
        "network-link",
    ];
    for name in names {
        well(&document, name);
    }
    // Nobody can be asked for bob's password: he learns how he may.
    let bob = machine
        .run_in_session(BOB, &[BANGER, "doctor", "--json"])
        .await
        .json();
    let polkit = check(&bob, "polkit");
    assert_eq!(polkit["status"], "warning", "{polkit}");
    let hint = polkit["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("usermod -aG banger"), "{polkit}");

    firewalls(&machine).await;
    user_unit(&machine).await;
    helper_down(&machine).await;
}

#[tokio::test]
async fn a_vm_that_runs_is_asked_and_known_by_name() {
    let Some(machine) = installed().await else {
        return;
    };
    let create = [
        BANGER, "vm", "create", "--quiet", "--image", "bare", "--memory", "256M", "--vcpu", "1", "web",
    ];
    machine.run_in_session(ALICE, &create).await.ok();
    let document = doctor(&machine, &[]).await;
    for name in ["daemon", "known-hosts", "network-link", "leftovers"] {
        well(&document, name);
    }
    if machine.has_resolver().await {
        well(&document, "resolver");
        let found = check(&document, "resolver");
        assert!(
            found["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("web.vm is 10.119."))
        );
    }
    // Nobody is at the other end here, which the host finds out as well.
    let guest = check(&document, "network-guest");
    assert_eq!(guest["detail"], "Neither does the host.", "{guest}");

    // The guest is not reached where its answers are dropped.
    sh(&machine, DROP).await;
    let document = doctor(&machine, &[]).await;
    fails(
        &document,
        "network-guest",
        &["The agent of web is not reached", "banger0"],
    );
}

async fn firewalls(machine: &Machine) {
    // What comes from the guests' network is dropped: a packet shows it.
    sh(machine, DROP).await;
    let document = doctor(machine, &[]).await;
    fails(
        &document,
        "network-link",
        &["gets no answer", "banger0", "systemctl reload banger-network"],
    );
    sh(machine, "nft delete table ip other").await;
    well(&doctor(machine, &[]).await, "network-link");

    // What goes through the host is: the network says which chain it is.
    sh(
        machine,
        "printf '%s' 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; }; }' | nft -f -
         systemctl reload banger-network",
    )
    .await;
    let mut follow = machine.root("journalctl");
    follow.args(["-q", "-f", "-n", "all", "-o", "cat", "-u", "banger-network"]);
    let mut follow = follow.spawn().expect("nsenter can be started");
    let stdout = follow.stdout.as_mut().expect("standard output is a pipe");
    line_with(stdout, "Guests have no Internet", LIMIT).await;
    let document = doctor(machine, &[]).await;
    fails(
        &document,
        "system-firewall",
        &["inet mine forward", "accept what comes from banger0"],
    );
    sh(
        machine,
        "nft delete table inet mine; systemctl reload banger-network",
    )
    .await;
}

/// A user service that has failed is started again on request.
async fn user_unit(machine: &Machine) {
    let script = r#"
        place="$XDG_RUNTIME_DIR/systemd/user/bangerd.service.d"
        mkdir -p "$place"
        printf '[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n' > "$place/broken.conf"
        systemctl --user daemon-reload
        ! systemctl --user restart bangerd.service
        rm -r "$place"
        systemctl --user daemon-reload
        systemctl --user is-failed bangerd.service"#;
    machine.person_sh(ALICE, script).await.ok();
    let document = doctor(machine, &[]).await;
    fails(
        &document,
        "systemd-user-unit",
        &[
            "bangerd.service has failed",
            "systemctl --user restart bangerd.service",
        ],
    );
    let document = doctor(machine, &["--fix"]).await;
    well(&document, "systemd-user-unit");
    let active = "systemctl --user is-active bangerd.service";
    machine.person_sh(ALICE, active).await.ok();
}

async fn helper_down(machine: &Machine) {
    sh(
        machine,
        "mkdir -p /run/systemd/system/banger-helper.service.d
         printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\nRestart=no\\n' > /run/systemd/system/banger-helper.service.d/broken.conf
         systemctl daemon-reload
         systemctl stop banger-helper.service",
    )
    .await;
    let document = doctor(machine, &[]).await;
    fails(
        &document,
        "system-checks",
        &[
            "banger-helper does not answer",
            "systemctl status banger-helper.service",
            "sudo banger system restart",
        ],
    );
    // Now it has failed, which systemd says without being asked for anything.
    let document = doctor(machine, &[]).await;
    fails(
        &document,
        "system-unit-helper",
        &["banger-helper.service has failed", "journalctl -u"],
    );

    sh(
        machine,
        "cd /run/systemd/system && rm -r banger-helper.service.d
         systemctl daemon-reload
         systemctl reset-failed banger-helper.service
         systemctl stop banger-network.service",
    )
    .await;
    // What an administrator stopped is not started by a look.
    let document = doctor(machine, &[]).await;
    assert_eq!(check(&document, "system-unit-network")["status"], "info");
    let active = machine.sh("systemctl is-active banger-network.service").await;
    assert_eq!(active.text(), "inactive");

    sh(
        machine,
        "mkdir -p /run/systemd/system/banger-network.service.d
         printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\nRestart=no\\n' > /run/systemd/system/banger-network.service.d/broken.conf
         systemctl daemon-reload
         ! systemctl start banger-network.service",
    )
    .await;
    let document = doctor(machine, &[]).await;
    fails(
        &document,
        "system-unit-network",
        &["banger-network.service has failed", "sudo banger system restart"],
    );
    fails(
        &document,
        "network-link",
        &["There is no route", "systemctl restart banger-network"],
    );
}
