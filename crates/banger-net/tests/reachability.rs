//! Who reaches whom, printed as a table: as made, after the host's rules are flushed, mended,
//! and beside the firewalls that others have. Rung `netns`.

mod lab;

use std::fmt::Write as _;
use std::net::UdpSocket;

use banger_model::slot::{GuestBridge, HOST_ADDRESS};
use banger_net::{Network, obstacles};

use lab::guest::{Frame, Guest};
use lab::probe::{Reach, tcp, udp};
use lab::{
    HOST_PRIVATE, HOST_PUBLIC, HOST_TABLE, INTERNET, LAN, METADATA, NEIGHBOUR, REST, counter_in, in_lab,
    inside, nft, run, say, serve, serve_datagrams, set_resolver, socket,
};

/// Where guests ask for names: the host's end of the link.
const NAMES: &str = "10.119.16.1";

/// A row of the matrix.
struct Row {
    name: &'static str,
    /// What it should be when all is well.
    well: Reach,
    /// Rows of one place are measured one after the other: arrivals are counted there.
    place: Place,
    probe: fn(&Guests) -> Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Internet,
    Lan,
    Metadata,
    Host,
    Guests,
}

const fn row(name: &'static str, well: Reach, place: Place, probe: fn(&Guests) -> Reach) -> Row {
    Row {
        name,
        well,
        place,
        probe,
    }
}

const ROWS: [Row; 26] = {
    use Place::{Guests as Other, Host, Internet, Lan, Metadata};
    use Reach::{Blocked, Open};
    [
        row("guest -> Internet", Open, Internet, |guests| {
            guests.tcp(INTERNET, 80, Some("internet"))
        }),
        row("guest -> names (UDP)", Open, Lan, |guests| {
            udp(&guests.one.name, socket(NAMES, 53))
        }),
        row("guest -> names (TCP)", Open, Lan, |guests| {
            guests.tcp(NAMES, 53, None)
        }),
        row("guest -> host:22, link", Blocked, Host, |guests| {
            guests.tcp(NAMES, 22, None)
        }),
        row("guest -> host:22, private address", Blocked, Host, |guests| {
            guests.tcp(HOST_PRIVATE, 22, None)
        }),
        row("guest -> host:22, public address", Blocked, Host, |guests| {
            guests.tcp(HOST_PUBLIC, 22, None)
        }),
        row("guest -> host:53, public address", Blocked, Host, |guests| {
            guests.tcp(HOST_PUBLIC, 53, None)
        }),
        row("guest -> gateway:22", Blocked, Other, |guests| {
            guests.tcp("10.119.0.1", 22, None)
        }),
        row("guest -> host's public network", Blocked, Internet, |guests| {
            guests.tcp(NEIGHBOUR, 80, Some("internet"))
        }),
        row("guest -> LAN", Blocked, Lan, |guests| {
            guests.tcp(LAN, 80, Some("lan"))
        }),
        row("guest -> LAN's name server", Blocked, Lan, |guests| {
            guests.tcp(LAN, 53, Some("lan"))
        }),
        row("guest -> metadata", Blocked, Metadata, |guests| {
            guests.tcp(METADATA, 80, Some("metadata"))
        }),
        row("guest -> other guest", Blocked, Other, |guests| {
            guests.tcp(&guests.other.address(), 2222, None)
        }),
        row("guest -> closed guest", Blocked, Other, |guests| {
            guests.tcp(&guests.closed.address(), 2222, None)
        }),
        row("guest -> gateway, IPv6 link-local", Blocked, Other, |guests| {
            tcp(&guests.one.name, link_local(&guests.one), None)
        }),
        row("closed guest -> Internet", Blocked, Internet, |guests| {
            tcp(&guests.closed.name, socket(INTERNET, 80), Some("internet"))
        }),
        row("closed guest -> names (UDP)", Blocked, Lan, |guests| {
            udp(&guests.closed.name, socket(NAMES, 53))
        }),
        row("closed guest -> host:22, link", Blocked, Host, |guests| {
            tcp(&guests.closed.name, socket(NAMES, 22), None)
        }),
        // A VMM that its guest has taken over speaks from there.
        row("a VMM itself -> Internet", Blocked, Internet, |_| {
            tcp("banger", socket(INTERNET, 80), Some("internet"))
        }),
        row("a VMM itself -> host:22", Blocked, Host, |_| {
            tcp("banger", socket(NAMES, 22), None)
        }),
        row("a VMM itself -> guest", Blocked, Other, |guests| {
            tcp("banger", socket(&guests.other.address(), 2222), None)
        }),
        row("Internet -> guest", Blocked, Internet, |guests| {
            through_host(
                "internet",
                HOST_PUBLIC,
                "10.119.0.0/19",
                &guests.one.address(),
                2222,
            )
        }),
        row("LAN -> guest", Blocked, Lan, |guests| {
            through_host("lan", HOST_PRIVATE, "10.119.0.0/19", &guests.one.address(), 2222)
        }),
        row("Internet -> LAN, through the host", Blocked, Lan, |_| {
            through_host("internet", HOST_PUBLIC, "192.168.50.0/24", LAN, 80)
        }),
        row("host -> guest", Open, Other, |guests| {
            tcp("", socket(&guests.one.address(), 2222), None)
        }),
        row("host -> closed guest", Open, Other, |guests| {
            tcp("", socket(&guests.closed.address(), 2222), None)
        }),
    ]
};

