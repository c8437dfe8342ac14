//! The rules of the network, as values. Two sets: the guests' namespace decides who reaches what,
//! and a flush of the host's firewall does not touch it; the host translates addresses, and
//! says the same again.

mod guests;
mod host;

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::nft::TABLE;

pub(crate) use guests::guests;
pub(crate) use host::host;

/// What is no address of the Internet (RFC 6890, and multicast): this network, private and
/// shared networks, loopback, link-local with the clouds' metadata, and everything from 224 on.
pub(crate) const PRIVATE: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Objects of one table.
struct Table {
    family: &'static str,
    objects: Vec<Value>,
}

impl Table {
    fn new(family: &'static str) -> Self {
        let objects = Vec::new();
        Self { family, objects }
    }

    /// A counter of its own name: what is refused is counted where people can read it.
    fn counter(&mut self, name: &str) {
        self.objects.push(json!({"counter": {
            "family": self.family, "table": TABLE, "name": name,
        }}));
    }

    fn set(&mut self, name: &str, kind: &Value, flags: &[&str], elements: Vec<Value>) {
        let mut set = json!({"family": self.family, "table": TABLE, "name": name, "type": kind});
        if !flags.is_empty() {
            set["flags"] = json!(flags);
        }
        if !elements.is_empty() {
            set["elem"] = Value::Array(elements);
        }
        self.objects.push(json!({ "set": set }));
    }

    /// A chain that the kernel calls.
    fn hook(&mut self, kind: &str, hook: &str, priority: i32, policy: &str) {
        self.objects.push(json!({"chain": {
            "family": self.family, "table": TABLE, "name": hook,
            "type": kind, "hook": hook, "prio": priority, "policy": policy,
        }}));
    }

    /// A chain that rules jump to.
    fn chain(&mut self, name: &str) {
        self.objects.push(json!({"chain": {
            "family": self.family, "table": TABLE, "name": name,
        }}));
    }

    fn rule(&mut self, chain: &str, expressions: &[Value]) {
        self.objects.push(json!({"rule": {
            "family": self.family, "table": TABLE, "chain": chain, "expr": expressions,
        }}));
    }
}

fn compare(left: &Value, op: &str, right: &Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn equal(left: &Value, right: &Value) -> Value {
    compare(left, "==", right)
}

fn differ(left: &Value, right: &Value) -> Value {
    compare(left, "!=", right)
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn from_link(name: &str) -> Value {
    equal(&meta("iifname"), &json!(name))
}

fn to_link(name: &str) -> Value {
    equal(&meta("oifname"), &json!(name))
}

fn any_of<T: Into<Value> + Clone>(values: &[T]) -> Value {
    json!({"set": values.iter().cloned().map(Into::into).collect::<Vec<Value>>()})
}

fn state(states: &[&str]) -> Value {
    compare(&json!({"ct": {"key": "state"}}), "in", &json!(states))
}

/// Questions to a name server.
fn names() -> [Value; 2] {
    [
        equal(&meta("l4proto"), &any_of(&["tcp", "udp"])),
        equal(&field("th", "dport"), &json!(53)),
    ]
}

fn network((address, prefix): (Ipv4Addr, u8)) -> Value {
    json!({"prefix": {"addr": address.to_string(), "len": prefix}})
}

fn count(counter: &str) -> Value {
    json!({ "counter": counter })
}

fn accept() -> Value {
    json!({"accept": null})
}

fn dropped() -> Value {
    json!({"drop": null})
}

/// Tells the sender, so that a guest's program fails at once and does not wait.
fn rejected() -> Value {
    json!({"reject": {"type": "icmpx", "expr": "admin-prohibited"}})
}
