//! Every method of the introspection XML as every wrong caller: refused, and nothing happened. A
//! method without a row in [`call`] fails.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use banger_bus::helper::{FileRole, HELPER_PATH, HELPER_SERVICE, LaunchOptions, LogReadOptions, WireHandle};
use banger_model::slot::SLOTS;
use zbus::Connection;
use zbus::fdo::IntrospectableProxy;
use zbus::message::Message;
use zbus::wire::Fd;

use crate::support::{ALICE, Answer, BOB, NOBODY, Rig, can_run, error_name, root};

const INTERFACE: &str = "org.banger.Helper";
const DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
const NO_SUCH_SLOT: &str = "org.banger.Error.NoSuchSlot";

/// What the one row of each method is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arguments {
    pub(crate) handle: WireHandle,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) name: &'static str,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            handle: WireHandle { high: 1, low: 2 },
            vcpus: 1,
            memory_mib: 256,
            name: "vm",
        }
    }
}

/// Calls a method with one integer, for those that have one, and the rest. Never interactive.
pub(crate) async fn call(
    connection: &Connection,
    method: &str,
    number: u16,
    with: Arguments,
) -> zbus::Result<Message> {
    let Arguments { handle, .. } = with;
    match method {
        "AcquireSlot" => {
            let network = u8::try_from(number).unwrap_or(u8::MAX);
            send(connection, method, &(network,)).await
        }
        "ReleaseSlot" | "Stop" | "Kill" => send(connection, method, &(handle,)).await,
        "Launch" => {
            let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
            let files: HashMap<u8, Fd<'_>> = FileRole::ALL
                .iter()
                .map(|role| (role.number(), Fd::from(&null)))
                .collect();
            let options = LaunchOptions {
                engine: Some(u8::try_from(number).unwrap_or(u8::MAX)),
                emulated: Some(true),
                vcpus: Some(with.vcpus),
                memory_mib: Some(with.memory_mib),
                id: Some((3, 4)),
                name: Some(with.name.to_owned()),
            };
            send(connection, method, &(handle, options, files)).await
        }
        "OpenLog" => {
            let (_reader, writer) = std::io::pipe().unwrap();
            let writer = OwnedFd::from(writer);
            let options = LogReadOptions::default();
            send(connection, method, &(handle, options, Fd::from(&writer))).await
        }
        "RouteNames" | "Evict" => send(connection, method, &(number,)).await,
        "List" | "Status" | "Repair" | "ListAll" => send(connection, method, &()).await,
        other => panic!("{other} is new: give it a row here"),
    }
}

async fn send<B>(connection: &Connection, method: &str, body: &B) -> zbus::Result<Message>
where
    B: serde::Serialize + zbus::Type,
{
    let asking = connection.call_method(Some(HELPER_SERVICE), HELPER_PATH, Some(INTERFACE), method, body);
    crate::support::within(asking).await
}

/// The methods, and whether they take a handle.
fn methods() -> Vec<(String, bool)> {
    let xml = std::fs::read_to_string(root().join("dbus/org.banger.Helper.xml")).unwrap();
    let methods: Vec<_> = xml
        .split("<method name=\"")
        .skip(1)
        .map(|rest| {
            let name = rest.split('"').next().unwrap().to_owned();
            let body = rest.split("</method>").next().unwrap();
            (
                name,
                body.contains("name=\"handle\" type=\"(tt)\" direction=\"in\""),
            )
        })
        .collect();
    assert!(methods.len() >= 12 && methods.iter().filter(|(_, handle)| *handle).count() >= 5);
    methods
}

#[tokio::test]
async fn whoever_is_denied_changes_nothing() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let grant = rig.proxy(ALICE).await.acquire_slot(0).await.unwrap();
    let before = rig.effects();
    rig.polkit.answers(Answer::No);
    let arguments = Arguments {
        handle: grant.handle,
        ..Arguments::default()
    };
    for caller in [ALICE, BOB, NOBODY] {
        let connection = rig.bus.connect(caller).await;
        for (method, _) in methods() {
            for number in [0, 1, SLOTS, u16::MAX] {
                let refused = call(&connection, &method, number, arguments).await;
                assert_eq!(error_name(refused), DENIED, "{method} of {caller}");
            }
        }
    }
    assert_eq!(rig.effects(), before);
}

