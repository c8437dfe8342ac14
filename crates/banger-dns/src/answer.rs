//! From a request to its reply.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::zone::{DOMAIN, Zone, is_ours};

/// Longest request that is looked at, in bytes: no question needs half of it.
pub const MAX_REQUEST: usize = 1232;
/// Longest reply, in bytes: what every client takes by UDP (RFC 1035, 4.2.1), so that none is
/// ever truncated.
pub const MAX_REPLY: usize = 512;
/// Records after the question that are read: EDNS is one of them (RFC 6891), a cookie part of it.
const MAX_ADDITIONALS: u16 = 4;
/// How long an address may be remembered, in seconds: a VM that starts anew may have another.
const TTL: u32 = 1;
/// That a name is not there is not remembered at all: the next moment it may be.
const NEGATIVE_TTL: u32 = 0;

/// The reply to `request`, at most [`MAX_REPLY`] bytes long. `None` for what is no request: an
/// answer to it could be the start of a conversation between two servers.
pub fn answer(zone: &Zone, request: &[u8]) -> Option<Vec<u8>> {
    if request.len() > MAX_REQUEST {
        return None;
    }
    let mut decoder = BinDecoder::new(request);
    let header = Header::read(&mut decoder).ok()?;
    if header.metadata.message_type == MessageType::Response {
        return None;
    }
    let mut reply = Message::response(header.metadata.id, header.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&header.metadata);
    reply.metadata.response_code = match read(&header, &mut decoder) {
        Ok((query, edns)) => {
            let code = reply_to(zone, &query, edns.as_ref(), &mut reply);
            reply.add_query(query);
            code
        }
        Err(code) => code,
    };
    reply.to_vec().ok().filter(|bytes| bytes.len() <= MAX_REPLY)
}

/// The question, and what else the client said about itself. Counts are looked at before
/// anything is read by them.
fn read(header: &Header, decoder: &mut BinDecoder<'_>) -> Result<(Query, Option<Edns>), ResponseCode> {
    let counts = header.counts;
    if header.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    if counts.queries != 1 || counts.answers != 0 || counts.authorities != 0 {
        return Err(ResponseCode::FormErr);
    }
    if counts.additionals > MAX_ADDITIONALS {
        return Err(ResponseCode::FormErr);
    }
    let malformed = |_| ResponseCode::FormErr;
    let query = Query::read(decoder).map_err(|_| ResponseCode::FormErr)?;
    let (_, edns, _) =
        Message::read_records(decoder, counts.additionals.into(), true, OpCode::Query).map_err(malformed)?;
    Ok((query, edns))
}

fn reply_to(zone: &Zone, query: &Query, edns: Option<&Edns>, reply: &mut Message) -> ResponseCode {
    if let Some(edns) = edns {
        let mut ours = Edns::new();
        ours.set_max_payload(u16::try_from(MAX_REQUEST).unwrap_or(u16::MAX));
        reply.set_edns(ours);
        if edns.version() != 0 {
            return ResponseCode::BADVERS;
        }
    }
    if query.query_class() != DNSClass::IN
        || matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR)
    {
        return ResponseCode::Refused;
    }
    match Place::of(query.name()) {
        Some(place) => {
            reply.metadata.authoritative = true;
            place.fill(zone, query, reply)
        }
        None => ResponseCode::Refused,
    }
}

/// Where in our zones a name is.
enum Place {
    /// `vm` itself.
    Domain,
    /// One label below it, in lower case.
    Vm(String),
    /// More than one label below it: nothing is there.
    Below,
    /// An address of ours, written backwards below `in-addr.arpa`.
    Address(Ipv4Addr),
    /// The names of 256 such addresses.
    Network,
}

impl Place {
    /// `None` for a name that is somebody else's.
    fn of(name: &Name) -> Option<Self> {
        // A label that is no text is nobody's name, and still below where it is.
        let mut labels: Vec<String> = name
            .iter()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        labels.reverse();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels[..] {
            [DOMAIN] => Some(Self::Domain),
            [DOMAIN, vm] => Some(Self::Vm(vm.to_owned())),
            [DOMAIN, ..] => Some(Self::Below),
            ["arpa", "in-addr", a, b, c, ref rest @ ..] => {
                let [a, b, c] = [octet(a)?, octet(b)?, octet(c)?];
                is_ours(Ipv4Addr::new(a, b, c, 0)).then_some(())?;
                Some(match *rest {
                    [] => Self::Network,
                    [d] => octet(d).map_or(Self::Below, |d| Self::Address(Ipv4Addr::new(a, b, c, d))),
                    _ => Self::Below,
                })
            }
            _ => None,
        }
    }

