//! Under a real user manager: activation, scopes, the journal.

use std::time::Duration;

use banger_e2e::{Machine, finished, line_with};

const LIMIT: Duration = Duration::from_secs(240);
const SMALL: [&str; 6] = ["--image", "bare", "--memory", "256M", "--vcpu", "1"];

#[tokio::test]
async fn banger_is_a_citizen_of_the_users_systemd() {
    let Some(machine) = Machine::boot().await else {
        return;
    };
    machine.banger(&["daemon", "status"]).await.exits(3);

    // The first call starts the daemon by the bus.
    let mut run = vec!["vm", "run", "--quiet", "--name", "a"];
    run.extend(SMALL);
    run.extend(["--", "sh", "-c", "echo from-the-guest > /dev/console; exit 7"]);
    machine.banger(&run).await.exits(7);
    let status = machine.banger(&["daemon", "status", "--json"]).await.ok().json();
    let pid = status["pid"].to_string();
    let of_pid = machine
        .run(&["systemctl", "--user", "status", "--no-pager", &pid])
        .await;
    assert!(
        of_pid.text().contains("banger"),
        "the daemon is a service: {of_pid}"
    );

    // The VM is a scope with a limit, a description and a controller.
    let vm = machine.banger(&["vm", "show", "--json", "a"]).await.ok().json()[0].clone();
    let unit = vm["unit"].as_str().unwrap().to_owned();
    assert!(unit.ends_with(".scope"), "{vm}");
    let shown = machine
        .run(&["systemctl", "--user", "show", &unit])
        .await
        .ok()
        .text();
    let property = |name: &str| {
        let line = shown
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name} in {shown}")).to_owned()
    };
    assert_eq!(property("ActiveState"), "active");
    let limit: u64 = property("MemoryMax").parse().unwrap();
    assert!(
        (256 << 20..2 << 30).contains(&limit),
        "{limit} for a guest of 256 MiB"
    );
    assert!(
        property("Description").contains('a') && !property("Controller").is_empty(),
        "{shown}"
    );
    assert!(property("ControlGroup").contains(&unit), "{shown}");
    let vmm = vm["pid"].to_string();
    let pids = machine
        .run(&[
            "cat",
            &format!("/sys/fs/cgroup{}/cgroup.procs", property("ControlGroup")),
        ])
        .await
        .ok();
    assert!(pids.text().lines().any(|line| line == vmm), "{pids}");

    // Its console is in the journal under that unit, and `vm logs` shows it.
    let mut follow = machine.user("journalctl");
    follow.args(["--user", "-q", "-o", "cat", "-f", "-n", "all", "-u", &unit]);
    let mut follow = follow.spawn().unwrap();
    line_with(follow.stdout.as_mut().unwrap(), "from-the-guest", LIMIT).await;
    drop(follow);
    let logs = machine.banger(&["vm", "logs", "a"]).await.ok();
    assert!(logs.text().contains("from-the-guest"), "{logs}");

    // The daemon is killed: the scope lives, and the next call finds it.
    // The shell's own, which is always there.
    let kill = format!("kill -9 {pid}");
    finished(machine.root("sh").args(["-c", &kill]), LIMIT).await.ok();
    machine.banger(&["vm", "exec", "a", "--", "true"]).await.ok();
    let again = machine.banger(&["vm", "show", "--json", "a"]).await.ok().json()[0].clone();
    assert_eq!((&again["pid"], &again["state"]), (&vm["pid"], &vm["state"]));

    // systemd's own stop is a stop.
    machine.run(&["systemctl", "--user", "stop", &unit]).await.ok();
    let mut start = machine.banger(&["vm", "start", "a"]).await;
    if start.status != 0 {
        // The daemon may still have been told of the end when the first call came.
        start = machine.banger(&["vm", "start", "a"]).await;
    }
    start.ok();
    machine.banger(&["vm", "delete", "-f", "a"]).await.ok();
    let left = machine
        .run(&[
            "systemctl",
            "--user",
            "list-units",
            "--all",
            "-q",
            "--no-legend",
            "--plain",
            "banger-vm-*",
        ])
        .await;
    assert_eq!(left.text(), "", "no unit is left");
    let qemu = finished(machine.root("pgrep").arg("qemu"), LIMIT).await;
    assert_eq!(qemu.text(), "", "no process is left");

    // What `make uninstall` leaves.
    let doctor = machine.banger(&["doctor", "--json"]).await;
    assert!(
        doctor.json()["checks"]
            .as_array()
            .is_some_and(|checks| checks.len() > 3),
        "{doctor}"
    );
}
