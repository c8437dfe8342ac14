//! The kernel's tables of sockets (proc(5), `/proc/net`).

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use banger_model::figures::{MAX_SOCKETS, Transport};

/// Of each table: what waits comes first for TCP, and a guest has few UDP sockets.
const MAX_TABLE: u64 = 4 << 20;
const TABLES: [(&str, Transport); 4] = [
    ("/proc/net/tcp", Transport::Tcp),
    ("/proc/net/tcp6", Transport::Tcp),
    ("/proc/net/udp", Transport::Udp),
    ("/proc/net/udp6", Transport::Udp),
];
/// `TCP_LISTEN` of Linux.
const LISTEN: &str = "0A";
/// `TCP_CLOSE`, which a UDP socket without a peer is in.
const UNCONNECTED: &str = "07";

/// A socket that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) protocol: Transport,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) inode: u64,
}

/// All sockets of this network namespace that wait, at most as many as are told.
pub(super) fn read() -> io::Result<Vec<Bound>> {
    let mut found = Vec::new();
    for (path, protocol) in TABLES {
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => file.take(MAX_TABLE).read_to_string(&mut text)?,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        found.extend(text.lines().skip(1).filter_map(|line| parse(line, protocol)));
    }
    found.truncate(MAX_SOCKETS);
    Ok(found)
}

fn parse(line: &str, protocol: Transport) -> Option<Bound> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = words.next()?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    let wanted = match protocol {
        Transport::Tcp => LISTEN,
        Transport::Udp => UNCONNECTED,
    };
    let (address, port) = local.split_once(':')?;
    (state == wanted).then_some(Bound {
        protocol,
        address: parse_address(address)?.to_canonical(),
        port: u16::from_str_radix(port, 16).ok()?,
        inode,
    })
}

/// Words of 32 bits as they lie in memory, printed as numbers.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const LISTENING: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";

    #[test]
    fn a_listening_socket_is_read() {
        let expected = Bound {
            protocol: Transport::Tcp,
            address: Ipv4Addr::LOCALHOST.into(),
            port: 8080,
            inode: 4711,
        };
        assert_eq!(parse(LISTENING, Transport::Tcp), Some(expected));
        assert_eq!(parse(LISTENING, Transport::Udp), None, "another state's word");
        assert_eq!(parse(&LISTENING.replace(" 0A ", " 01 "), Transport::Tcp), None);
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let of = |text| parse_address(text).unwrap().to_canonical().to_string();
        assert_eq!(of("00000000000000000000000001000000"), "::1");
        assert_eq!(of("0000000000000000FFFF00000100007F"), "127.0.0.1");
        assert_eq!(of("B80D01200000000000000000EFBE0000"), "2001:db8::beef");
        assert_eq!(parse_address("0100007"), None);
        assert_eq!(parse_address("01000é7F"), None);
    }

    #[test]
    fn no_line_stops_the_reading() {
        for line in ["", "0:", "0: x y z", "0: :1 a 0A b c d e f 1", &LISTENING[..40]] {
            assert_eq!(parse(line, Transport::Tcp), None, "{line}");
        }
    }
}
