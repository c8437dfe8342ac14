//! Which tables of nftables there are, asked for without nft: the helper runs no programs.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::{HEADER, messages};

/// `struct nfgenmsg` of linux/netfilter/nfnetlink.h; its first byte is the family.
const NETFILTER_HEADER: usize = 4;
/// NFNL_SUBSYS_NFTABLES, and NFT_MSG_GETTABLE of linux/netfilter/nf_tables.h.
const GET_TABLE: u16 = (10 << 8) | 1;
/// NFTA_TABLE_NAME, and what names the table in each other message of nftables.
const TABLE_NAME: u16 = 1;

/// Protocol families of linux/netfilter.h.
pub(crate) const INET: u8 = 1;
pub(crate) const BRIDGE: u8 = 7;

/// The families in which a table has this name, in the calling thread's namespace.
pub(crate) fn families_of(table: &str) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    let mut families = Vec::new();
    loop {
        let (datagram, from) = socket.recv_from_full()?;
        if from.port_number() != 0 {
            continue;
        }
        for message in messages(&datagram) {
            match u16::from_ne_bytes([message[4], message[5]]) {
                NLMSG_DONE => return Ok(families),
                NLMSG_ERROR => return Err(error(message)),
                _ if table_of(message) == Some(table.as_bytes()) => families.push(message[HEADER]),
                _ => {}
            }
        }
    }
}

/// The table that a message of nftables is about.
pub(crate) fn table_of(message: &[u8]) -> Option<&[u8]> {
    let mut attributes = message.get(HEADER + NETFILTER_HEADER..)?;
    loop {
        let ([l0, l1, k0, k1], _) = attributes.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([*k0, *k1]) == TABLE_NAME {
            return value.strip_suffix(&[0]);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn request() -> Vec<u8> {
    const LENGTH: u32 = 20;
    let mut request = Vec::new();
    request.extend(LENGTH.to_ne_bytes());
    request.extend(GET_TABLE.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence and port; then all families.
    request.extend([0; 8 + NETFILTER_HEADER]);
    request
}

/// `struct nlmsgerr` begins with a negative errno.
fn error(message: &[u8]) -> io::Error {
    let code = message.get(HEADER..).and_then(|rest| rest.first_chunk());
    code.map_or_else(
        || io::Error::from(io::ErrorKind::InvalidData),
        |code| io::Error::from_raw_os_error(i32::from_ne_bytes(*code).saturating_neg()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &[u8], kind: u16) -> Vec<u8> {
        let mut message = vec![0; HEADER + NETFILTER_HEADER];
        let length = u16::try_from(4 + name.len()).unwrap();
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(name);
        message
    }

    #[test]
    fn the_table_is_found_by_its_attribute_alone() {
        assert_eq!(table_of(&message(b"banger\0", TABLE_NAME)), Some(&b"banger"[..]));
        assert_eq!(table_of(&message(b"banger", TABLE_NAME)), None);
        assert_eq!(table_of(&message(b"banger\0", 2)), None);
    }

    #[test]
    fn broken_messages_end() {
        for length in [0_u16, 3, 4, 200] {
            let mut broken = message(b"banger\0", 2);
            broken[HEADER + NETFILTER_HEADER..][..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(table_of(&broken), None, "{length}");
        }
        assert_eq!(table_of(&[0; 5]), None);
        assert_eq!(error(&[0; 5]).kind(), io::ErrorKind::InvalidData);
    }
}
