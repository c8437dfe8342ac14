//! The guest's end of the control channel, one JSON object a line: a virtio-serial port where
//! the VMM has one, else connections over vsock.
//!
//! A port is open for the machine's whole life, and the host comes and goes. Over vsock the
//! guest connects once, when its agent starts, and from then on the host connects: so nobody
//! tries again and again, whichever of the two was restarted.

mod link;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use banger_model::guest::{CONTROL_VSOCK_PORT, GuestMessage, HostMessage};
use banger_sys::guest::{accept_vsock, connect_vsock, listen_vsock};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{ClockId, Timespec as ClockTime};

use super::power;
use crate::init::Events;
use crate::{console, paths};
use link::Link;

/// How long a guest that cannot boot waits for the host to take its last message.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Connections of the host at once; an older one is closed for another.
const MAX_LINKS: usize = 4;

/// The channel, or the wait for it.
pub(super) struct Channel {
    state: State,
    ready: String,
}

enum State {
    /// Neither device is there yet; the kernel says when devices appear.
    Awaited(Events),
    Port(Link),
    Vsock(Vsock),
    /// This VM has none.
    Absent,
}

struct Vsock {
    listener: OwnedFd,
    links: Vec<Link>,
}

impl Channel {
    pub(super) fn open() -> io::Result<Self> {
        let ready = ready_line();
        // Subscribed before looking, so that nothing is missed.
        let events = Events::open();
        let state = match (find(), events) {
            (Some(found), _) => found,
            (None, Ok(events)) => State::Awaited(events),
            (None, Err(_)) => State::Absent,
        };
        Ok(Self { state, ready })
    }

    /// Registers for the events that [`Self::handle`] is to be called for.
    pub(super) fn watch(&self, events: &OwnedFd, data: EventData) -> io::Result<()> {
        match &self.state {
            State::Port(link) => link.watch(events, data)?,
            State::Vsock(vsock) => {
                epoll::add(events, &vsock.listener, data, EventFlags::IN)?;
                for link in &vsock.links {
                    link.watch(events, data)?;
                }
            }
            State::Awaited(awaited) => epoll::add(events, awaited, data, EventFlags::IN)?,
            State::Absent => {}
        }
        Ok(())
    }

    /// Tells the host, as far as it listens, that the agent ends.
    pub(super) fn say_ending(&mut self) {
        let ending = line(&GuestMessage::Ending);
        let links = match &mut self.state {
            State::Port(link) => std::slice::from_mut(link),
            State::Vsock(vsock) => &mut vsock.links,
            State::Awaited(_) | State::Absent => &mut [],
        };
        for link in links {
            link.say(&ending);
        }
    }

    /// Does what an event calls for.
    pub(super) fn handle(&mut self, events: &OwnedFd, data: EventData) {
        match &mut self.state {
            State::Port(link) => serve(link, &self.ready),
            State::Vsock(vsock) => {
                vsock.accept(events, data);
                vsock.links.iter_mut().for_each(|link| serve(link, &self.ready));
                // Closed, it is no longer watched either.
                vsock.links.retain(|link| !link.is_over());
            }
            State::Awaited(awaited) => {
                awaited.drain();
                if let Some(found) = find() {
                    let awaited = std::mem::replace(&mut self.state, found);
                    if let State::Awaited(awaited) = awaited {
                        let _ = epoll::delete(events, &awaited);
                    }
                    if let Err(error) = self.watch(events, data) {
                        console::warn("The control channel is not watched", &error);
                    }
                }
            }
            State::Absent => {}
        }
    }
}

impl Vsock {
    /// Listens first: a host that hears of the agent may connect.
    fn open() -> io::Result<Self> {
        let listener = listen_vsock(CONTROL_VSOCK_PORT)?;
        let links = vec![Link::stream(connect_vsock(CONTROL_VSOCK_PORT)?)];
        Ok(Self { listener, links })
    }

    fn accept(&mut self, events: &OwnedFd, data: EventData) {
        while let Ok(Some(stream)) = accept_vsock(&self.listener) {
            let link = Link::stream(stream);
            if let Err(error) = link.watch(events, data) {
                console::warn("A control connection is not watched", &error);
                continue;
            }
            if self.links.len() >= MAX_LINKS {
                self.links.remove(0);
            }
            self.links.push(link);
        }
    }
}

/// The channel that this machine has.
fn find() -> Option<State> {
    match Link::port() {
        Some(port) => Some(State::Port(port)),
        None => Vsock::open().ok().map(State::Vsock),
    }
}

/// Says where the guest is to a host that has just connected, and does what it says.
fn serve(link: &mut Link, ready: &str) {
    for message in link.exchange(ready) {
        if message == HostMessage::Status {
            link.say(ready);
        } else if let Err(error) = obey(message) {
            console::warn("A request of the host fails", &error);
        }
    }
}

fn obey(message: HostMessage) -> io::Result<()> {
    match message {
        HostMessage::Status => Ok(()),
        HostMessage::Poweroff => power::off(),
        HostMessage::SetTime { unix_us } => set_clock(unix_us),
    }
}

fn set_clock(unix_us: u64) -> io::Result<()> {
    let time = ClockTime {
        tv_sec: i64::try_from(unix_us / 1_000_000).map_err(io::Error::other)?,
        tv_nsec: i64::try_from(unix_us % 1_000_000 * 1000).map_err(io::Error::other)?,
    };
    Ok(rustix::time::clock_settime(ClockId::Realtime, time)?)
}

fn ready_line() -> String {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let uptime = rustix::time::clock_gettime(ClockId::Boottime);
    let milliseconds = uptime.tv_sec * 1000 + uptime.tv_nsec / 1_000_000;
    line(&GuestMessage::Ready {
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        init: text(paths::INIT),
        uptime_ms: u64::try_from(milliseconds).unwrap_or_default(),
    })
}

fn line(message: &GuestMessage) -> String {
    let mut line = serde_json::to_string(message).unwrap_or_default();
    line.push('\n');
    line
}

/// Sends one message, before there is an agent.
pub(crate) fn report_once(message: &GuestMessage) -> io::Result<()> {
    let mut events = Events::open()?;
    let look = || {
        let stream = || connect_vsock(CONTROL_VSOCK_PORT).ok().map(Link::stream);
        Ok(Link::port().or_else(stream))
    };
    let Some(mut link) = events.wait_for(LAST_WORDS, look)? else {
        return Err(io::Error::other("There is no control channel"));
    };
    if link.wait_connected(LAST_WORDS)? && link.say(&line(message)) {
        return Ok(());
    }
    Err(io::Error::other("The host does not listen"))
}

#[cfg(test)]
mod tests {
    use banger_model::limits::MAX_GUEST_MESSAGE;

    use super::*;

    #[test]
    fn a_ready_line_is_within_the_limit() {
        assert!(ready_line().len() < MAX_GUEST_MESSAGE);
        assert!(GuestMessage::parse(ready_line().trim_end().as_bytes()).is_ok());
    }
}
