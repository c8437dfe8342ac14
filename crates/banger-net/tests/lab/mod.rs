//! A host, the Internet, a network of the host's, a metadata service and guests, as network
//! namespaces of a test of its own: neither the machine's network nor its `/run` is touched.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod guest;
pub(crate) mod probe;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use banger_net::Changed;

/// What the servers of the lab say.
pub(crate) const HERE: &[u8] = b"here\n";
pub(crate) const INTERNET: &str = "203.0.113.7";
/// The host's provider: in a public network of the host's.
pub(crate) const NEIGHBOUR: &str = "198.51.100.1";
pub(crate) const HOST_PUBLIC: &str = "198.51.100.2";
pub(crate) const HOST_PRIVATE: &str = "192.168.50.1";
pub(crate) const LAN: &str = "192.168.50.2";
pub(crate) const METADATA: &str = "169.254.169.254";

pub(crate) const HOST_TABLE: Changed = Changed {
    guest_tables: false,
    host_table: true,
    rest: false,
};
pub(crate) const REST: Changed = Changed {
    guest_tables: false,
    host_table: false,
    rest: true,
};

/// Set in the process that runs in the lab.
const INSIDE: &str = "BANGER_NET_LAB";
/// The programs without which there is no lab.
const PROGRAMS: [&str; 4] = ["unshare", "ip", "nft", "mount"];

/// Runs a test in a lab: `name` is the test's own. It says why when that cannot be, and fails where
/// `BANGER_TEST_REQUIRE` names the rung `netns`.
pub(crate) fn in_lab(name: &str, test: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        build();
        test();
        return;
    }
    if let Some(why) = missing() {
        let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|rung| rung == "netns"), "{why}");
        say(&format!("skipped: {why}"));
        return;
    }
    // The namespace of processes ends with its first, and everything in it with that.
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} in the lab: {status}");
}

/// For who runs the test.
#[allow(clippy::print_stderr, reason = "a table is for people")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun".to_owned());
    }
    let lacking = |program: &&str| {
        let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        !places.iter().any(|place| Path::new(place).join(program).exists())
    };
    let program = PROGRAMS.into_iter().find(lacking)?;
    Some(format!("needs {program}"))
}

fn build() {
    for place in ["/run", "/etc"] {
        run(&format!("mount -t tmpfs tmpfs {place}"));
    }
    set_resolver(LAN);
    run("ip link set lo up");
    // The address settles at once, so that nothing changes by itself while a test compares.
    fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
    for name in ["internet", "lan", "metadata"] {
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        count_syns(name);
    }
    for (link, place, host, there) in [
        ("wan0", "internet", "198.51.100.2/30", "198.51.100.1/30"),
        ("lan0", "lan", "192.168.50.1/24", "192.168.50.2/24"),
        ("meta0", "metadata", "169.254.0.1/16", "169.254.169.254/16"),
    ] {
        run(&format!(
            "ip link add {link} type veth peer name eth0 netns {place}"
        ));
        run(&format!("ip link set {link} up"));
        run(&format!("ip -n {place} link set eth0 up"));
        run(&format!("ip addr add {host} dev {link}"));
        run(&format!("ip -n {place} addr add {there} dev eth0"));
    }
    run("ip -n internet addr add 203.0.113.7/32 dev lo");
    run("ip route add default via 198.51.100.1");
    // The machine's setting is not the lab's.
    for name in ["ip_forward", "conf/all/rp_filter", "conf/default/rp_filter"] {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), "0").unwrap();
    }
    serve("internet", &format!("{INTERNET}:80"));
    serve("internet", &format!("{NEIGHBOUR}:80"));
    serve("lan", &format!("{LAN}:80"));
    serve("metadata", &format!("{METADATA}:80"));
    for port in [22, 53] {
        serve("", &format!("0.0.0.0:{port}"));
    }
    serve_datagrams("", "0.0.0.0:53");
    serve("lan", &format!("{LAN}:53"));
    serve_datagrams("lan", &format!("{LAN}:53"));
}

