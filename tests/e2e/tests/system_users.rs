//! System mode as people have it: real guests, polkit, logind, resolved and the journal.

#![allow(clippy::print_stdout, reason = "what a reader of the log wants to see")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use banger_e2e::{ALICE, BOB, Machine, NOBODY, Out, Person, finished};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(240);
const BANGER: &str = "/usr/local/bin/banger";
/// What a VM of the tests is made of.
const SMALL: [&str; 6] = ["--image", "bare", "--memory", "256M", "--vcpu", "1"];
const SCOPE: &str = "banger-vm-0.scope";
/// How long a daemon that was killed may take to know its VMs again. The aim is two seconds, on a
/// machine that does nothing else.
const AGAIN: Duration = Duration::from_secs(10);

async fn banger(machine: &Machine, person: Person, words: &[&str]) -> Out {
    machine.run_as(person, &[&[BANGER], words].concat()).await
}

async fn system(machine: &Machine, words: &[&str]) -> Out {
    let program = machine.build().join("banger");
    finished(machine.root(program).arg("system").args(words), LIMIT).await
}

async fn text(machine: &Machine, script: &str) -> String {
    machine.sh(script).await.ok().text()
}

/// A VM as its owner sees it.
async fn shown(machine: &Machine, name: &str) -> serde_json::Value {
    let shown = banger(machine, ALICE, &["vm", "show", "--json", name]).await.ok();
    shown.json()[0].clone()
}

async fn web_runs(machine: &Machine) {
    let run = [
        &["vm", "run", "--quiet", "--name", "web"],
        &SMALL[..],
        &["--", "true"],
    ]
    .concat();
    banger(machine, ALICE, &run).await.ok();
}

#[tokio::test]
async fn alice_has_vms_without_a_password() {
    let Some(machine) = Machine::boot_for_system_mode().await else {
        return;
    };
    let before = machine.state().await;
    system(&machine, &["install"]).await.ok();

    // Nobody is there whom polkit could ask.
    let run = [
        &["vm", "run", "--rm", "--quiet"],
        &SMALL[..],
        &["--", "uname", "-a"],
    ]
    .concat();
    let uname = banger(&machine, ALICE, &run).await.ok().text();
    println!("{uname}");
    assert!(uname.contains("Linux"), "{uname}");

    web_runs(&machine).await;
    let web = shown(&machine, "web").await;
    assert_eq!(web["unit"], SCOPE, "{web}");
    println!(
        "{}",
        text(&machine, "systemctl status --no-pager --lines=5 'banger-vm-*'").await
    );

    journal(&machine).await;
    names(&machine, &web).await;
    // A connection to the guest that goes through neither daemon.
    let mut connection = Connection::open(&machine).await;
    daemons_die(&machine, &web).await;
    connection.says("after all of that").await;
    drop(connection);
    stopped_by_systemd(&machine).await;

    // VMs are in the way of an uninstallation, unless it is told to stop them.
    let refused = system(&machine, &["uninstall"]).await.exits(1);
    assert!(
        refused.stderr.contains(SCOPE) && refused.stderr.contains("--force"),
        "{refused}"
    );
    assert_eq!(shown(&machine, "web").await["state"], "running");
    system(&machine, &["uninstall", "--force"]).await.ok();
    let difference = before.difference(&machine.state().await);
    assert_eq!(difference, "", "uninstall takes back everything");

    // User mode goes on with what she has.
    let build = machine.build().join("banger").display().to_string();
    let own = |words: &[&str]| [&[build.as_str()], words].concat().join(" ");
    let start = machine.person_sh(ALICE, &own(&["vm", "start", "web"])).await;
    start.ok();
    let exec = machine
        .person_sh(ALICE, &own(&["vm", "exec", "web", "--", "hostname"]))
        .await;
    assert_eq!(exec.ok().text(), "web");
    machine
        .person_sh(ALICE, &own(&["vm", "delete", "-f", "web"]))
        .await
        .ok();
}

/// What the journal has of it, for whom.
async fn journal(machine: &Machine) {
    banger(
        machine,
        ALICE,
        &[
            "vm",
            "exec",
            "web",
            "--",
            "sh",
            "-c",
            "echo from-the-guest > /dev/console",
        ],
    )
    .await
    .ok();
    let logs = banger(machine, ALICE, &["vm", "logs", "web"]).await.ok().text();
    let unit = text(
        machine,
        "journalctl --sync; journalctl -q --no-pager -u 'banger-vm-*'",
    )
    .await;
    let helper = text(machine, "journalctl -q --no-pager -u banger").await;
    println!(
        "banger vm logs web:\n{logs}\njournalctl -u 'banger-vm-*':\n{unit}\njournalctl -u banger:\n{helper}"
    );
    assert!(logs.contains("from-the-guest"), "{logs}");
    assert!(unit.contains("from-the-guest") && unit.contains("web["), "{unit}");
    assert!(
        helper.contains("Launched VM web of user 4242 in slot 0"),
        "{helper}"
    );
    // Others see nothing of it.
    let others = machine
        .run_as(BOB, &["journalctl", "-q", "--no-pager", "-n", "50", "-u", SCOPE])
        .await;
    assert!(!others.text().contains("from-the-guest"), "{others}");
}

