//! What listens in a guest, how it is reached from the host, and figures.

use std::process::Stdio;
use std::time::{Duration, Instant};

use banger_e2e::{Content, Out, Rig, line_with};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
/// busybox's web server goes to the background once it listens.
const WEB: &str = "mkdir -p /srv; echo from the guest > /srv/index.html
    httpd -p 8080 -h /srv; httpd -p 127.0.0.1:8081 -h /srv";

/// Brings a program that listens, by standard input, and waits until it does.
async fn listen(rig: &Rig, addresses: &[&str]) -> Child {
    let program = rig.static_program("listener");
    let bring = [
        "vm",
        "exec",
        "a",
        "--",
        "sh",
        "-c",
        "cat > /bin/listener; chmod 755 /bin/listener",
    ];
    rig.banger_fed(bring, &std::fs::read(program).unwrap()).await.ok();
    let mut command = rig.command([&["vm", "exec", "a", "--", "listener"], addresses].concat());
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .expect("banger can be started");
    let stdout = child.stdout.as_mut().expect("standard output is a pipe");
    line_with(stdout, "listening", LIMIT).await;
    child
}

async fn guest(rig: &Rig, script: &str) -> Out {
    rig.banger(["vm", "exec", "a", "--", "sh", "-euc", script]).await
}

async fn ports(rig: &Rig) -> Vec<Value> {
    let out = rig.banger(["vm", "ports", "--json", "a"]).await.ok();
    let rows = out.json()[0]["ports"].as_array().cloned();
    rows.unwrap_or_else(|| panic!("{out}"))
}

/// What a port of the loopback answers to a question of the web.
async fn get(port: u16) -> Option<String> {
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.contains("from the guest").then_some(answer)
    };
    timeout(LIMIT, asking).await.ok().flatten()
}

fn published(info: &Value) -> Vec<(u64, u64)> {
    let pairs = info["published_ports"].as_array().expect("it is a list");
    let pair = |pair: &Value| (pair[0].as_u64().unwrap_or(0), pair[1].as_u64().unwrap_or(0));
    pairs.iter().map(pair).collect()
}

/// Publishes one, and gives the host's port.
async fn add(rig: &Rig, ports: &str) -> u16 {
    let out = rig.banger(["vm", "port", "add", "--json", "a", ports]).await.ok();
    let port = out.json()[0]["host"].as_u64();
    port.and_then(|port| port.try_into().ok())
        .unwrap_or_else(|| panic!("{out}"))
}