pub(crate) fn set_resolver(address: &str) {
    // As resolvers do: replaced, not written over.
    fs::write("/etc/resolv.conf.new", format!("nameserver {address}\n")).unwrap();
    fs::rename("/etc/resolv.conf.new", "/etc/resolv.conf").unwrap();
}

/// Runs a command line (words without blanks) and returns what it prints.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Feeds nft.
pub(crate) fn nft(rules: &str) {
    nft_in("", rules);
}

fn nft_in(namespace: &str, rules: &str) {
    let mut command = match namespace {
        "" => Command::new("nft"),
        name => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", name, "nft"]);
            command
        }
    };
    let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{rules}");
}

/// Counts what tries to connect, to tell a packet that is never answered from one that never came.
fn count_syns(namespace: &str) {
    nft_in(
        namespace,
        "table inet seen { counter syn { }; chain in {
             type filter hook input priority 0; tcp flags syn counter name syn;
         }; }",
    );
}

/// How many tried to connect to a place of the lab.
pub(crate) fn syns(namespace: &str) -> u64 {
    counter_in(Some(namespace), "inet", "seen", "syn")
}

/// Packets of a counter.
pub(crate) fn counter_in(namespace: Option<&str>, family: &str, table: &str, name: &str) -> u64 {
    let place = namespace.map_or(String::new(), |name| format!("ip netns exec {name} "));
    let listing = run(&format!("{place}nft -j list counter {family} {table} {name}"));
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    listing["nftables"][1]["counter"]["packets"].as_u64().unwrap()
}

/// Runs something in a namespace: the host's is the empty name.
pub(crate) fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    banger_sys::netns::apart("lab", || {
        if !namespace.is_empty() {
            banger_sys::netns::enter(File::open(format!("/run/netns/{namespace}"))?)?;
        }
        Ok(work())
    })
    .unwrap()
}

/// Answers whoever connects, until the lab ends.
pub(crate) fn serve(namespace: &str, address: &str) {
    let listener = inside(namespace, || TcpListener::bind(address).unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(HERE);
        }
    });
}

/// Answers every datagram.
pub(crate) fn serve_datagrams(namespace: &str, address: &str) {
    let socket = inside(namespace, || UdpSocket::bind(address).unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(HERE, from);
        }
    });
}

/// Everything of the host that has to be as before when the network is gone.
pub(crate) fn snapshot() -> Vec<(String, String)> {
    let mut all: Vec<_> = [
        "nft list ruleset",
        "ip -j link",
        "ip -j addr",
        "ip -j route show table all",
        "ip -j rule",
        "ip -6 -j rule",
        "ls -lR --time-style=+ /run",
    ]
    .iter()
    .map(|line| ((*line).to_owned(), run(line)))
    .collect();
    all.push((
        "mounts".to_owned(),
        fs::read_to_string("/proc/self/mounts").unwrap(),
    ));
    settings(Path::new("/proc/sys/net"), &mut all);
    all.sort();
    all
}

/// Says which parts of a snapshot differ.
pub(crate) fn differences(before: &[(String, String)], after: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in before {
        let now = after.iter().find(|(other, _)| other == name);
        if now.is_none_or(|(_, now)| now != text) {
            found.push(format!(
                "{name}\n  {text}\n  {}",
                now.map_or("(gone)", |(_, now)| now)
            ));
        }
    }
    for (name, _) in after {
        if !before.iter().any(|(other, _)| other == name) {
            found.push(format!("{name} (new)"));
        }
    }
    found
}

fn settings(directory: &Path, all: &mut Vec<(String, String)>) {
    /// What counts by itself.
    const MOVING: [&str; 1] = ["nf_conntrack_count"];
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if path.is_dir() {
            settings(&path, all);
        } else if !MOVING.contains(&name.as_str()) {
            let mut text = String::new();
            // Some can only be written.
            if File::open(&path)
                .and_then(|mut file| file.read_to_string(&mut text))
                .is_ok()
            {
                all.push((path.display().to_string(), text));
            }
        }
    }
}

pub(crate) fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}
