//! Making, mending and taking back: twice, after a death at every step, beside what others do.
//! Rung `netns`.

mod lab;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use banger_model::slot::{GuestBridge, Slot};
use banger_net::tap::{self, TapState};
use banger_net::{NetError, Network, Step, Undone, Watch, Woken, undo};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Signal, getpid, kill_process};

use lab::guest::Guest;
use lab::probe::{Reach, tcp};
use lab::{INTERNET, REST, differences, in_lab, inside, nft, run, say, snapshot, socket};

/// Tells the child of a test after how many steps it dies.
const DIE_AFTER: &str = "BANGER_NET_DIE_AFTER";
/// Within which a watcher has to notice and mend.
const SOON: Duration = Duration::from_secs(1);

fn made() -> Network {
    let mut network = Network::open().unwrap();
    network.ensure().unwrap();
    network
}

#[test]
fn a_second_time_changes_nothing_and_undo_leaves_nothing() {
    in_lab("a_second_time_changes_nothing_and_undo_leaves_nothing", || {
        nft(
            "table inet other { chain in { type filter hook input priority 0; policy accept;
             }; set s { type ipv4_addr; elements = { 192.0.2.1 }; }; }",
        );
        let before = snapshot();
        let mut network = Network::open().unwrap();
        assert_eq!(network.ensure().unwrap(), Step::ALL);
        assert_eq!(network.ensure().unwrap(), []);
        drop(network);
        // As after a crash of the one that made it.
        let mut again = Network::open().unwrap();
        assert_eq!(again.ensure().unwrap(), []);
        drop(again);
        assert_eq!(undo().unwrap(), Undone::Everything);
        assert_eq!(differences(&before, &snapshot()), Vec::<String>::new());
        assert_eq!(undo().unwrap(), Undone::Everything);
        assert_eq!(differences(&before, &snapshot()), Vec::<String>::new());
    });
}

#[test]
fn a_death_after_any_step_is_gone_on_from_and_taken_back() {
    in_lab("a_death_after_any_step_is_gone_on_from_and_taken_back", || {
        let before = snapshot();
        for steps in 0..=Step::ALL.len() {
            die_after(steps);
            assert_eq!(undo().unwrap(), Undone::Everything);
            assert_eq!(
                differences(&before, &snapshot()),
                Vec::<String>::new(),
                "undone after {steps}"
            );
            die_after(steps);
            let mut network = Network::open().unwrap();
            assert_eq!(network.ensure().unwrap(), Step::ALL[steps..], "after {steps}");
            assert_eq!(network.ensure().unwrap(), []);
            drop(network);
            undo().unwrap();
            assert_eq!(
                differences(&before, &snapshot()),
                Vec::<String>::new(),
                "made after {steps}"
            );
        }
    });
}

fn die_after(steps: usize) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_one_that_dies"])
        .env(DIE_AFTER, steps.to_string())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "after {steps}");
}

#[test]
fn the_one_that_dies() {
    let Ok(steps) = std::env::var(DIE_AFTER) else {
        return;
    };
    let mut network = Network::open().unwrap();
    for step in Step::ALL.into_iter().take(steps.parse().unwrap()) {
        assert!(network.step(step).unwrap(), "{step:?}");
    }
    kill_process(getpid(), Signal::KILL).unwrap();
}

