//! Waiting until something may be no longer as it should be: the kernel tells of changes to
//! tables, links, addresses, routes, rules and forwarding in both namespaces, and of the files
//! that name the host's name servers. Nothing is asked for in intervals.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use banger_model::slot::{GuestBridge, HOST_LINK, NAMESPACE, UPLINK};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::facts::RESOLVER_FILES;
use crate::namespace::DIRECTORY;
use crate::netlink::{Link, messages, table_of};
use crate::nft::TABLE;
use crate::{NetError, Network};

/// Multicast groups of linux/rtnetlink.h: links, IPv4 addresses, routes, rules, settings.
const ROUTE_GROUPS: [u32; 5] = [1, 5, 7, 8, 24];
/// NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
const TABLE_GROUPS: [u32; 1] = [7];
/// Enough for some hundred events with names.
const EVENTS: usize = 16 << 10;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// There is something to read from the other descriptor.
    Other,
    /// Something may have changed.
    Changed(Changed),
    /// The namespace's name is gone: only a new start can make another.
    Lost,
}

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// The tables in the guests' namespace.
    pub guest_tables: bool,
    /// The host's.
    pub host_table: bool,
    /// Links, addresses, routes, rules, settings or name servers.
    pub rest: bool,
}

impl Changed {
    pub const EVERYTHING: Self = Self {
        guest_tables: true,
        host_table: true,
        rest: true,
    };
}

/// Listens to the kernel.
pub struct Watch {
    sockets: Vec<Source>,
    files: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    HostTable,
    Host,
    GuestTables,
    Guests,
}

struct Source {
    kind: Kind,
    socket: Socket,
}

impl Watch {
    /// Listens from now on: to be called before [`Network::ensure`], so that no change falls
    /// between the two.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn new(network: &Network) -> Result<Self, NetError> {
        let listen = |kind, protocol, groups: &'static [u32]| {
            move || Source::new(kind, protocol, groups).map_err(NetError::Socket)
        };
        let host = [
            listen(Kind::HostTable, NETLINK_NETFILTER, &TABLE_GROUPS)()?,
            listen(Kind::Host, NETLINK_ROUTE, &ROUTE_GROUPS)()?,
        ];
        let guests = [
            network
                .inside
                .run(listen(Kind::GuestTables, NETLINK_NETFILTER, &TABLE_GROUPS))?,
            network
                .inside
                .run(listen(Kind::Guests, NETLINK_ROUTE, &ROUTE_GROUPS))?,
        ];
        let files = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|e| NetError::kernel("watch files")(e.into()))?;
        let watch = Self {
            sockets: host.into_iter().chain(guests).collect(),
            files,
        };
        watch.watch_files();
        Ok(watch)
    }

    /// Waits for a change, or until `other` can be read.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn wait(&mut self, other: BorrowedFd<'_>) -> Result<Woken, NetError> {
        let failed = |e: io::Error| NetError::kernel("wait for changes")(e);
        loop {
            let mut fds: Vec<_> = [other, self.files.as_fd()]
                .into_iter()
                .chain(self.sockets.iter().map(|source| source.socket.as_fd()))
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(failed(e.into())),
            }
            if !fds[0].revents().is_empty() {
                return Ok(Woken::Other);
            }
            let mut changed = Changed::default();
            for source in &mut self.sockets {
                source.drain(&mut changed).map_err(failed)?;
            }
            match self.drain_files().map_err(|e| failed(e.into()))? {
                Woken::Changed(files) => changed.rest |= files.rest,
                lost => return Ok(lost),
            }
            if changed != Changed::default() {
                // Directories that did not exist before may now.
                self.watch_files();
                return Ok(Woken::Changed(changed));
            }
        }
    }

    fn watch_files(&self) {
        let of_interest = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        let resolvers = RESOLVER_FILES.iter().flat_map(|file| {
            let path = PathBuf::from(file);
            let target = path.canonicalize().ok();
            [Some(path), target]
        });
        let directories = resolvers
            .flatten()
            .filter_map(|path| path.parent().map(Path::to_owned))
            .chain([PathBuf::from(DIRECTORY)]);
        for directory in directories {
            // One that does not exist has no files; adding one again changes nothing.
            let _ = inotify::add_watch(&self.files, directory, of_interest);
        }
    }

    fn drain_files(&self) -> Result<Woken, Errno> {
        let mut changed = Changed::default();
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut reader = inotify::Reader::new(&self.files, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(Woken::Changed(changed)),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e),
            };
            let name = event.file_name().map(|name| name.to_bytes()).unwrap_or_default();
            if name == NAMESPACE.as_bytes() && !crate::namespace::exists() {
                return Ok(Woken::Lost);
            }
            let is_resolver = name.ends_with(b"resolv.conf");
            changed.rest |= is_resolver || event.events().contains(ReadFlags::QUEUE_OVERFLOW);
        }
    }
}

impl Source {
    fn new(kind: Kind, protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self { kind, socket })
    }

    fn drain(&mut self, changed: &mut Changed) -> io::Result<()> {
        loop {
            let (datagram, from) = match self.socket.recv_from_full() {
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // Some were lost: it may be any.
                Err(e) if e.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    *changed = Changed::EVERYTHING;
                    continue;
                }
                Err(e) => return Err(e),
            };
            if from.port_number() != 0 {
                continue;
            }
            for message in messages(&datagram) {
                match self.kind {
                    Kind::HostTable => changed.host_table |= is_of_our_table(message),
                    Kind::GuestTables => changed.guest_tables |= is_of_our_table(message),
                    Kind::Host => changed.rest |= matters_on_the_host(message),
                    Kind::Guests => changed.rest |= matters_inside(message),
                }
            }
        }
    }
}

fn is_of_our_table(message: &[u8]) -> bool {
    table_of(message) == Some(TABLE.as_bytes())
}

/// Links that come and go, of others too: routes go with them without a word.
fn matters_on_the_host(message: &[u8]) -> bool {
    match parse(message) {
        Some(RouteNetlinkMessage::NewLink(link)) => Link::from_message(&RouteNetlinkMessage::NewLink(link))
            .is_none_or(|link| link.name == HOST_LINK || !link.up),
        _ => true,
    }
}

/// Taps come and go with VMs; what else there is stays.
fn matters_inside(message: &[u8]) -> bool {
    let Some(message) = parse(message) else {
        return true;
    };
    let fixed = |name: &str| name == UPLINK || GuestBridge::ALL.iter().any(|bridge| bridge.name() == name);
    Link::from_message(&message).is_none_or(|link| fixed(&link.name))
}

fn parse(message: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::deserialize(message).ok()?.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}