    fn fill(&self, zone: &Zone, query: &Query, reply: &mut Message) -> ResponseCode {
        let found = match self {
            Self::Domain | Self::Network => Some((RecordType::SOA, soa(query.name()))),
            Self::Vm(vm) => zone
                .address(vm)
                .map(|address| (RecordType::A, RData::A(A(address)))),
            Self::Address(address) => zone
                .name(*address)
                .and_then(|vm| Some((RecordType::PTR, RData::PTR(PTR(absolute(&[vm, DOMAIN])?))))),
            Self::Below => None,
        };
        let code = match found {
            Some((kind, data)) if [kind, RecordType::ANY].contains(&query.query_type()) => {
                reply.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
                return ResponseCode::NoError;
            }
            Some(_) => ResponseCode::NoError,
            None => ResponseCode::NXDomain,
        };
        // Says how long to remember that there is nothing (RFC 2308).
        let top = top(query.name());
        reply.add_authority(Record::from_rdata(top.clone(), NEGATIVE_TTL, soa(&top)));
        code
    }
}

/// The top of our zone that a name is in: `vm` or `c.b.a.in-addr.arpa`.
fn top(name: &Name) -> Name {
    let forward = name.trim_to(1);
    if forward == Name::from_labels([DOMAIN]).unwrap_or_default() {
        forward
    } else {
        name.trim_to(5)
    }
}

/// A number as it is written in a name: no sign, no leading zero.
fn octet(label: &str) -> Option<u8> {
    let number: u8 = label.parse().ok()?;
    (number.to_string() == label).then_some(number)
}

fn absolute(labels: &[&str]) -> Option<Name> {
    Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()
}