/// Connects from outside with the host as the router. The route is there for this probe alone:
/// with it, answers would find guests without translation.
fn through_host(place: &str, host: &str, network: &str, to: &str, port: u16) -> Reach {
    run(&format!("ip -n {place} route add {network} via {host}"));
    let reach = tcp(place, socket(to, port), (to == LAN).then_some("lan"));
    run(&format!("ip -n {place} route del {network}"));
    reach
}

struct Guests {
    one: Guest,
    other: Guest,
    closed: Guest,
}

impl Guests {
    fn start() -> Self {
        Self::start_with(true)
    }

    /// Guests that say nothing by themselves.
    fn start_quiet() -> Self {
        Self::start_with(false)
    }

    fn start_with(ipv6: bool) -> Self {
        let guests = Self {
            one: Guest::start(0, GuestBridge::Public, ipv6),
            other: Guest::start(1, GuestBridge::Public, ipv6),
            closed: Guest::start(511, GuestBridge::Closed, ipv6),
        };
        for guest in [&guests.one, &guests.other, &guests.closed] {
            serve(&guest.name, &format!("{}:2222", guest.address()));
        }
        guests
    }

    /// From the first guest.
    fn tcp(&self, address: &str, port: u16, place: Option<&str>) -> Reach {
        tcp(&self.one.name, socket(address, port), place)
    }
}

/// Measures all rows, those of different places side by side.
fn matrix(guests: &Guests) -> Vec<Reach> {
    use Place::{Guests as Other, Host, Internet, Lan, Metadata};
    let mut reached = [Reach::Blocked; ROWS.len()];
    let measure = |place| {
        let rows = ROWS.iter().enumerate().filter(move |(_, row)| row.place == place);
        rows.map(|(number, row)| (number, (row.probe)(guests)))
            .collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let places = [Internet, Lan, Metadata, Host, Other];
        let threads = places.map(|place| scope.spawn(move || measure(place)));
        for (number, reach) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            reached[number] = reach;
        }
    });
    reached.to_vec()
}

/// The address that the bridge would have if its namespace spoke IPv6.
fn link_local(guest: &Guest) -> std::net::SocketAddr {
    let index = run(&format!(
        "ip netns exec {} cat /sys/class/net/eth0/ifindex",
        guest.name
    ));
    let address = "fe80::62:6eff:fe67:ff00".parse().unwrap();
    std::net::SocketAddrV6::new(address, 22, 0, index.trim().parse().unwrap()).into()
}

/// The table so far, with one column for each state of the host.
#[derive(Default)]
struct Table {
    columns: Vec<(&'static str, Vec<Reach>)>,
    wrong: Vec<String>,
}

impl Table {
    /// Measures a column; `except` names the rows that differ from [`ROWS`].
    fn column(&mut self, title: &'static str, guests: &Guests, except: &[(&str, Reach)]) {
        let seen = matrix(guests);
        for (Row { name, well, .. }, seen) in ROWS.iter().zip(&seen) {
            let expected = except
                .iter()
                .find(|(row, _)| row == name)
                .map_or(well, |(_, reach)| reach);
            if expected != seen {
                self.wrong
                    .push(format!("{title}: {name}: {seen:?} and not {expected:?}"));
            }
        }
        self.columns.push((title, seen));
    }

