use std::net::Ipv4Addr;

use banger_model::slot::{GuestBridge, HOST_ADDRESS, SLOTS, Slot, UPLINK, UPLINK_ADDRESS};
use serde_json::{Value, json};

use super::{
    PRIVATE, Table, accept, any_of, compare, count, differ, dropped, equal, field, from_link, meta, names,
    network, rejected, state, to_link,
};
use crate::facts::Resolver;
use crate::nft::{TABLE, Tables};

/// How many connections of one guest the host keeps track of at a time; its table is shared
/// by all and by the host itself (262,144 by default on a host with 4 GiB).
const CONNECTIONS_PER_GUEST: u32 = 4096;
/// Answers to pings of a gateway, per second.
const PINGS: u32 = 20;

/// The tables of the guests' namespace.
pub(crate) fn guests(resolver: Option<Resolver>) -> Tables {
    let mut objects = frames().objects;
    objects.extend(packets(resolver).objects);
    Tables {
        name: "bridge and inet banger",
        families: &["bridge", "inet"],
        objects,
    }
}

/// What a guest may send at all: IPv4 and ARP in its own name, untagged. Everything that a
/// bridge sees comes from a guest.
fn frames() -> Table {
    let mut table = Table::new("bridge");
    for counter in ["no-ipv4", "forged-arp", "forged-source", "bridged"] {
        table.counter(counter);
    }
    let kind = json!(["ifname", "ether_addr", "ipv4_addr"]);
    table.set("guests", &kind, &[], identities());
    table.hook("filter", "prerouting", -300, "drop");
    table.hook("filter", "forward", 0, "drop");

    let types = any_of(&["arp", "ip"]);
    table.rule(
        "prerouting",
        &[
            differ(&field("ether", "type"), &types),
            count("no-ipv4"),
            dropped(),
        ],
    );
    let is_guest = |hardware: Value, address: Value| {
        let identity = json!({"concat": [meta("iifname"), hardware, address]});
        equal(&identity, &json!("@guests"))
    };
    let arp = || equal(&field("ether", "type"), &json!("arp"));
    table.rule(
        "prerouting",
        &[
            arp(),
            equal(&field("arp", "htype"), &json!(1)),
            equal(&field("arp", "hlen"), &json!(6)),
            equal(&field("arp", "plen"), &json!(4)),
            is_guest(field("arp", "saddr ether"), field("arp", "saddr ip")),
            is_guest(field("ether", "saddr"), field("arp", "saddr ip")),
            accept(),
        ],
    );
    table.rule("prerouting", &[arp(), count("forged-arp"), dropped()]);
    table.rule(
        "prerouting",
        &[is_guest(field("ether", "saddr"), field("ip", "saddr")), accept()],
    );
    table.rule("prerouting", &[count("forged-source"), dropped()]);
    // Isolated ports do not get here; this holds without them.
    table.rule("forward", &[count("bridged"), dropped()]);
    table
}

/// Each slot's tap, hardware address and address, on either bridge.
fn identities() -> Vec<Value> {
    let mut identities = Vec::with_capacity(usize::from(SLOTS) * GuestBridge::ALL.len());
    for slot in Slot::all() {
        let mac = slot.mac().map(|byte| format!("{byte:02x}")).join(":");
        for bridge in GuestBridge::ALL {
            let address = slot.address(bridge).to_string();
            identities.push(json!({"concat": [slot.tap(), mac, address]}));
        }
    }
    identities
}

/// Who reaches whom.
fn packets(resolver: Option<Resolver>) -> Table {
    let mut table = Table::new("inet");
    let counters = [
        "to-the-gateway",
        "from-inside",
        "forged-network",
        "private-destination",
        "too-many-connections",
        "no-way",
    ];
    for counter in counters {
        table.counter(counter);
    }
    let private = PRIVATE.iter().copied().map(network).collect();
    table.set("private", &json!("ipv4_addr"), &["interval"], private);
    connections(&mut table);
    table.chain("from-public");
    table.hook("filter", "input", 0, "drop");
    table.hook("filter", "forward", 0, "drop");
    table.hook("filter", "output", 0, "drop");
    table.hook("nat", "prerouting", -100, "accept");
    input(&mut table);
    output(&mut table);
    forward(&mut table);
    from_public(&mut table, resolver);
    if let Some(Resolver { address, .. }) = resolver {
        let [protocol, port] = names();
        table.rule(
            "prerouting",
            &[
                from_link(GuestBridge::Public.name()),
                equal(&field("ip", "daddr"), &json!(HOST_ADDRESS.to_string())),
                protocol,
                port,
                json!({"dnat": {"family": "ip", "addr": address.to_string()}}),
            ],
        );
    }
    table
}

/// The set in which the kernel counts each guest's connections. nft adds the flag `dynamic` by
/// itself when it sees the rule; nft 1.0.6 does not know that word in JSON.
fn connections(table: &mut Table) {
    table.objects.push(json!({"set": {
        "family": table.family, "table": TABLE, "name": "connections",
        "type": "ipv4_addr", "size": SLOTS,
    }}));
}

