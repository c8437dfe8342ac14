//! System mode's names, by a real systemd-resolved, and its entries in a real journal.

#![allow(clippy::print_stdout, reason = "what a reader of the log wants to see")]

use std::time::Duration;

use banger_e2e::{ALICE, BOB, Machine, NOBODY, Out, Person, finished, line_with, skipped};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(240);
const BANGER: &str = "/usr/local/bin/banger";
const SMALL: [&str; 6] = ["--image", "bare", "--memory", "256M", "--vcpu", "1"];
/// What the helper says when the resolver has been told.
const OF_ALICE: &str = "Names of VMs are those of uid 4242";
const OF_BOB: &str = "Names of VMs are those of uid 4343";
const OF_NOBODY: &str = "Names of VMs are not known";

async fn banger(machine: &Machine, person: Person, words: &[&str]) -> Out {
    machine.run_in_session(person, &[&[BANGER], words].concat()).await
}

async fn create(machine: &Machine, person: Person, name: &str) -> Value {
    let create = [&["vm", "create", "--quiet"], &SMALL[..], &[name]].concat();
    banger(machine, person, &create).await.ok();
    let shown = banger(machine, person, &["vm", "show", "--json", name])
        .await
        .ok();
    let vm = shown.json()[0].clone();
    assert!(
        vm["address"]
            .as_str()
            .is_some_and(|address| address.starts_with("10.119.")),
        "{vm}"
    );
    vm
}

async fn text(machine: &Machine, script: &str) -> String {
    machine.sh(script).await.ok().text().trim().to_owned()
}

/// The last of the helper's words, after which others will be said. journalctl counts from an
/// entry that its other conditions fit.
async fn mark(machine: &Machine) -> String {
    let shown = text(machine, "journalctl --sync; journalctl -q -n 1 -o json -u banger").await;
    let entry: Value = serde_json::from_str(&shown).expect("it is JSON");
    entry["__CURSOR"]
        .as_str()
        .expect("every entry has one")
        .to_owned()
}

/// Waits until the helper says it.
async fn said(machine: &Machine, mark: &str, words: &str) {
    let mut follow = machine.root("journalctl");
    follow.args([
        "-q",
        "-f",
        "-n",
        "all",
        "-o",
        "cat",
        "-u",
        "banger",
        "--after-cursor",
        mark,
    ]);
    let mut follow = follow.spawn().expect("nsenter can be started");
    let stdout = follow.stdout.as_mut().expect("standard output is a pipe");
    line_with(stdout, words, LIMIT).await;
}

/// Does it, and waits until the helper says so.
async fn then(machine: &Machine, script: &str, words: &str) {
    let mark = mark(machine).await;
    text(machine, script).await;
    said(machine, &mark, words).await;
}

async fn is_known(machine: &Machine, name: &str) -> bool {
    machine.sh(&format!("getent hosts {name}")).await.status == 0
}

#[tokio::test]
async fn the_host_knows_vms_by_name() {
    let Some(machine) = Machine::boot_for_system_mode().await else {
        return;
    };
    if !machine.has_resolver().await {
        skipped("resolved", "no systemd-resolved here");
        return;
    }
    let mut install = machine.root(machine.build().join("banger"));
    finished(install.args(["system", "install"]), LIMIT).await.ok();
    let acquire = "busctl --allow-interactive-authorization=no call org.banger.Helper /org/banger/Helper \
                   org.banger.Helper AcquireSlot y 0";
    let refused = machine.run_as(NOBODY, &["sh", "-c", acquire]).await;
    assert_ne!(refused.status, 0, "{refused}");
    // Who has no session needs the group.
    machine
        .sh("usermod -aG banger bob; systemctl restart user@4343")
        .await
        .ok();

    let start = mark(&machine).await;
    let alpha = create(&machine, ALICE, "alpha").await;
    said(&machine, &start, OF_ALICE).await;
    let address = alpha["address"].as_str().unwrap();
    let hosts = text(&machine, "getent hosts alpha.vm").await;
    assert!(hosts.contains(address), "{hosts}");
    let link = text(&machine, "resolvectl --no-pager status banger0").await;
    println!(
        "{link}\n{}",
        text(&machine, "resolvectl --no-pager query alpha.vm").await
    );
    let back = text(&machine, &format!("resolvectl --no-pager query {address}")).await;
    println!("{back}");
    assert!(back.contains("alpha.vm"), "{back}");
    for nobody in ["beta.vm", "www.alpha.vm"] {
        let asked = machine.sh(&format!("resolvectl --no-pager query {nobody}")).await;
        assert!(asked.status != 0 && asked.stderr.contains("not found"), "{asked}");
    }
    ssh(&machine).await;

    // bob's names are known when alice has none any more.
    create(&machine, BOB, "beta").await;
    assert!(!is_known(&machine, "beta.vm").await);
    // A resolver that has forgotten, and a helper that was killed.
    then(&machine, "systemctl restart systemd-resolved", OF_ALICE).await;
    assert!(is_known(&machine, "alpha.vm").await);
    then(&machine, "systemctl kill -s KILL banger-helper", OF_ALICE).await;
    assert!(is_known(&machine, "alpha.vm").await && !is_known(&machine, "beta.vm").await);
    // Another link of the same name.
    then(&machine, "systemctl restart banger-network", OF_ALICE).await;
    assert!(is_known(&machine, "alpha.vm").await);
    let before = mark(&machine).await;
    banger(&machine, ALICE, &["vm", "delete", "-f", "alpha"])
        .await
        .ok();
    said(&machine, &before, OF_BOB).await;
    assert!(is_known(&machine, "beta.vm").await && !is_known(&machine, "alpha.vm").await);
    // A daemon that dies gives the names back at once, and the next one serves them again.
    then(&machine, "pkill -KILL -u bob -x bangerd", OF_NOBODY).await;
    assert!(!is_known(&machine, "beta.vm").await);
    let before = mark(&machine).await;
    banger(&machine, BOB, &["vm", "list"]).await.ok();
    said(&machine, &before, OF_BOB).await;
    assert!(is_known(&machine, "beta.vm").await);
    let before = mark(&machine).await;
    banger(&machine, BOB, &["vm", "delete", "-f", "beta"]).await.ok();
    said(&machine, &before, OF_NOBODY).await;
    let link = text(&machine, "resolvectl --no-pager status banger0").await;
    assert!(!link.contains("10.119.16.1:"), "{link}");

    journal(&machine).await;
}

