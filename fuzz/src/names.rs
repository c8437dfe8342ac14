//! Questions of whoever reaches the DNS server.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use banger_dns::{MAX_REPLY, Zone, answer};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 119, 0, 16);

static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let name = "alpha".parse().expect("it is a name");
    [(name, ADDRESS)].into_iter().collect()
});

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    let Some(reply) = answer(&ZONE, data) else {
        return;
    };
    assert!(reply.len() <= MAX_REPLY, "{} bytes", reply.len());
    assert_eq!(reply[..2], data[..2], "another client's reply");
    assert_eq!(answer(&ZONE, &reply), None, "a conversation with itself");
    let message = Message::from_vec(&reply).expect("a client can read it");
    assert_eq!(message.message_type, MessageType::Response);
    assert!(!message.truncation && !message.recursion_available);
    for record in &message.answers {
        assert_eq!(message.response_code, ResponseCode::NoError);
        assert_eq!(record.name, message.queries[0].name);
        match &record.data {
            RData::A(address) => assert_eq!(address.0, ADDRESS),
            RData::PTR(name) => assert_eq!(name.0.to_ascii(), "alpha.vm."),
            RData::SOA(_) => {}
            other => panic!("{other} was not in the zone"),
        }
    }
    let known = [ResponseCode::NoError, ResponseCode::NXDomain];
    if known.contains(&message.response_code) {
        assert!(message.authoritative);
        assert_ne!(message.answers.is_empty(), message.authorities.is_empty());
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let questions = [
        ("alpha.vm.", RecordType::A),
        ("alpha.vm.", RecordType::AAAA),
        ("beta.vm.", RecordType::A),
        ("vm.", RecordType::SOA),
        ("16.0.119.10.in-addr.arpa.", RecordType::PTR),
        ("17.0.119.10.in-addr.arpa.", RecordType::PTR),
        ("example.org.", RecordType::ANY),
    ];
    let mut seeds = Vec::new();
    for (name, kind) in questions {
        let name = Name::from_ascii(name).expect("it is a name");
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name, kind));
        seeds.push(message.to_vec().expect("it fits"));
        message.set_edns(Edns::new());
        seeds.push(message.to_vec().expect("it fits"));
        message.queries[0].set_query_class(DNSClass::CH);
        seeds.push(message.to_vec().expect("it fits"));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_hold() {
        for seed in seeds() {
            run(&seed);
        }
    }
}