    fn show(&self, counters: &str) {
        let mut text = format!("{:36}", "");
        for (title, _) in &self.columns {
            write!(text, "{title:>10}").unwrap();
        }
        for (number, row) in ROWS.iter().enumerate() {
            write!(text, "\n{:36}", row.name).unwrap();
            for (_, column) in &self.columns {
                write!(text, "{:>10}", column[number]).unwrap();
            }
        }
        say(&format!("{text}\n{counters}"));
    }
}

fn counters() -> String {
    let mut text = String::new();
    for (namespace, family) in [(Some("banger"), "bridge"), (Some("banger"), "inet"), (None, "ip")] {
        for name in names_of_counters(family) {
            let packets = counter_in(namespace, family, "banger", name);
            writeln!(text, "{family:>6} {name:22} {packets:>6} packets dropped").unwrap();
        }
    }
    text
}

fn names_of_counters(family: &str) -> &'static [&'static str] {
    match family {
        "bridge" => &["no-ipv4", "forged-arp", "forged-source", "bridged"],
        "inet" => &[
            "to-the-gateway",
            "from-inside",
            "forged-network",
            "private-destination",
            "too-many-connections",
            "no-way",
        ],
        _ => &["to-the-host", "from-elsewhere", "private-destination"],
    }
}

/// Docker's (28) when it runs beside: what it forwards is its own.
const DOCKER: &str = "
    table ip filter {
        chain DOCKER-USER { }
        chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; };
    }";
/// What docs/networking.md says to add then.
const DOCKER_OPEN: &str = r#"
    insert rule ip filter DOCKER-USER iifname "banger0" accept
    insert rule ip filter DOCKER-USER oifname "banger0" ct state established,related accept"#;
/// ufw's defaults, as iptables-nft shows them, with `ufw route allow in on banger0`.
const UFW: &str = r#"
    table ip filter {
        chain INPUT { type filter hook input priority 0; policy drop;
            iifname "lo" accept
            ct state established,related accept
            tcp dport 22 accept
        }
        chain FORWARD { type filter hook forward priority 0; policy drop;
            ct state established,related accept
            iifname "banger0" accept
        }
    }"#;
/// firewalld's, with the link in a zone of target ACCEPT and a policy that lets it out: the widest
/// that somebody may have done.
const FIREWALLD: &str = r#"
    table inet firewalld {
        chain filter_INPUT { type filter hook input priority 10; policy accept;
            ct state established,related accept
            iifname { "lo", "banger0" } accept
            tcp dport 22 accept
            reject with icmpx admin-prohibited
        }
        chain filter_FORWARD { type filter hook forward priority 10; policy accept;
            ct state established,related accept
            iifname "banger0" accept
            oifname "banger0" accept
            reject with icmpx admin-prohibited
        }
    }"#;

#[test]
fn nothing_that_is_closed_opens() {
    in_lab("nothing_that_is_closed_opens", || {
        let mut network = Network::open().unwrap();
        network.ensure().unwrap();
        let guests = Guests::start();
        let mut table = Table::default();
        table.column("made", &guests, &[]);

        run("nft flush ruleset");
        let unanswered = [
            ("guest -> Internet", Reach::OneWay),
            ("guest -> names (UDP)", Reach::Blocked),
            ("guest -> names (TCP)", Reach::Blocked),
        ];
        table.column("flushed", &guests, &unanswered);
        let mended = network.mend(HOST_TABLE).unwrap();
        assert_eq!(mended, [banger_net::Step::HostRules]);
        table.column("mended", &guests, &[]);

        assert_eq!(obstacles().unwrap(), []);
        nft(DOCKER);
        assert_eq!(obstacles().unwrap()[0].to_string(), "ip filter FORWARD");
        let closed = [
            ("guest -> Internet", Reach::Blocked),
            unanswered[1],
            unanswered[2],
        ];
        table.column("Docker", &guests, &closed);
        nft(DOCKER_OPEN);
        assert_eq!(obstacles().unwrap(), []);
        table.column("+ 2 rules", &guests, &[]);
        run("nft delete table ip filter");
        nft(UFW);
        table.column("ufw", &guests, &[]);
        run("nft delete table ip filter");
        nft(FIREWALLD);
        table.column("firewalld", &guests, &[]);
        run("nft delete table inet firewalld");
        set_br_netfilter();
        table.column("br_nf", &guests, &[]);
        let counted = counters();
        // Without any rules, to see that the probes would notice: what is left are the routes, the
        // isolated ports and the namespace itself.
        serve("banger", "0.0.0.0:22");
        run("nft flush ruleset");
        run("ip netns exec banger nft flush ruleset");
        let bare = [
            ("guest -> Internet", Reach::OneWay),
            ("guest -> host:22, link", Reach::Open),
            ("guest -> gateway:22", Reach::Open),
            // The one hole in the route is the name server's.
            ("guest -> LAN", Reach::OneWay),
            ("guest -> LAN's name server", Reach::OneWay),
            ("guest -> closed guest", Reach::Open),
            ("closed guest -> Internet", Reach::OneWay),
            // It is the host's own that answers.
            ("closed guest -> names (UDP)", Reach::Open),
            ("closed guest -> host:22, link", Reach::Open),
            ("a VMM itself -> Internet", Reach::OneWay),
            ("a VMM itself -> host:22", Reach::Open),
            ("a VMM itself -> guest", Reach::Open),
            ("LAN -> guest", Reach::Open),
        ];
        table.column("no rules", &guests, &bare);
        table.show(&counted);
        assert!(table.wrong.is_empty(), "{:#?}", table.wrong);
    });
}

