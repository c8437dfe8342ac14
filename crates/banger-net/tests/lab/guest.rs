//! A guest: a namespace with its own end of a cable, whose other end is the queue of the slot's
//! tap, as a VMM has it. Frames are carried between the two by a thread.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::thread;

use banger_model::slot::{GuestBridge, Slot};
use rustix::event::{PollFd, PollFlags, poll};

use super::{inside, run};

/// Of virtio, before every frame.
const HEADER: usize = 10;

pub(crate) struct Guest {
    pub(crate) slot: Slot,
    pub(crate) bridge: GuestBridge,
    /// Its namespace.
    pub(crate) name: String,
    queue: File,
}

impl Guest {
    /// Makes the tap and starts the guest behind it.
    pub(crate) fn start(number: u16, bridge: GuestBridge, ipv6: bool) -> Self {
        let slot = Slot::new(number).unwrap();
        let queue = inside("banger", || {
            banger_net::tap::make(slot, bridge).unwrap();
            banger_net::tap::open_queue(slot).unwrap()
        });
        let name = format!("guest{number}");
        run(&format!("ip netns add {name}"));
        if !ipv6 {
            let setting = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
            inside(&name, || std::fs::write(setting, "1").unwrap_or_default());
        }
        let cable = inside(&name, || banger_sys::tap::open("eth0").unwrap());
        let mac = slot.mac().map(|byte| format!("{byte:02x}")).join(":");
        for line in [
            "link set lo up".to_owned(),
            format!("link set eth0 address {mac} up"),
            format!("addr add {}/22 dev eth0", slot.address(bridge)),
            format!("route add default via {}", bridge.gateway()),
        ] {
            run(&format!("ip -n {name} {line}"));
        }
        let guest = Self {
            slot,
            bridge,
            name,
            queue: File::from(queue),
        };
        let other = guest.queue.try_clone().unwrap();
        thread::spawn(move || carry(File::from(cable), other));
        guest
    }

    pub(crate) fn address(&self) -> String {
        self.slot.address(self.bridge).to_string()
    }

    /// Sends a frame as no honest guest would: straight from the VMM.
    pub(crate) fn send(&self, frame: &[u8]) {
        let mut whole = vec![0; HEADER];
        whole.extend_from_slice(frame);
        (&self.queue).write_all(&whole).unwrap();
    }
}

fn carry(mut cable: File, mut queue: File) {
    rustix::io::ioctl_fionbio(&cable, true).unwrap();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let mut fds = [cable.as_fd(), queue.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        if poll(&mut fds, None).is_err() {
            return;
        }
        while let Ok(length) = cable.read(&mut buffer) {
            let _ = queue.write(&buffer[..length]);
        }
        while let Ok(length) = queue.read(&mut buffer) {
            let _ = cable.write(&buffer[..length]);
        }
    }
}

/// Frames from hostile guests.
pub(crate) struct Frame;

impl Frame {
    pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
        [&to[..], &from[..], &kind.to_be_bytes(), payload].concat()
    }

    /// A datagram to port 9999 of the host's end of the link.
    pub(crate) fn udp(from: std::net::Ipv4Addr, to: std::net::Ipv4Addr) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
        header.extend(from.octets());
        header.extend(to.octets());
        let sum: u32 = header
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = (sum >> 16) + (sum & 0xffff);
        let checksum = !u16::try_from((sum + (sum >> 16)) & 0xffff).unwrap();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header.extend([0x03, 0xe8, 0x27, 0x0f, 0, 8, 0, 0]);
        header
    }

    /// "`address` is at `mac`", told to `to`.
    pub(crate) fn arp(mac: [u8; 6], address: std::net::Ipv4Addr, to: std::net::Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 2];
        packet.extend(mac);
        packet.extend(address.octets());
        packet.extend([0xff; 6]);
        packet.extend(to.octets());
        packet
    }
}
