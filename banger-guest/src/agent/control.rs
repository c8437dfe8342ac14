//! The guest's end of the control channel: a virtio-serial port, one JSON object a line.
//!
//! The port's driver reports a hang-up for as long as the host has not connected, and wakes
//! whoever waits when that changes. Watched edge by edge this gives one event for each change
//! and none in between; level by level it would be a busy loop.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_model::guest::{CONTROL_PORT, GuestMessage, HostMessage};
use banger_model::limits::MAX_GUEST_MESSAGE;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, Timespec as ClockTime};

use super::power;
use crate::init::Events;
use crate::{console, paths};

/// How long a guest that cannot boot waits for the host to take its last message.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The channel, or the wait for it.
pub(super) struct Channel {
    state: State,
    ready: String,
}

enum State {
    /// The port is not there yet; the kernel says when devices appear.
    Awaited(Events),
    Open(Port),
    /// This VM has none.
    Absent,
}

struct Port {
    file: File,
    connected: bool,
    /// What has arrived of a line.
    input: Vec<u8>,
    /// What the host has not taken yet.
    output: Vec<u8>,
}

impl Channel {
    pub(super) fn open() -> io::Result<Self> {
        let ready = ready_line();
        // Subscribed before looking, so that nothing is missed.
        let events = Events::open();
        let state = match (Port::open(), events) {
            (Some(port), _) => State::Open(port),
            (None, Ok(events)) => State::Awaited(events),
            (None, Err(_)) => State::Absent,
        };
        Ok(Self { state, ready })
    }

    /// Registers for the events that [`Self::handle`] is to be called for.
    pub(super) fn watch(&self, events: &OwnedFd, data: EventData) -> io::Result<()> {
        match &self.state {
            State::Open(port) => epoll::add(
                events,
                &port.file,
                data,
                EventFlags::IN | EventFlags::OUT | EventFlags::ET,
            )?,
            State::Awaited(awaited) => epoll::add(events, awaited, data, EventFlags::IN)?,
            State::Absent => {}
        }
        Ok(())
    }