/// The host knows the VM by its name.
async fn names(machine: &Machine, web: &serde_json::Value) {
    if !machine.has_resolver().await {
        println!("skipped: no systemd-resolved here");
        return;
    }
    let found = machine
        .run_as(BOB, &["getent", "hosts", "web.vm"])
        .await
        .ok()
        .text();
    println!("getent hosts web.vm: {found}");
    let words: Vec<_> = found.split_whitespace().collect();
    assert_eq!(words, [web["address"].as_str().unwrap(), "web.vm"]);
    machine
        .run_as(ALICE, &["getent", "hosts", "nobody.vm"])
        .await
        .exits(2);
}

/// A standard ssh client, with `cat` at the other end.
struct Connection {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Connection {
    async fn open(machine: &Machine) -> Self {
        let script =
            format!("mkdir -p ~/.ssh && {BANGER} ssh-config > ~/.ssh/config && chmod 600 ~/.ssh/config");
        machine.person_sh(ALICE, &script).await.ok();
        let mut ssh = machine.person(ALICE, "ssh");
        ssh.args(["-o", "BatchMode=yes", "web.vm", "hostname; cat"]);
        let mut child = ssh
            .stdin(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut connection = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        };
        let hostname = connection.line().await;
        println!("ssh web.vm hostname: {hostname}");
        assert_eq!(hostname, "web");
        connection.says("before").await;
        connection
    }