/// By OpenSSH's client, with what `banger ssh-config` writes.
async fn ssh(machine: &Machine) {
    let script = format!(
        "mkdir -p .ssh; {BANGER} ssh-config > .ssh/config; ssh alpha.vm 'echo $((6 * 7))' < /dev/null"
    );
    let out = machine.person_sh(ALICE, &script).await.ok();
    assert_eq!(out.text(), "42", "{out}");
}

/// The entries of a query, one JSON object a line.
async fn entries(machine: &Machine, query: &str) -> Vec<Value> {
    let script = format!("journalctl --sync; journalctl -q --no-pager -o json {query}");
    let text = text(machine, &script).await;
    text.lines()
        .map(|line| serde_json::from_str(line).expect("it is JSON"))
        .collect()
}

fn find<'a>(entries: &'a [Value], event: &str) -> &'a Value {
    let found = entries.iter().find(|entry| entry["BANGER_EVENT"] == event);
    found.unwrap_or_else(|| panic!("no {event} in {entries:#?}"))
}

async fn journal(machine: &Machine) {
    // The helper's view, by the name of a unit that does not exist, and by the VM's scope.
    let helper = entries(machine, "-u banger").await;
    for event in [
        "network-made",
        "slot-acquired",
        "vmm-launched",
        "names-routed",
        "names-withdrawn",
        "slot-released",
    ] {
        let entry = find(&helper, event);
        assert_eq!(entry["MESSAGE_ID"].as_str().map(str::len), Some(32), "{entry}");
    }
    let denied = find(&helper, "authorization-denied");
    let said = (&denied["BANGER_UID"], &denied["BANGER_ACTION"]);
    assert_eq!(said, (&"65534".into(), &"org.banger.helper.acquire-slot".into()));
    let scope = entries(machine, "-u banger-vm-0.scope").await;
    let launched = find(&scope, "vmm-launched");
    assert_eq!(
        (&launched["BANGER_VM"], &launched["_UID"]),
        (&"alpha".into(), &"0".into())
    );
    let console = scope.iter().find(|entry| entry["SYSLOG_IDENTIFIER"] == "alpha");
    let console = console.expect("the console's lines are of the scope");
    assert_eq!(console["_SYSTEMD_UNIT"], "banger-vm-0.scope");

    // The daemon's view, for its owner.
    let own = machine
        .person_sh(ALICE, "journalctl --user -q --no-pager -o json -u bangerd")
        .await
        .ok()
        .text();
    let own: Vec<Value> = own
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for event in ["vm-created", "vm-started", "vm-stopped", "vm-deleted"] {
        let entry = find(&own, event);
        assert_eq!(entry["BANGER_VM"], "alpha", "{entry}");
        assert_eq!(entry["BANGER_VM_ID"].as_str().map(str::len), Some(32), "{entry}");
        assert_eq!(entry["PRIORITY"], "6", "{entry}");
    }
    // And the catalogue explains it.
    let explained = text(
        machine,
        "journalctl -q --no-pager -x -u banger BANGER_EVENT=vmm-launched",
    )
    .await;
    println!("{explained}");
    assert!(
        explained.contains("Subject: The VMM of the VM alpha was launched"),
        "{explained}"
    );
}