#[tokio::test]
async fn what_listens_in_a_guest_is_listed_and_published() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    assert_eq!(
        ports(&rig).await,
        [Value::Null; 0],
        "the agent itself is not shown"
    );
    guest(&rig, WEB).await.ok();
    let addresses = ["tcp:0.0.0.0:9000", "tcp:[::]:9001", "udp:0.0.0.0:5353"];
    let _listener = listen(&rig, &addresses).await;

    let rows = ports(&rig).await;
    let of = |port: u64| {
        let row: Vec<_> = rows.iter().filter(|row| row["port"] == port).collect();
        assert_eq!(
            row.len(),
            1,
            "once, also where both families listen: {port} in {rows:?}"
        );
        row[0]
    };
    assert_eq!(
        (&of(8080)["scheme"], &of(8080)["process"]),
        (&json!("http"), &json!("httpd")),
        "{rows:?}"
    );
    assert_eq!(
        (&of(8081)["address"], &of(8081)["proto"]),
        (&json!("127.0.0.1"), &json!("tcp")),
        "{rows:?}"
    );
    assert_eq!(
        (&of(9000)["scheme"], &of(9000)["process"]),
        (&json!(""), &json!("listener")),
        "{rows:?}"
    );
    assert!(
        of(9000)["command"]
            .as_str()
            .is_some_and(|line| line.contains("tcp:0.0.0.0:9000")),
        "{rows:?}"
    );
    assert_eq!(of(9001)["proto"], "tcp", "{rows:?}");
    assert_eq!(of(5353)["proto"], "udp", "{rows:?}");
    assert_eq!(rows.len(), 5, "the agent itself is not shown: {rows:?}");
    let table = rig.banger(["vm", "ports", "a"]).await.ok().text();
    for word in ["PROTO", "ENDPOINT", "PROCESS", "COMMAND", "http://", "9000"] {
        assert!(table.contains(word), "no {word} in\n{table}");
    }

    // One that the kernel chooses, one that is asked for, one that somebody has.
    let first = add(&rig, "8080").await;
    assert!(get(first).await.is_some());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wanted = free.local_addr().unwrap().port();
    let pair = format!("{wanted}:8081");
    rig.banger(["vm", "port", "add", "a", &pair])
        .await
        .exits(1)
        .says(&[&wanted.to_string()]);
    drop(free);
    assert_eq!(add(&rig, &pair).await, wanted);
    assert!(
        get(wanted).await.is_some(),
        "one that listens on the guest's loopback alone"
    );
    let list = rig.banger(["vm", "port", "list", "a"]).await.ok().text();
    assert!(
        list.contains(&first.to_string()) && list.contains("8081"),
        "{list}"
    );
    let mut expected = vec![(u64::from(first), 8080), (u64::from(wanted), 8081)];
    expected.sort_unstable();
    let mut now = published(&rig.show("a").await);
    now.sort_unstable();
    assert_eq!(now, expected);

    // The daemon dies: the next one has them again. So has the VM after its next start.
    rig.kill(rig.daemon_pid().expect("a daemon runs")).await;
    assert!(get(first).await.is_none(), "nobody listens");
    rig.banger(["vm", "list"]).await.ok();
    assert!(get(first).await.is_some() && get(wanted).await.is_some());
    rig.banger(["vm", "stop", "a"]).await.ok();
    assert!(get(first).await.is_none(), "it does not run");
    rig.banger(["vm", "start", "a"]).await.ok();
    guest(&rig, WEB).await.ok();
    assert!(get(first).await.is_some() && get(wanted).await.is_some());

    // Many at once, and one that breaks off.
    let asked = futures_util::future::join_all((0..30).map(|_| get(first))).await;
    let answered = asked.iter().flatten().count();
    assert_eq!(answered, asked.len());
    drop(TcpStream::connect(("127.0.0.1", first)).await.unwrap());

    rig.banger(["vm", "port", "remove", "a", &first.to_string()])
        .await
        .ok();
    assert!(get(first).await.is_none());
    assert!(get(wanted).await.is_some());
    rig.banger(["vm", "port", "remove", "a", &first.to_string()])
        .await
        .exits(1)
        .says(&[&first.to_string()]);
    rig.banger(["vm", "port", "remove", "a", &wanted.to_string()])
        .await
        .ok();
    assert_eq!(published(&rig.show("a").await), []);
    rig.banger(["vm", "stop", "a"]).await.ok();
    rig.banger(["vm", "ports", "a"]).await.exits(1).says(&["a"]);
}

#[tokio::test]
async fn figures_are_those_of_the_vm() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    guest(
        &rig,
        "dd if=/dev/zero of=/root/file bs=1M count=20 2>/dev/null; sync",
    )
    .await
    .ok();
    let stats = rig.banger(["vm", "stats", "--json", "a"]).await.ok();
    let figures = stats.json()[0].clone();
    let number = |key: &str| {
        figures[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {stats}"))
    };
    // The memory that the guest has, by its own word: a part of its 256 MiB.
    assert!(
        (180 << 20..=256 << 20).contains(&number("guest_memory_bytes")),
        "{stats}"
    );
    assert!(
        number("guest_available_bytes") < number("guest_memory_bytes"),
        "{stats}"
    );
    // What was written is really used on the disk.
    assert!(
        (20 << 20..=120 << 20).contains(&number("disk_used_bytes")),
        "{stats}"
    );
    // Where there are no control groups, what QEMU takes cannot be told, and nothing is made up.
    assert!(
        figures["memory_bytes"]
            .as_u64()
            .is_none_or(|bytes| bytes > 20 << 20),
        "{stats}"
    );
    let table = rig.banger(["vm", "stats"]).await.ok().text();
    assert!(table.contains('a') && table.lines().count() == 2, "{table}");
    // Quick, on a connection that is there.
    let start = Instant::now();
    rig.banger(["vm", "stats", "a"]).await.ok();
    rig.banger(["vm", "ports", "a"]).await.ok();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // Again and again, until one has seen enough.
    let mut watch = rig.command(["vm", "stats", "--watch", "a"]);
    let mut child = watch.spawn().expect("banger can be started");
    let stdout = child.stdout.as_mut().expect("standard output is a pipe");
    line_with(&mut *stdout, "a", LIMIT).await;
    line_with(stdout, "a", LIMIT).await;
    child.kill().await.unwrap();
    rig.banger(["vm", "stop", "a"]).await.ok();
    rig.banger(["vm", "stats", "a"]).await.exits(1).says(&["a"]);
}