#[test]
fn what_somebody_deletes_is_noticed_and_made_again() {
    in_lab("what_somebody_deletes_is_noticed_and_made_again", || {
        let mut network = Network::open().unwrap();
        let mut watch = Watch::new(&network).unwrap();
        network.ensure().unwrap();
        let guest = Guest::start(0, GuestBridge::Public, false);
        let deeds: [(&str, &[Step]); 13] = [
            ("nft flush ruleset", &[Step::HostRules]),
            ("nft delete table ip banger", &[Step::HostRules]),
            ("nft flush chain ip banger input", &[Step::HostRules]),
            ("ip netns exec banger nft flush ruleset", &[Step::GuestRules]),
            (
                "ip netns exec banger nft delete table bridge banger",
                &[Step::GuestRules],
            ),
            (
                "ip netns exec banger nft delete element bridge banger guests { \"bt0\" . 02:62:6e:67:00:00 . 10.119.0.16 }",
                &[Step::GuestRules],
            ),
            ("ip -n banger link del public", &[Step::Bridges]),
            ("ip -n banger link set uplink down", &[Step::Link, Step::WayOut]),
            (
                "ip link del banger0",
                &[Step::Link, Step::WayOut, Step::HostRoute, Step::Forwarding],
            ),
            ("ip addr del 10.119.16.1/30 dev banger0", &[Step::Link]),
            ("ip route del 10.119.0.0/19", &[Step::HostRoute]),
            ("ip rule del priority 11901 iif wan0", &[Step::Forwarding]),
            (
                "ip netns exec banger sysctl -qw net.ipv4.conf.all.rp_filter=0",
                &[Step::Settings],
            ),
        ];
        // The wait ends the test when nothing is noticed.
        let timer = eventfd(0, EventfdFlags::empty()).unwrap();
        for (deed, expected) in deeds {
            run(deed);
            let began = Instant::now();
            let mut mended = Vec::new();
            let _limit = limit(&timer);
            while !expected.iter().all(|step| mended.contains(step)) {
                match watch.wait(timer.as_fd()).unwrap() {
                    Woken::Changed(changed) => mended.extend(network.mend(changed).unwrap()),
                    other => panic!("{deed}: {other:?}, only {mended:?} of {expected:?}"),
                }
            }
            let took = began.elapsed();
            say(&format!("{deed}: {} ms", took.as_millis()));
            assert!(took < SOON, "{deed}: {took:?}");
            assert_eq!(network.ensure().unwrap(), [], "{deed}");
            assert_eq!(
                tcp(&guest.name, socket(INTERNET, 80), None),
                Reach::Open,
                "{deed}"
            );
        }
    });
}

/// Makes a descriptor readable when this is not dropped in time.
fn limit(timer: &std::os::fd::OwnedFd) -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel::<()>();
    let timer = timer.try_clone().unwrap();
    thread::spawn(move || {
        if receiver.recv_timeout(5 * SOON) == Err(mpsc::RecvTimeoutError::Timeout) {
            rustix::io::write(&timer, &1_u64.to_ne_bytes()).unwrap();
        }
    });
    sender
}

#[test]
fn a_lost_name_of_the_namespace_is_noticed() {
    in_lab("a_lost_name_of_the_namespace_is_noticed", || {
        let network = made();
        let mut watch = Watch::new(&network).unwrap();
        let timer = eventfd(0, EventfdFlags::empty()).unwrap();
        let _limit = limit(&timer);
        run("ip netns del banger");
        while watch.wait(timer.as_fd()).unwrap() != Woken::Lost {}
        // What is left of the old one is replaced, as a new start does.
        drop(network);
        let mut network = Network::open().unwrap();
        network.ensure().unwrap();
        let guest = Guest::start(3, GuestBridge::Public, false);
        assert_eq!(tcp(&guest.name, socket(INTERNET, 80), None), Reach::Open);
    });
}

#[test]
fn forwarding_that_others_turn_on_becomes_theirs() {
    in_lab("forwarding_that_others_turn_on_becomes_theirs", || {
        let setting = |name: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
            fs::read_to_string(path).unwrap().trim().to_owned()
        };
        let mut network = made();
        assert_eq!(
            [setting("all"), setting("wan0"), setting("meta0")],
            ["0", "1", "0"]
        );
        assert!(run("ip rule").contains("11901:\tfrom all iif wan0 blackhole"));
        // As dockerd does when it starts.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        assert_eq!(network.mend(REST).unwrap(), [Step::Forwarding]);
        assert!(!run("ip rule").contains("1190"));
        assert_eq!(network.ensure().unwrap(), []);
        undo().unwrap();
        assert_eq!(
            [setting("all"), setting("wan0"), setting("meta0")],
            ["1", "1", "1"]
        );
    });
}

#[test]
fn guests_outlive_a_stop_and_are_connected_again() {
    in_lab("guests_outlive_a_stop_and_are_connected_again", || {
        let network = made();
        let guest = Guest::start(7, GuestBridge::Public, false);
        let internet = || tcp(&guest.name, socket(INTERNET, 80), Some("internet"));
        assert_eq!(internet(), Reach::Open);
        drop(network);
        let before = run("ip -j rule");
        assert_eq!(undo().unwrap(), Undone::AllButTheNamespace);
        assert_ne!(run("ip -j rule"), before);
        assert_eq!(internet(), Reach::Blocked);
        made();
        assert_eq!(internet(), Reach::Open);
    });
}

