//! Against a bus of the test's own and a resolved that only remembers what it is told.

#![allow(clippy::print_stdout, reason = "a test says why it is skipped")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use zbus::connection::Builder;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const ALICE: u32 = 4001;
const BOB: u32 = 4002;

struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start() -> Option<Self> {
        let mut command = Command::new("dbus-daemon");
        command.args(["--session", "--nofork", "--nopidfile", "--print-address"]);
        let Ok(mut daemon) = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
            let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|rung| rung == "bus"), "no dbus-daemon");
            println!("skipped: no dbus-daemon");
            return None;
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let address = address.trim().to_owned();
        Some(Self { daemon, address })
    }

    async fn connect(&self) -> Connection {
        Builder::address(&*self.address).build().await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What resolved was told, in the words of these tests.
#[derive(Debug, PartialEq)]
enum Said {
    Mode(&'static str, i32, String),
    Default(i32, bool),
    Domains(i32, Vec<(String, bool)>),
    Servers(i32, Vec<(i32, Vec<u8>, u16, String)>),
    Revert(i32),
}

struct FakeResolved(mpsc::UnboundedSender<Said>);

impl FakeResolved {
    fn say(&self, said: Said) {
        let _ = self.0.send(said);
    }
}

#[zbus::interface(name = "org.freedesktop.resolve1.Manager")]
impl FakeResolved {
    #[zbus(name = "SetLinkDNSEx")]
    fn servers(&self, link: i32, servers: Vec<(i32, Vec<u8>, u16, String)>) {
        self.say(Said::Servers(link, servers));
    }

    #[zbus(name = "SetLinkDomains")]
    fn domains(&self, link: i32, domains: Vec<(String, bool)>) {
        self.say(Said::Domains(link, domains));
    }

    #[zbus(name = "SetLinkDefaultRoute")]
    fn default_route(&self, link: i32, enable: bool) {
        self.say(Said::Default(link, enable));
    }

    #[zbus(name = "SetLinkLLMNR")]
    fn llmnr(&self, link: i32, mode: String) {
        self.say(Said::Mode("llmnr", link, mode));
    }

    #[zbus(name = "SetLinkMulticastDNS")]
    fn mdns(&self, link: i32, mode: String) {
        self.say(Said::Mode("mdns", link, mode));
    }

    #[zbus(name = "SetLinkDNSOverTLS")]
    fn tls(&self, link: i32, mode: String) {
        self.say(Said::Mode("tls", link, mode));
    }

    #[zbus(name = "SetLinkDNSSEC")]
    fn dnssec(&self, link: i32, mode: String) {
        self.say(Said::Mode("dnssec", link, mode));
    }

    #[zbus(name = "RevertLink")]
    fn revert(&self, link: i32) {
        self.say(Said::Revert(link));
    }
}

/// A bus, a resolved on it, and the link 7.
struct Rig {
    bus: Bus,
    resolved: Connection,
    said: mpsc::UnboundedReceiver<Said>,
    link: Arc<AtomicU32>,
    directory: TempDir,
}

impl Rig {
    async fn new() -> Option<Self> {
        let bus = Bus::start()?;
        let (resolved, said) = resolved(&bus).await;
        Some(Self {
            bus,
            resolved,
            said,
            link: Arc::new(AtomicU32::new(7)),
            directory: tempfile::tempdir().unwrap(),
        })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("names.json")
    }

    async fn routes(&self) -> NameRoutes {
        let link = self.link.clone();
        let link: LinkIndex = Arc::new(move || Ok(link.load(Ordering::SeqCst)));
        let bus = self.bus.connect().await;
        NameRoutes::open(&bus, link, self.file(), Activity::new())
            .await
            .unwrap()
    }

    async fn next(&mut self) -> Said {
        tokio::time::timeout(LIMIT, self.said.recv())
            .await
            .expect("resolved is told")
            .unwrap()
    }

    /// The port of the next route, whatever comes with it.
    async fn next_port(&mut self) -> u16 {
        loop {
            match self.next().await {
                Said::Servers(_, servers) => return servers[0].2,
                Said::Revert(_) => return 0,
                _ => {}
            }
        }
    }
}

async fn resolved(bus: &Bus) -> (Connection, mpsc::UnboundedReceiver<Said>) {
    let (sender, said) = mpsc::unbounded_channel();
    let connection = Builder::address(&*bus.address)
        .serve_at("/org/freedesktop/resolve1", FakeResolved(sender))
        .name("org.freedesktop.resolve1")
        .build()
        .await
        .unwrap();
    (connection, said)
}

/// Somebody who offers names.
struct Client {
    connection: Connection,
    name: OwnedUniqueName,
    departures: Departures,
}

impl Client {
    async fn new(bus: &Bus) -> Self {
        let connection = bus.connect().await;
        let name = connection.unique_name().unwrap().clone();
        // As the helper listens: on a connection that stays.
        let departures = Departures::listen(&bus.connect().await).await.unwrap();
        Self {
            connection,
            name,
            departures,
        }
    }

    async fn claim(&self, routes: &NameRoutes, uid: u32, port: u16) -> HelperResult<()> {
        let departure = self.departures.of(&self.name);
        routes.claim(uid, &self.name, port, departure).await
    }
}

#[tokio::test]
async fn resolved_learns_all_that_it_needs_to_ask_us_and_only_us() {
    let Some(mut rig) = Rig::new().await else { return };
    let routes = rig.routes().await;
    let alice = Client::new(&rig.bus).await;
    alice.claim(&routes, ALICE, 5300).await.unwrap();
    for protocol in ["dnssec", "tls", "llmnr", "mdns"] {
        assert_eq!(rig.next().await, Said::Mode(protocol, 7, "no".to_owned()));
    }
    assert_eq!(rig.next().await, Said::Default(7, false));
    let Said::Domains(7, domains) = rig.next().await else {
        panic!()
    };
    assert_eq!(domains[0], ("vm".to_owned(), true));
    assert!(domains.contains(&("8.119.10.in-addr.arpa".to_owned(), true)));
    assert!(domains.iter().all(|(_, only_routed)| *only_routed));
    let server = (2, vec![10, 119, 16, 1], 5300, String::new());
    assert_eq!(rig.next().await, Said::Servers(7, vec![server]));
    routes.withdraw(ALICE).await.unwrap();
    assert_eq!(rig.next().await, Said::Revert(7));
    assert!(!rig.file().exists());
    // A second time there is nothing to say.
    routes.withdraw(ALICE).await.unwrap();
    routes.look_again().await;
    assert!(rig.said.try_recv().is_err());
}

#[tokio::test]
async fn the_first_owner_is_asked_until_he_leaves() {
    let Some(mut rig) = Rig::new().await else { return };
    let routes = rig.routes().await;
    let (alice, bob) = (Client::new(&rig.bus).await, Client::new(&rig.bus).await);
    alice.claim(&routes, ALICE, 5300).await.unwrap();
    bob.claim(&routes, BOB, 5400).await.unwrap();
    assert_eq!(rig.next_port().await, 5300);
    // A new server of the same owner keeps his place.
    alice.claim(&routes, ALICE, 5301).await.unwrap();
    assert_eq!(rig.next_port().await, 5301);
    assert_eq!(routes.current().await, Some((ALICE, 5301)));
    alice.connection.close().await.unwrap();
    assert_eq!(rig.next_port().await, 5400);
    bob.connection.close().await.unwrap();
    assert_eq!(rig.next_port().await, 0);
    assert_eq!(routes.current().await, None);
}

#[tokio::test]
async fn the_helper_stays_while_somebody_offers_names() {
    let Some(rig) = Rig::new().await else { return };
    let routes = rig.routes().await;
    let activity = routes.0.activity.clone();
    let alice = Client::new(&rig.bus).await;
    assert!(activity.quiet_for(Duration::ZERO));
    alice.claim(&routes, ALICE, 5300).await.unwrap();
    assert!(!activity.quiet_for(Duration::ZERO));
    alice.connection.close().await.unwrap();
    let quiet = activity.quiet(Duration::ZERO);
    tokio::time::timeout(LIMIT, quiet).await.unwrap();
}

#[tokio::test]
async fn a_resolved_that_starts_anew_and_another_link_are_told() {
    let Some(mut rig) = Rig::new().await else { return };
    let routes = rig.routes().await;
    let alice = Client::new(&rig.bus).await;
    alice.claim(&routes, ALICE, 5300).await.unwrap();
    assert_eq!(rig.next_port().await, 5300);
    rig.resolved.clone().close().await.unwrap();
    (rig.resolved, rig.said) = resolved(&rig.bus).await;
    assert_eq!(rig.next_port().await, 5300);
    rig.link.store(8, Ordering::SeqCst);
    routes.look_again().await;
    assert_eq!(rig.next().await, Said::Mode("dnssec", 8, "no".to_owned()));
}

#[tokio::test]
async fn without_resolved_nobody_waits() {
    let Some(rig) = Rig::new().await else { return };
    rig.resolved.clone().close().await.unwrap();
    let routes = rig.routes().await;
    let alice = Client::new(&rig.bus).await;
    let refused = alice.claim(&routes, ALICE, 5300).await.unwrap_err();
    let HelperError::Refused(error) = refused else {
        panic!("{refused}")
    };
    assert_eq!(error.kind, ErrorKind::MissingTool);
    assert_eq!(routes.current().await, None);
    assert!(routes.0.activity.quiet_for(Duration::ZERO));
    assert!(!rig.file().exists());
}

#[tokio::test]
async fn the_next_helper_goes_on_with_those_who_are_still_there() {
    let Some(mut rig) = Rig::new().await else { return };
    // The bus vouches for the uid of this process.
    let uid = rustix::process::getuid().as_raw();
    let alice = Client::new(&rig.bus).await;
    {
        let killed = rig.routes().await;
        alice.claim(&killed, uid, 5300).await.unwrap();
        assert_eq!(rig.next_port().await, 5300);
        std::mem::forget(killed);
    }
    let routes = rig.routes().await;
    assert_eq!(rig.next_port().await, 5300);
    assert_eq!(routes.current().await, Some((uid, 5300)));

    // Somebody else's name now, or nobody's.
    let claims = [
        (uid + 1, alice.name.clone()),
        (uid, ":1.9999".try_into().unwrap()),
    ];
    let claims = claims.map(|(uid, name)| Claim {
        uid,
        name,
        port: 5300,
    });
    write(&rig.file(), &[&claims[0], &claims[1]]).unwrap();
    let routes = rig.routes().await;
    assert_eq!(rig.next_port().await, 0);
    assert_eq!((routes.current().await, rig.file().exists()), (None, false));

    // What cannot be read says that something was told.
    std::fs::write(rig.file(), "{").unwrap();
    rig.routes().await;
    assert_eq!(rig.next_port().await, 0);
}

#[tokio::test]
async fn there_is_room_for_so_many_owners() {
    let Some(rig) = Rig::new().await else { return };
    let routes = rig.routes().await;
    let alice = Client::new(&rig.bus).await;
    for uid in 0..u32::try_from(MAX_OWNERS).unwrap() {
        alice.claim(&routes, uid, 5300).await.unwrap();
    }
    let HelperError::Refused(error) = alice.claim(&routes, BOB, 5300).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(error.kind, ErrorKind::LimitExceeded);
    alice.claim(&routes, 3, 5301).await.unwrap();
}