/// Of a zone that nobody transfers: the numbers but the last mean nothing.
fn soa(zone: &Name) -> RData {
    let hostmaster = zone.prepend_label("hostmaster").unwrap_or_else(|_| zone.clone());
    RData::SOA(SOA::new(
        zone.clone(),
        hostmaster,
        1,
        3600,
        600,
        86_400,
        NEGATIVE_TTL,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let vms = [("alpha", [10, 119, 0, 16]), ("beta-2", [10, 119, 8, 17])];
        vms.into_iter()
            .map(|(name, octets)| (name.parse().unwrap(), Ipv4Addr::from(octets)))
            .collect()
    }

    fn request(name: &str, kind: RecordType) -> Message {
        let mut request = Message::new(4711, MessageType::Query, OpCode::Query);
        request.metadata.recursion_desired = true;
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        request
    }

    fn ask(request: &Message) -> Message {
        let bytes = answer(&zone(), &request.to_vec().unwrap()).unwrap();
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!((reply.id, reply.message_type), (4711, MessageType::Response));
        assert!(reply.recursion_desired && !reply.recursion_available);
        reply
    }

    #[test]
    fn what_is_asked_and_what_is_answered() {
        use RecordType as T;
        use ResponseCode as C;
        for (name, kind, code, data) in [
            ("alpha.vm.", T::A, C::NoError, "10.119.0.16"),
            ("ALPHA.Vm.", T::A, C::NoError, "10.119.0.16"),
            ("beta-2.vm.", T::A, C::NoError, "10.119.8.17"),
            ("alpha.vm.", T::ANY, C::NoError, "10.119.0.16"),
            ("16.0.119.10.in-addr.arpa.", T::PTR, C::NoError, "alpha.vm."),
            ("17.8.119.10.IN-ADDR.arpa.", T::PTR, C::NoError, "beta-2.vm."),
            // There, but nothing of this kind: clients go on with what there is.
            ("alpha.vm.", T::AAAA, C::NoError, ""),
            ("alpha.vm.", T::MX, C::NoError, ""),
            ("vm.", T::A, C::NoError, ""),
            ("16.0.119.10.in-addr.arpa.", T::A, C::NoError, ""),
            ("0.119.10.in-addr.arpa.", T::PTR, C::NoError, ""),
            // Not there.
            ("gamma.vm.", T::A, C::NXDomain, ""),
            ("gamma.vm.", T::AAAA, C::NXDomain, ""),
            ("www.alpha.vm.", T::A, C::NXDomain, ""),
            ("18.8.119.10.in-addr.arpa.", T::PTR, C::NXDomain, ""),
            ("016.0.119.10.in-addr.arpa.", T::PTR, C::NXDomain, ""),
            ("x.16.0.119.10.in-addr.arpa.", T::PTR, C::NXDomain, ""),
            // Somebody else's.
            ("example.org.", T::A, C::Refused, ""),
            ("alpha.", T::A, C::Refused, ""),
            (".", T::NS, C::Refused, ""),
            ("16.32.119.10.in-addr.arpa.", T::PTR, C::Refused, ""),
            ("119.10.in-addr.arpa.", T::SOA, C::Refused, ""),
            ("1.0.0.127.in-addr.arpa.", T::PTR, C::Refused, ""),
            ("alpha.vm.", T::AXFR, C::Refused, ""),
        ] {
            let reply = ask(&request(name, kind));
            assert_eq!(reply.response_code, code, "{name} {kind}");
            let answers: Vec<_> = reply
                .answers
                .iter()
                .map(|record| record.data.to_string())
                .collect();
            assert_eq!(answers.concat(), data, "{name} {kind}");
            assert_eq!(reply.authoritative, code != C::Refused, "{name} {kind}");
            // Without it a resolver does not believe that there is nothing.
            let soa = reply
                .authorities
                .iter()
                .any(|record| record.record_type() == T::SOA);
            assert_eq!(soa, code != C::Refused && data.is_empty(), "{name} {kind}");
            assert_eq!(reply.queries, request(name, kind).queries);
        }
    }

    #[test]
    fn the_top_of_each_zone_has_its_record() {
        for name in ["vm.", "11.119.10.in-addr.arpa."] {
            let reply = ask(&request(name, RecordType::SOA));
            assert_eq!(reply.answers.len(), 1, "{name}");
        }
        let reply = ask(&request("no.vm.", RecordType::A));
        assert_eq!(reply.authorities[0].name, Name::from_ascii("vm.").unwrap());
        let reply = ask(&request("1.9.119.10.in-addr.arpa.", RecordType::PTR));
        assert_eq!(
            reply.authorities[0].name,
            Name::from_ascii("9.119.10.in-addr.arpa.").unwrap()
        );
    }

    #[test]
    fn edns_is_answered_by_edns() {
        assert!(ask(&request("alpha.vm.", RecordType::A)).edns.is_none());
        let mut with = request("alpha.vm.", RecordType::A);
        with.set_edns(Edns::new());
        let reply = ask(&with);
        assert_eq!(
            (reply.response_code, reply.answers.len()),
            (ResponseCode::NoError, 1)
        );
        assert_eq!(usize::from(reply.edns.unwrap().max_payload()), MAX_REQUEST);
        with.edns.as_mut().unwrap().set_version(1);
        let reply = ask(&with);
        // 16 has two names; this one is meant where there is no signature.
        assert_eq!(u16::from(reply.response_code), u16::from(ResponseCode::BADVERS));
        assert!(reply.answers.is_empty());
    }

    #[test]
    fn what_is_no_question_gets_an_error_or_silence() {
        let code = |bytes: &[u8]| {
            answer(&zone(), bytes).map(|reply| Message::from_vec(&reply).unwrap().response_code)
        };
        let good = request("alpha.vm.", RecordType::A).to_vec().unwrap();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        // A response, another operation, counts that lie, a name that ends nowhere.
        assert_eq!(code(&with(2, 0x81)), None);
        assert_eq!(code(&with(2, 0x29)), Some(ResponseCode::NotImp));
        for (at, byte) in [
            (4, 0xff),
            (5, 0),
            (5, 2),
            (6, 0xff),
            (8, 1),
            (10, 0xff),
            (11, 1),
            (12, 0xc0),
            (12, 63),
        ] {
            assert_eq!(code(&with(at, byte)), Some(ResponseCode::FormErr), "{at} {byte}");
        }
        // Another class.
        let class = good.len() - 1;
        assert_eq!(code(&with(class, 3)), Some(ResponseCode::Refused));
        for length in 0..good.len() {
            let expected = (length >= 12).then_some(ResponseCode::FormErr);
            assert_eq!(code(&good[..length]), expected, "{length}");
        }
        let long = [&good[..], &[0; MAX_REQUEST]].concat();
        assert_eq!(code(&long), None);
    }

    #[test]
    fn the_longest_name_fits_into_a_reply() {
        let label = "x".repeat(62);
        let name = format!("{label}.{label}.{label}.{}.vm.", "y".repeat(58));
        let mut longest = request(&name, RecordType::A);
        longest.set_edns(Edns::new());
        let bytes = answer(&zone(), &longest.to_vec().unwrap()).unwrap();
        assert!(bytes.len() <= MAX_REPLY, "{}", bytes.len());
        assert_eq!(
            Message::from_vec(&bytes).unwrap().response_code,
            ResponseCode::NXDomain
        );
    }
}
