//! Four requests of rtnetlink(7), each sent and its answer awaited: links up, addresses,
//! routes. Nothing else of the protocol is needed, so there is no library for it.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address is usable at once.
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The header of a message, nlmsghdr.
const HEADER: usize = 16;

/// A connection to the kernel's routing tables.
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Brings a link up.
    pub(super) fn link_up(&self, index: u32) -> io::Result<()> {
        self.request(&link_up(index))
    }

    /// Gives a link an address; one that it has is left.
    pub(super) fn address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.request(&new_address(index, address, prefix))
    }

    /// Sends everything that has no better route to `gateway`.
    pub(super) fn default_route(&self, index: u32, gateway: IpAddr) -> io::Result<()> {
        self.request(&new_default_route(index, gateway))
    }

    fn request(&self, message: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, message, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (length, _) = rustix::net::recv(&self.socket, &mut answer, RecvFlags::empty())?;
        check_answer(&answer[..length])
    }
}

fn link_up(index: u32) -> Vec<u8> {
    // ifinfomsg: family, pad, type, index, flags, change mask.
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&IFF_UP.to_ne_bytes());
    body.extend_from_slice(&IFF_UP.to_ne_bytes());
    message(RTM_NEWLINK, 0, body)
}

fn new_address(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, bytes) = parts(address);
    // ifaddrmsg: family, prefix length, flags, scope, index.
    let mut body = vec![family, prefix, IFA_F_NODAD, 0];
    body.extend_from_slice(&index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &bytes);
    attribute(&mut body, IFA_ADDRESS, &bytes);
    message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)
}

fn new_default_route(index: u32, gateway: IpAddr) -> Vec<u8> {
    let (family, bytes) = parts(gateway);
    // rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type,
    // flags. A destination of no bits is the default.
    let mut body = vec![family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST];
    body.extend_from_slice(&0_u32.to_ne_bytes());
    attribute(&mut body, RTA_GATEWAY, &bytes);
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn message(kind: u16, flags: u16, body: Vec<u8>) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    // Sequence number and port: one request at a time needs neither.
    message.extend_from_slice(&[0; 8]);
    message.extend(body);
    message
}

/// An acknowledgement is an error message with the number 0.
fn check_answer(answer: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = answer.get(4..6).ok_or_else(malformed)?;
    let code = answer.get(HEADER..HEADER + 4).ok_or_else(malformed)?;
    if kind != NLMSG_ERROR.to_ne_bytes() {
        return Err(malformed());
    }
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_length_they_say() {
        let v4: IpAddr = "10.0.2.15".parse().unwrap();
        let v6: IpAddr = "fd00::2".parse().unwrap();
        for message in [
            link_up(2),
            new_address(2, v4, 24),
            new_address(2, v6, 64),
            new_default_route(2, v4),
            new_default_route(2, v6),
        ] {
            assert_eq!(message.len() % 4, 0);
            assert_eq!(message[..4], (message.len() as u32).to_ne_bytes());
        }
        assert_eq!(
            new_address(2, v4, 24)[HEADER..HEADER + 4],
            [AF_INET, 24, IFA_F_NODAD, 0]
        );
    }

    #[test]
    fn answers_are_told_apart() {
        let answer = |code: i32| {
            let mut answer = vec![0; 36];
            answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
            answer[16..20].copy_from_slice(&code.to_ne_bytes());
            answer
        };
        assert!(check_answer(&answer(0)).is_ok());
        let error = check_answer(&answer(-101)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(101));
        assert!(check_answer(&answer(i32::MIN)).is_err());
        assert!(check_answer(b"short").is_err());
    }

    #[test]
    fn the_kernel_understands() {
        // Without a privilege the kernel refuses, with one `lo` is up already.
        match Netlink::open().and_then(|netlink| netlink.link_up(1)) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