    /// Does what an event calls for.
    pub(super) fn handle(&mut self, events: &OwnedFd, data: EventData) {
        match &mut self.state {
            State::Open(port) => {
                for message in port.exchange(&self.ready) {
                    if message == HostMessage::Status {
                        port.output.extend_from_slice(self.ready.as_bytes());
                        port.flush();
                    } else if let Err(error) = obey(message) {
                        console::warn("A request of the host fails", &error);
                    }
                }
            }
            State::Awaited(awaited) => {
                awaited.drain();
                if let Some(port) = Port::open() {
                    let awaited = std::mem::replace(&mut self.state, State::Open(port));
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

impl Port {
    fn open() -> Option<Self> {
        let device = find(Path::new("/sys/class/virtio-ports"), CONTROL_PORT)?;
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from(nonblocking).ok()?)
            .open(Path::new("/dev").join(device))
            .ok()?;
        Some(Self {
            file,
            connected: false,
            input: Vec::new(),
            output: Vec::new(),
        })
    }

    /// Says where the guest is to a host that has just connected, and takes what it says.
    fn exchange(&mut self, ready: &str) -> Vec<HostMessage> {
        let connected = self.is_connected();
        if connected && !self.connected {
            // The rest of a line for one host is nothing for the next.
            self.input.clear();
            self.output = ready.as_bytes().to_vec();
        }
        self.connected = connected;
        self.flush();
        self.receive()
    }

    fn is_connected(&self) -> bool {
        let mut state = [PollFd::new(&self.file, PollFlags::OUT)];
        let polled = poll(&mut state, Some(&Timespec::default()));
        polled.is_ok() && !state[0].revents().contains(PollFlags::HUP)
    }

    /// Waits for the host; false when it has not connected within `limit`.
    fn wait_connected(&self, limit: Duration) -> io::Result<bool> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&events, &self.file, EventData::new_u64(0), edges)?;
        let end = Instant::now() + limit;
        while !self.is_connected() {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(false);
            }
            let rest = Timespec::try_from(rest).map_err(io::Error::other)?;
            let mut ready = Vec::with_capacity(1);
            match epoll::wait(&events, rustix::buffer::spare_capacity(&mut ready), Some(&rest)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.file.write(&self.output) {
                Ok(0) | Err(_) => return,
                Ok(written) => drop(self.output.drain(..written)),
            }
        }
    }

    fn receive(&mut self) -> Vec<HostMessage> {
        let mut messages = Vec::new();
        let mut buffer = [0; MAX_GUEST_MESSAGE];
        while let Ok(length @ 1..) = self.file.read(&mut buffer) {
            self.input.extend_from_slice(&buffer[..length]);
            messages.extend(take_messages(&mut self.input));
        }
        messages
    }
}

/// Takes whole lines out of `input`. What is not understood is dropped, and so is a line that
/// is too long.
fn take_messages(input: &mut Vec<u8>) -> Vec<HostMessage> {
    let mut messages = Vec::new();
    while let Some(end) = input.iter().position(|&byte| byte == b'\n') {
        let line: Vec<u8> = input.drain(..=end).collect();
        messages.extend(serde_json::from_slice::<HostMessage>(&line[..end]).ok());
    }
    if input.len() > MAX_GUEST_MESSAGE {
        input.clear();
    }
    messages
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
    let port = events.wait_for(LAST_WORDS, || Ok(Port::open()))?;
    let Some(mut port) = port else {
        return Err(io::Error::other("There is no control channel"));
    };
    port.wait_connected(LAST_WORDS)?;
    port.output = line(message).into_bytes();
    port.flush();
    if port.output.is_empty() {
        return Ok(());
    }
    Err(io::Error::other("The host does not listen"))
}

/// The device of the port with this name.
fn find(class: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(class).ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let found = fs::read_to_string(entry.path().join("name")).ok()?;
        (found.trim_end() == name).then(|| entry.file_name().into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_whole_and_garbage_is_dropped() {
        let mut input = b"{\"request\":\"poweroff\"}\nnonsense\n{\"request\":\"set-ti".to_vec();
        assert_eq!(take_messages(&mut input), [HostMessage::Poweroff]);
        assert!(take_messages(&mut input).is_empty());
        input.extend_from_slice(b"me\",\"unix_us\":5}\n");
        assert_eq!(take_messages(&mut input), [HostMessage::SetTime { unix_us: 5 }]);
        assert!(input.is_empty());
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let mut input = vec![b'x'; MAX_GUEST_MESSAGE + 1];
        assert!(take_messages(&mut input).is_empty());
        assert!(input.is_empty());
    }

    #[test]
    fn a_host_that_connects_late_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let port = Port {
            file: File::options()
                .read(true)
                .custom_flags(nonblocking)
                .open(&path)
                .unwrap(),
            connected: false,
            input: Vec::new(),
            output: Vec::new(),
        };
        // A pipe whose writer has gone is hung up, as a port without a host is.
        let writer = || File::options().write(true).open(&path).unwrap();
        drop(writer());
        assert!(!port.is_connected());
        assert!(!port.wait_connected(Duration::from_millis(1)).unwrap());
        let long = Duration::from_secs(60);
        let (connected, _writer) = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| port.wait_connected(long));
            let mut writer = writer();
            // The coming of a writer alone is no event of a pipe.
            writer.write_all(b"x").unwrap();
            (waiting.join().unwrap(), writer)
        });
        assert!(connected.unwrap());
    }

    #[test]
    fn the_port_is_found_by_its_name() {
        let class = tempfile::tempdir().unwrap();
        for (device, name) in [("vport0p1", "other"), ("vport0p2", CONTROL_PORT)] {
            fs::create_dir(class.path().join(device)).unwrap();
            fs::write(class.path().join(device).join("name"), format!("{name}\n")).unwrap();
        }
        assert_eq!(find(class.path(), CONTROL_PORT), Some("vport0p2".into()));
        assert_eq!(find(class.path(), "org"), None);
    }

    #[test]
    fn a_ready_line_is_within_the_limit() {
        assert!(ready_line().len() < MAX_GUEST_MESSAGE);
        assert!(GuestMessage::parse(ready_line().trim_end().as_bytes()).is_ok());
    }
}