/// Kubernetes and Docker turn it on; a namespace of its own has its own.
fn set_br_netfilter() {
    for name in ["iptables", "ip6tables", "arptables"] {
        let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
        inside("banger", || std::fs::write(&setting, "1").unwrap_or_default());
    }
}

#[test]
fn forged_frames_are_dropped_and_counted() {
    in_lab("forged_frames_are_dropped_and_counted", || {
        Network::open().unwrap().ensure().unwrap();
        let guests = Guests::start_quiet();
        let (me, other) = (guests.one.slot, guests.other.slot);
        let (mac, bridge) = (me.mac(), GuestBridge::Public);
        let gateway_mac = [0x02, 0x62, 0x6e, 0x67, 0xff, 0];
        let gateway = bridge.gateway();
        let frame = |from, kind, payload: &[u8]| Frame::ethernet(gateway_mac, from, kind, payload);
        let mine = me.address(bridge);
        let honest = Frame::udp(mine, HOST_ADDRESS);
        let tagged = [&[0, 5, 8, 0][..], &honest].concat();
        let advertisement = [&[0x60, 0, 0, 0, 0, 16, 58, 255][..], &[0; 32], &[134; 16]].concat();
        let cases: [(&str, Vec<u8>, &str, &str); 11] = [
            (
                "an honest packet",
                frame(mac, 0x0800, &honest),
                "inet",
                "private-destination",
            ),
            (
                "another guest's address",
                frame(mac, 0x0800, &Frame::udp(other.address(bridge), HOST_ADDRESS)),
                "bridge",
                "forged-source",
            ),
            (
                "the host's address",
                frame(mac, 0x0800, &Frame::udp(HOST_ADDRESS, mine)),
                "bridge",
                "forged-source",
            ),
            (
                "another guest's MAC",
                frame(other.mac(), 0x0800, &honest),
                "bridge",
                "forged-source",
            ),
            (
                "the gateway's MAC",
                frame(gateway_mac, 0x0800, &honest),
                "bridge",
                "forged-source",
            ),
            (
                "ARP: I am the gateway",
                frame(mac, 0x0806, &Frame::arp(mac, gateway, other.address(bridge))),
                "bridge",
                "forged-arp",
            ),
            (
                "ARP: I am the other guest",
                frame(mac, 0x0806, &Frame::arp(mac, other.address(bridge), gateway)),
                "bridge",
                "forged-arp",
            ),
            (
                "ARP with another's MAC in the frame",
                frame(other.mac(), 0x0806, &Frame::arp(mac, mine, gateway)),
                "bridge",
                "forged-arp",
            ),
            ("VLAN tag", frame(mac, 0x8100, &tagged), "bridge", "no-ipv4"),
            (
                "VLAN tag 0",
                frame(mac, 0x8100, &[&[0, 0, 8, 0][..], &honest].concat()),
                "bridge",
                "no-ipv4",
            ),
            (
                "IPv6 router advertisement",
                frame(mac, 0x86dd, &advertisement),
                "bridge",
                "no-ipv4",
            ),
        ];
        let mut wrong = Vec::new();
        for (name, frame, family, counter) in &cases {
            let before = counter_in(Some("banger"), family, "banger", counter);
            guests.one.send(frame);
            let after = counter_in(Some("banger"), family, "banger", counter);
            say(&format!("{name:38} {family} {counter}: +{}", after - before));
            if after != before + 1 {
                wrong.push(*name);
            }
        }
        // The kernel itself finds that this address is on the other bridge.
        let elsewhere = Frame::udp(me.address(GuestBridge::Closed), HOST_ADDRESS);
        let before = counters();
        guests.one.send(&frame(mac, 0x0800, &elsewhere));
        assert_eq!(counters(), before);
        // A frame straight to another guest gets nowhere either.
        guests
            .one
            .send(&Frame::ethernet(other.mac(), mac, 0x0800, &honest));
        let neighbours = run("ip -n banger neigh show dev public");
        assert!(
            neighbours.lines().all(|line| line.contains("PERMANENT")),
            "{neighbours}"
        );
        let known = run("ip netns exec banger bridge fdb show br public");
        let learnt =
            |line: &&str| line.contains("dev bt") && !line.contains("static") && !line.contains("permanent");
        assert_eq!(known.lines().find(learnt), None, "{known}");
        assert!(wrong.is_empty(), "not counted once: {wrong:?}");
    });
}