#[test]
fn taps_are_their_slots_alone() {
    in_lab("taps_are_their_slots_alone", || {
        let _network = made();
        inside("banger", || {
            let slot = Slot::new(5).unwrap();
            assert!(matches!(tap::open_queue(slot), Err(NetError::NoTap(_))));
            let state = |bridge, in_use| TapState {
                slot,
                bridge: Some(bridge),
                up: true,
                in_use,
            };
            for bridge in [GuestBridge::Public, GuestBridge::Public, GuestBridge::Closed] {
                tap::make(slot, bridge).unwrap();
                assert_eq!(tap::list().unwrap(), [state(bridge, false)]);
            }
            let described = run("ip -d -j link show bt5");
            for part in [
                "\"isolated\":true",
                "\"learning\":false",
                "\"flood\":false",
                "\"persist\":true",
                "\"vnet_hdr\":true",
            ] {
                assert!(described.contains(part), "{part} in {described}");
            }
            assert!(
                described.contains(&format!("\"user\":{}", slot.uid())) || described.contains("\"user\":\""),
                "{described}"
            );
            let queue = tap::open_queue(slot).unwrap();
            assert_eq!(tap::list().unwrap(), [state(GuestBridge::Closed, true)]);
            assert!(matches!(tap::open_queue(slot), Err(NetError::TapInUse(_))));
            // Mending one in use leaves its queue alone.
            tap::make(slot, GuestBridge::Closed).unwrap();
            drop(queue);
            tap::open_queue(slot).unwrap();
            tap::remove(slot).unwrap();
            tap::remove(slot).unwrap();
            assert_eq!(tap::list().unwrap(), []);
            assert!(!run("ip neigh").contains("10.119.8.21"));
            run("ip link add bt5 type bridge");
            assert!(matches!(
                tap::make(slot, GuestBridge::Public),
                Err(NetError::ForeignTap(_))
            ));
            run("ip link del bt5");
            run("ip link del closed");
            assert!(matches!(
                tap::make(slot, GuestBridge::Closed),
                Err(NetError::NoBridge(_))
            ));
            assert_eq!(tap::list().unwrap().len(), 0, "none is left without a bridge");
            figures();
        });
    });
}

fn figures() {
    let slots: Vec<_> = (100..200).map(|number| Slot::new(number).unwrap()).collect();
    let timed = |what: &str, work: &dyn Fn(Slot)| {
        let mut took: Vec<_> = slots
            .iter()
            .map(|slot| {
                let began = Instant::now();
                work(*slot);
                began.elapsed()
            })
            .collect();
        took.sort();
        say(&format!(
            "{what}: median {} us, 95 % {} us",
            took[50].as_micros(),
            took[94].as_micros()
        ));
    };
    timed("make a tap", &|slot| {
        tap::make(slot, GuestBridge::Public).unwrap();
    });
    timed("make it again", &|slot| {
        tap::make(slot, GuestBridge::Public).unwrap();
    });
    timed("open its queue", &|slot| drop(tap::open_queue(slot).unwrap()));
    timed("remove it", &|slot| tap::remove(slot).unwrap());
}

#[test]
fn checks_say_what_is_missing() {
    in_lab("checks_say_what_is_missing", || {
        let mut network = made();
        let host = run("ip -o link show banger0");
        let failing = || {
            let checks = inside("banger", banger_net::check);
            let failed = checks.into_iter().filter(|check| !check.ok);
            failed.map(|check| check.name).collect::<Vec<_>>()
        };
        assert_eq!(failing(), Vec::<String>::new());
        let index = inside("banger", banger_net::host_link_index).unwrap();
        assert!(host.starts_with(&format!("{index}: ")), "{index} in {host}");
        for (deed, check) in [
            (
                "ip netns exec banger nft delete table bridge banger",
                "guests' filter",
            ),
            ("ip -n banger link set closed down", "bridge closed"),
            ("ip -n banger link del public", "bridge public"),
            ("ip link set banger0 down", "link to the host"),
        ] {
            run(deed);
            assert_eq!(failing(), [check], "{deed}");
            network.ensure().unwrap();
            assert_eq!(failing(), Vec::<String>::new(), "{deed}");
        }
        assert!(matches!(
            inside("lan", banger_net::host_link_index),
            Err(NetError::NoLink(_))
        ));
    });
}