#[tokio::test]
async fn a_handle_that_is_not_the_callers_does_not_exist() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let alice = rig.proxy(ALICE).await;
    let gone = alice.acquire_slot(0).await.unwrap().handle;
    alice.release_slot(gone).await.unwrap();
    let hers = alice.acquire_slot(0).await.unwrap().handle;
    let before = rig.effects();
    let guesses = [
        hers,
        gone,
        WireHandle { high: 0, low: 0 },
        WireHandle {
            high: u64::MAX,
            low: u64::MAX,
        },
        WireHandle {
            high: hers.high,
            low: hers.low ^ 1,
        },
        WireHandle {
            high: hers.low,
            low: hers.high,
        },
    ];
    // polkit says yes to everything, and root is no owner either.
    for caller in [BOB, NOBODY, 0] {
        let connection = rig.bus.connect(caller).await;
        for (method, _) in methods().into_iter().filter(|(_, handle)| *handle) {
            for handle in guesses {
                let arguments = Arguments {
                    handle,
                    ..Arguments::default()
                };
                let refused = call(&connection, &method, 0, arguments).await;
                assert_eq!(error_name(refused), NO_SUCH_SLOT, "{method} of {caller}");
            }
        }
    }
    // One that was given back is nobody's, not even his who had it.
    let connection = rig.bus.connect(ALICE).await;
    for (method, _) in methods().into_iter().filter(|(_, handle)| *handle) {
        let arguments = Arguments {
            handle: gone,
            ..Arguments::default()
        };
        let refused = call(&connection, &method, 0, arguments).await;
        assert_eq!(error_name(refused), NO_SUCH_SLOT, "{method}");
    }
    assert_eq!(rig.effects(), before);
    assert_eq!(rig.proxy(BOB).await.list().await.unwrap(), []);
}

#[tokio::test]
async fn integers_beyond_their_bounds_are_refused() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let connection = rig.bus.connect(ALICE).await;
    let grant = rig.proxy(ALICE).await.acquire_slot(0).await.unwrap();
    let before = rig.effects();
    let invalid = "org.banger.Error.InvalidArgument";
    for network in [2, 3, u16::from(u8::MAX)] {
        let refused = call(&connection, "AcquireSlot", network, Arguments::default()).await;
        assert_eq!(error_name(refused), invalid, "{network}");
    }
    for slot in [1, SLOTS - 1, SLOTS, u16::MAX] {
        let refused = error_name(call(&connection, "Evict", slot, Arguments::default()).await);
        assert!(
            [NO_SUCH_SLOT, invalid].contains(&refused.as_str()),
            "{slot}: {refused}"
        );
    }
    let own = Arguments {
        handle: grant.handle,
        ..Arguments::default()
    };
    let mut launches = vec![(2, own), (u16::from(u8::MAX), own)];
    for vcpus in [0, 1025, u32::MAX] {
        launches.push((0, Arguments { vcpus, ..own }));
    }
    for memory_mib in [0, 1 << 40, u64::MAX] {
        launches.push((0, Arguments { memory_mib, ..own }));
    }
    for (engine, arguments) in launches {
        let refused = call(&connection, "Launch", engine, arguments).await;
        assert_ne!(error_name(refused), "", "{engine} {arguments:?}");
    }
    assert_eq!(rig.effects(), before);
}

/// The introspection XML in `dbus/` is what the helper serves. `BANGER_UPDATE_SNAPSHOTS=1`
/// writes it anew.
#[tokio::test]
async fn the_xml_is_what_is_served() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let connection = rig.bus.connect(ALICE).await;
    let proxy = IntrospectableProxy::builder(&connection)
        .destination(HELPER_SERVICE)
        .path(HELPER_PATH)
        .build()
        .await
        .unwrap();
    let xml = proxy.introspect().await.unwrap();
    let begin = xml.find(&format!("<interface name=\"{INTERFACE}\">")).unwrap();
    let end = begin + xml[begin..].find("</interface>").unwrap();
    let body = xml[begin..end].trim_end();
    let prologue = concat!(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n",
        " \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n",
    );
    let served = format!("{prologue}<node>\n  {body}\n  </interface>\n</node>\n");
    let file = root().join("dbus/org.banger.Helper.xml");
    if std::env::var_os("BANGER_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, &served).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == served, "run this test with BANGER_UPDATE_SNAPSHOTS=1");
}

#[tokio::test]
async fn what_the_policy_does_not_list_does_not_reach_the_helper() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let connection = rig.bus.connect(NOBODY).await;
    for (interface, member) in [
        ("org.banger.Helper", "Unlisted"),
        ("org.freedesktop.DBus.Properties", "Set"),
        ("org.freedesktop.DBus.ObjectManager", "GetManagedObjects"),
        ("org.example.Other", "List"),
    ] {
        let asking = connection.call_method(Some(HELPER_SERVICE), HELPER_PATH, Some(interface), member, &());
        let error = asking.await.unwrap_err().to_string();
        assert!(
            error.contains("AccessDenied") || error.contains("Rejected"),
            "{member}: {error}"
        );
    }
    // Without an interface the bus cannot tell, and does not let it through.
    let asking = connection.call_method(Some(HELPER_SERVICE), HELPER_PATH, None::<&str>, "List", &());
    assert!(asking.await.is_err());
    assert_eq!(rig.polkit.take_checks(), []);
    let taken = connection.request_name(HELPER_SERVICE).await;
    assert!(taken.is_err(), "root alone has the name");
    assert_eq!(
        rig.proxy(NOBODY).await.version().await.unwrap(),
        env!("CARGO_PKG_VERSION")
    );
}
