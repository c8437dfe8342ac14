use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::NetError;

/// How often a dump that the kernel marks as inconsistent, or that overflowed, is asked for again.
const DUMP_ATTEMPTS: usize = 5;

/// A connection to the kernel's routing side of the network namespace in which it was made;
/// a thread that moves elsewhere keeps talking to that one.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn new() -> Result<Self, NetError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(NetError::Socket)?,
            sequence: 0,
        })
    }

    /// Sends a request that changes something, and waits until it is done.
    pub(crate) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        self.receive(|_| ()).map(drop)
    }

    /// Asks for one object.
    pub(crate) fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(message, NLM_F_ACK)?;
        let mut found = None;
        self.receive(|answer| found = Some(answer))?;
        Ok(found)
    }

    /// Asks for all objects of a kind. The answer is of one moment: the kernel says when it is
    /// not, and is asked again.
    pub(crate) fn dump(&mut self, message: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(message.clone(), NLM_F_DUMP)?;
            let mut all = Vec::new();
            let whole = self.receive(|answer| all.push(answer))?;
            if whole {
                return Ok(all);
            }
        }
        Err(io::Error::from(io::ErrorKind::ResourceBusy))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer, 0).map(drop)
    }

    /// Takes the answers to the last request up to its end; false when they are not of one moment.
    fn receive(&mut self, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        const NLM_F_DUMP_INTR: u16 = netlink_packet_core::NLM_F_DUMP_INTR;
        let mut whole = true;
        loop {
            let (datagram, from) = self.socket.recv_from_full()?;
            // Only the kernel speaks with port 0; anybody may send to this socket.
            if from.port_number() != 0 {
                continue;
            }
            for message in messages(&datagram) {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::InnerMessage(inner) => take(inner),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of a datagram, each with its header. Ends at the first that is not whole.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, _) = datagram.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        if length < HEADER || length > datagram.len() {
            return None;
        }
        let message = &datagram[..length];
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_split_at_its_lengths_and_no_further() {
        let mut datagram = vec![0; 20 + 16];
        datagram[..4].copy_from_slice(&18_u32.to_ne_bytes());
        datagram[20..24].copy_from_slice(&16_u32.to_ne_bytes());
        let lengths: Vec<_> = messages(&datagram).map(<[u8]>::len).collect();
        assert_eq!(lengths, [18, 16]);
        for broken in [0_u32, 15, 37, u32::MAX] {
            datagram[..4].copy_from_slice(&broken.to_ne_bytes());
            assert_eq!(messages(&datagram).count(), 0, "{broken}");
        }
        assert_eq!(messages(&[1, 0]).count(), 0);
    }
}