#[test]
fn a_new_address_of_the_host_is_closed_at_once() {
    in_lab("a_new_address_of_the_host_is_closed_at_once", || {
        let mut network = Network::open().unwrap();
        network.ensure().unwrap();
        let guests = Guests::start();
        run("ip -n internet addr add 192.0.2.77/32 dev lo");
        serve("internet", "192.0.2.77:80");
        let probe = || tcp(&guests.one.name, socket("192.0.2.77", 80), None);
        assert_eq!(probe(), Reach::Open);
        run("ip addr add 192.0.2.77/32 dev lo");
        serve("", "192.0.2.77:80");
        assert_eq!(network.mend(REST).unwrap(), [banger_net::Step::Closed]);
        run("nft flush ruleset");
        assert_eq!(probe(), Reach::Blocked);
        network.ensure().unwrap();
        run("ip addr del 192.0.2.77/32 dev lo");
        network.mend(REST).unwrap();
        assert_eq!(probe(), Reach::Open);
    });
}

#[test]
fn names_follow_the_hosts_resolver() {
    in_lab("names_follow_the_hosts_resolver", || {
        let mut network = Network::open().unwrap();
        network.ensure().unwrap();
        let guests = Guests::start();
        serve_datagrams("internet", &format!("{INTERNET}:53"));
        let ask = || udp(&guests.one.name, socket(NAMES, 53));
        assert_eq!(ask(), Reach::Open);
        set_resolver(INTERNET);
        assert!(!network.mend(REST).unwrap().is_empty());
        assert_eq!(ask(), Reach::Open);
        // One of the host itself is nobody's to ask, although it listens everywhere.
        for own in ["127.0.0.53", HOST_PUBLIC, HOST_PRIVATE] {
            set_resolver(own);
            network.mend(REST).unwrap();
            assert_eq!(ask(), Reach::Blocked, "{own}");
        }
        assert_eq!(
            tcp(&guests.one.name, socket(LAN, 53), Some("lan")),
            Reach::Blocked
        );
    });
}

#[test]
fn a_guest_with_too_many_connections_is_stopped_alone() {
    in_lab("a_guest_with_too_many_connections_is_stopped_alone", || {
        Network::open().unwrap().ensure().unwrap();
        let guests = Guests::start_quiet();
        let count = || counter_in(Some("banger"), "inet", "banger", "too-many-connections");
        let send = |ports: std::ops::Range<u16>| {
            inside(&guests.one.name, || {
                let socket = UdpSocket::bind("0.0.0.0:4000").unwrap();
                for port in ports {
                    // One that is refused may be told so by the next.
                    let _ = socket.send_to(b"x", (INTERNET, port));
                }
            });
        };
        send(10_000..10_100);
        assert_eq!(count(), 0);
        // Frames may be lost on the way when they are sent this fast.
        while count() == 0 {
            send(10_100..16_000);
        }
        let others = tcp(&guests.other.name, socket(INTERNET, 80), None);
        assert_eq!(others, Reach::Open);
    });
}