/// The namespace itself answers pings and nothing else; there is no program in it that listens.
fn input(table: &mut Table) {
    table.rule("input", &[state(&["established", "related"]), accept()]);
    for bridge in GuestBridge::ALL {
        table.rule(
            "input",
            &[
                from_link(bridge.name()),
                equal(&field("ip", "saddr"), &network(bridge.network())),
                equal(&field("ip", "daddr"), &json!(bridge.gateway().to_string())),
                equal(&field("icmp", "type"), &json!("echo-request")),
                json!({"limit": {"rate": PINGS, "per": "second"}}),
                accept(),
            ],
        );
    }
    let own: Vec<_> = GuestBridge::ALL
        .into_iter()
        .map(GuestBridge::gateway)
        .chain([UPLINK_ADDRESS])
        .map(|address: Ipv4Addr| address.to_string())
        .collect();
    table.rule(
        "input",
        &[
            from_link(UPLINK),
            equal(&field("ip", "saddr"), &json!(HOST_ADDRESS.to_string())),
            equal(&field("ip", "daddr"), &any_of(&own)),
            equal(&field("icmp", "type"), &json!("echo-request")),
            accept(),
        ],
    );
    table.rule("input", &[count("to-the-gateway"), dropped()]);
}

/// The namespace itself sends what the kernel answers with. Its processes are the helper, which
/// has no need of a socket, and VMMs: one that a guest has taken over gets no further than its
/// guest.
fn output(table: &mut Table) {
    table.rule("output", &[state(&["established", "related"]), accept()]);
    let errors = any_of(&["destination-unreachable", "time-exceeded", "parameter-problem"]);
    table.rule("output", &[equal(&field("icmp", "type"), &errors), accept()]);
    table.rule("output", &[count("from-inside"), dropped()]);
}

fn forward(table: &mut Table) {
    table.rule("forward", &[state(&["invalid"]), count("no-way"), dropped()]);
    table.rule("forward", &[state(&["established", "related"]), accept()]);
    // The host by its own end of the link, and nobody behind it.
    let bridges = GuestBridge::ALL.map(GuestBridge::name);
    table.rule(
        "forward",
        &[
            from_link(UPLINK),
            equal(&meta("oifname"), &any_of(&bridges)),
            equal(&field("ip", "saddr"), &json!(HOST_ADDRESS.to_string())),
            accept(),
        ],
    );
    table.rule(
        "forward",
        &[
            from_link(GuestBridge::Public.name()),
            to_link(UPLINK),
            json!({"jump": {"target": "from-public"}}),
        ],
    );
    table.rule("forward", &[count("no-way"), rejected()]);
}

fn from_public(table: &mut Table, resolver: Option<Resolver>) {
    let chain = "from-public";
    let own_network = network(GuestBridge::Public.network());
    table.rule(
        chain,
        &[
            differ(&field("ip", "saddr"), &own_network),
            count("forged-network"),
            dropped(),
        ],
    );
    table.rule(
        chain,
        &[
            state(&["new"]),
            json!({"set": {
                "op": "add", "elem": field("ip", "saddr"), "set": "@connections",
                "stmt": [{"ct count": {"val": CONNECTIONS_PER_GUEST, "inv": true}}],
            }}),
            count("too-many-connections"),
            dropped(),
        ],
    );
    // Only the rule for names translates, so this is a question that was sent to the host's address.
    let [protocol, port] = names();
    let translated = compare(&json!({"ct": {"key": "status"}}), "in", &json!("dnat"));
    table.rule(chain, &[translated, protocol, port, accept()]);
    let refuse = |what: &Value| {
        let to = equal(&field("ip", "daddr"), what);
        [to, count("private-destination"), rejected()]
    };
    table.rule(chain, &refuse(&json!("@private")));
    // Its network is closed by a route, in which this one address is a hole for names.
    if let Some(Resolver {
        address,
        nearby: true,
    }) = resolver
    {
        table.rule(chain, &refuse(&json!(address.to_string())));
    }
    table.rule(chain, &[accept()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_one_identity_on_each_bridge() {
        let identities = identities();
        assert_eq!(identities.len(), 1024);
        let last = json!({"concat": ["bt511", "02:62:6e:67:01:ff", "10.119.10.15"]});
        assert_eq!(identities[1023], last);
    }

    #[test]
    fn without_a_resolver_nothing_is_translated() {
        let text = |resolver| serde_json::to_string(&guests(resolver).objects).unwrap();
        assert!(!text(None).contains("\"dnat\":{"));
        let address = Ipv4Addr::new(192, 168, 7, 1);
        let nearby = text(Some(Resolver {
            address,
            nearby: true,
        }));
        assert_eq!(nearby.matches("192.168.7.1").count(), 2);
        let far = text(Some(Resolver {
            address,
            nearby: false,
        }));
        assert_eq!(far.matches("192.168.7.1").count(), 1);
    }
}