    async fn says(&mut self, words: &str) {
        self.input
            .write_all(format!("{words}\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(self.line().await, words);
    }

    async fn line(&mut self) -> String {
        let line = timeout(LIMIT, self.output.next_line())
            .await
            .expect("it answers in time");
        line.unwrap().expect("the connection goes on")
    }
}

/// Each daemon is killed while the VM runs: the VM does not notice, and they know it again.
async fn daemons_die(machine: &Machine, web: &serde_json::Value) {
    let same = async || {
        let now = shown(machine, "web").await;
        assert_eq!(
            (&now["pid"], &now["state"]),
            (&web["pid"], &web["state"]),
            "{now}"
        );
    };
    for (who, kill) in [
        ("bangerd", "pkill -KILL -u alice -x bangerd"),
        (
            "banger-helper",
            "systemctl kill --kill-whom=main -s KILL banger-helper.service",
        ),
        (
            "the network's service",
            "systemctl kill --kill-whom=main -s KILL banger-network.service",
        ),
        (
            "all of them",
            "pkill -KILL -u alice -x bangerd; pkill -KILL -x banger-helper",
        ),
    ] {
        // The helper may have left because nobody needed it.
        banger(machine, ALICE, &["vm", "logs", "web"]).await.ok();
        machine.sh(kill).await.ok();
        let start = Instant::now();
        same().await;
        let took = start.elapsed();
        println!(
            "{who} killed: the VM is known again after {} ms",
            took.as_millis()
        );
        assert!(took < AGAIN, "{who}: {took:?}");
        banger(machine, ALICE, &["vm", "exec", "web", "--", "true"])
            .await
            .ok();
        let logs = banger(machine, ALICE, &["vm", "logs", "web"]).await.ok();
        assert!(logs.text().contains("from-the-guest"), "{logs}");
    }
    // Newer programs in the place of older ones, and a restart of everything.
    for words in [&["install"], &["restart"]] {
        system(machine, words).await.ok();
        same().await;
        banger(machine, ALICE, &["vm", "exec", "web", "--", "true"])
            .await
            .ok();
    }
    let status = system(machine, &["status", "--json"]).await.ok().json();
    assert_eq!(status["vms"], 1, "{status}");
}

/// `systemctl stop` is a stop: the guest is asked, by its owner's daemon.
async fn stopped_by_systemd(machine: &Machine) {
    stop_scope(machine).await;
    // The daemon that has launched it is asked; one that found it again was not there.
    banger(machine, ALICE, &["vm", "start", "web"]).await.ok();
    stop_scope(machine).await;
    banger(machine, ALICE, &["vm", "start", "web"]).await.ok();
    let log = text(machine, "journalctl -q --no-pager -o cat -u banger-vm-0.scope").await;
    assert!(log.contains("reboot: Power down"), "the guest was asked: {log}");
}

async fn stop_scope(machine: &Machine) {
    let start = Instant::now();
    machine.sh(&format!("systemctl stop {SCOPE}")).await.ok();
    println!("systemctl stop {SCOPE}: {} ms", start.elapsed().as_millis());
    // The next daemon looks what became of the VM before it answers.
    machine.sh("pkill -KILL -u alice -x bangerd").await.ok();
}

#[tokio::test]
async fn bob_and_nobody_get_nothing_of_alices() {
    let Some(machine) = Machine::boot_for_system_mode().await else {
        return;
    };
    system(&machine, &["install"]).await.ok();
    web_runs(&machine).await;
    let handle = handle(&machine).await;

    // bob is logged in nowhere, nobody is nobody: not one method answers.
    println!("{:<14} {:<8} answer", "method", "caller");
    for person in [BOB, NOBODY] {
        for (method, arguments) in calls(&handle) {
            let answer = call(&machine, person, method, &arguments).await;
            println!("{method:<14} {:<8} {answer}", person.name);
            assert!(denied(&answer), "{method}: {answer}");
        }
    }
    // As a member of the group he has VMs of his own. Of alice's he learns nothing, also with her
    // handle in his hands, and of what touches others he gets nothing.
    machine.sh("usermod -aG banger bob").await.ok();
    for (method, arguments) in calls(&handle) {
        let answer = call(&machine, BOB, method, &arguments).await;
        println!("{method:<14} {:<8} {answer}", "bob+group");
        match method {
            "AcquireSlot" | "Status" | "RouteNames" => {}
            // What he has just got, and nothing else.
            "List" => assert!(
                answer.starts_with("a((tt)qyb) 1 ") && !answer.contains(&handle[0]),
                "{answer}"
            ),
            "Repair" | "ListAll" | "Evict" => {
                assert!(denied(&answer), "{method}: {answer}");
            }
            _ => assert_eq!(answer, "Call failed: No such slot", "{method}"),
        }
    }
    let run = [
        &["vm", "run", "--rm", "--quiet"],
        &SMALL[..],
        &["--", "hostname", "-i"],
    ]
    .concat();
    banger(&machine, BOB, &run).await.ok();
    let show = banger(&machine, BOB, &["vm", "show", "web"]).await.exits(1);
    assert!(show.stderr.contains("No such VM"), "{show}");
    assert_eq!(
        banger(&machine, BOB, &["vm", "list", "-aq"]).await.ok().text(),
        ""
    );
    let web = shown(&machine, "web").await;
    assert_eq!(web["state"], "running", "{web}");
    banger(&machine, ALICE, &["vm", "exec", "web", "--", "true"])
        .await
        .ok();
}

/// The two halves of the handle of slot 0, as only root can read it.
async fn handle(machine: &Machine) -> [String; 2] {
    let entry = text(machine, "cat /var/lib/banger-helper/slots/0.json").await;
    let json: serde_json::Value = serde_json::from_str(&entry).unwrap();
    let handle = json["handle"].as_str().unwrap_or_else(|| panic!("{json}"));
    let half = |digits: &str| u64::from_str_radix(digits, 16).unwrap().to_string();
    [half(&handle[..16]), half(&handle[16..])]
}

/// The methods, with arguments as busctl takes them, aimed at the slot with this handle. Not
/// `OpenLog`: busctl sends no descriptors. The helper's own tests call everything.
fn calls([high, low]: &[String; 2]) -> Vec<(&'static str, Vec<&str>)> {
    vec![
        ("AcquireSlot", vec!["y", "0"]),
        ("ReleaseSlot", vec!["(tt)", high, low]),
        ("Launch", vec!["(tt)a{sv}a{yh}", high, low, "0", "0"]),
        ("Stop", vec!["(tt)", high, low]),
        ("Kill", vec!["(tt)", high, low]),
        ("List", vec![]),
        ("RouteNames", vec!["q", "5353"]),
        ("Status", vec![]),
        ("Repair", vec![]),
        ("ListAll", vec![]),
        ("Evict", vec!["q", "0"]),
    ]
}

fn denied(answer: &str) -> bool {
    answer.contains("Access denied") || answer.contains("needs a password")
}

async fn call(machine: &Machine, person: Person, method: &str, arguments: &[&str]) -> String {
    let service = [
        "org.banger.Helper",
        "/org/banger/Helper",
        "org.banger.Helper",
        method,
    ];
    let busctl = [
        "busctl",
        "--system",
        "--allow-interactive-authorization=no",
        "call",
    ];
    let out = machine
        .run_as(person, &[&busctl[..], &service, arguments].concat())
        .await;
    let words = if out.status == 0 { out.text() } else { out.stderr };
    words
        .trim()
        .trim_start_matches("Call failed: Call failed")
        .to_owned()
}
