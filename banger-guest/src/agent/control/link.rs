//! One way to the host: a port, or a connection over vsock.
//!
//! A port's driver reports a hang-up for as long as the host has not connected, and wakes
//! whoever waits when that changes. Watched edge by edge this gives one event for each change
//! and none in between; level by level it would be a busy loop.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_model::guest::{CONTROL_PORT, HostMessage};
use banger_model::limits::MAX_GUEST_MESSAGE;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) struct Link {
    file: File,
    kind: Kind,
    connected: bool,
    /// What has arrived of a line.
    input: Vec<u8>,
    /// What the host has not taken yet.
    output: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The host connects and leaves.
    Port,
    /// One connection: over when it is closed, or cannot be made.
    Stream,
}

impl Link {
    /// The virtio-serial port, where this machine has it.
    pub(super) fn port() -> Option<Self> {
        let device = find(Path::new("/sys/class/virtio-ports"), CONTROL_PORT)?;
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from(nonblocking).ok()?)
            .open(Path::new("/dev").join(device))
            .ok()?;
        Some(Self::new(file, Kind::Port))
    }

    /// A socket that does not block, connected or not yet.
    pub(super) fn stream(file: File) -> Self {
        Self::new(file, Kind::Stream)
    }

    fn new(file: File, kind: Kind) -> Self {
        Self {
            file,
            kind,
            connected: false,
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    pub(super) fn watch(&self, events: &OwnedFd, data: EventData) -> io::Result<()> {
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(events, &self.file, data, edges)?)
    }

    /// Says where the guest is to a host that has just connected, and takes what it says.
    pub(super) fn exchange(&mut self, ready: &str) -> Vec<HostMessage> {
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

    /// Says something; false when the host has not taken all of it.
    pub(super) fn say(&mut self, line: &str) -> bool {
        // A host that asks and does not listen is not remembered for ever.
        if self.output.len() < MAX_GUEST_MESSAGE {
            self.output.extend_from_slice(line.as_bytes());
        }
        self.flush();
        self.output.is_empty()
    }

    /// Whether nothing will come of it any more.
    pub(super) fn is_over(&self) -> bool {
        let over = PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP;
        self.kind == Kind::Stream && self.state().intersects(over)
    }

    fn is_connected(&self) -> bool {
        let state = self.state();
        match self.kind {
            Kind::Port => !state.contains(PollFlags::HUP),
            // Connected once, it stays so until it is over, also while it takes nothing.
            Kind::Stream => self.connected || state.contains(PollFlags::OUT) && !self.is_over(),
        }
    }

    fn state(&self) -> PollFlags {
        let mut state = [PollFd::new(&self.file, PollFlags::OUT | PollFlags::RDHUP)];
        match poll(&mut state, Some(&Timespec::default())) {
            Ok(_) => state[0].revents(),
            Err(_) => PollFlags::HUP,
        }
    }

    /// Waits for the host; false when it has not connected within `limit`.
    pub(super) fn wait_connected(&self, limit: Duration) -> io::Result<bool> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        self.watch(&events, EventData::new_u64(0))?;
        let end = Instant::now() + limit;
        while !self.is_connected() {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() || self.is_over() {
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
        let file = File::options().read(true).custom_flags(nonblocking).open(&path);
        let port = Link::new(file.unwrap(), Kind::Port);
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

    /// A connection with its other end; `connected` as vsock's are after a while.
    fn streams() -> (Link, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Link::stream(File::from(OwnedFd::from(ours))), theirs)
    }

    #[test]
    fn a_connection_begins_with_where_the_guest_is_and_ends_with_the_host() {
        let (mut link, mut host) = streams();
        assert!(link.exchange("ready\n").is_empty());
        assert!(!link.is_over());
        let mut said = [0; 16];
        let length = host.read(&mut said).unwrap();
        assert_eq!(&said[..length], b"ready\n");
        // Once a connection.
        host.write_all(b"{\"request\":\"status\"}\n").unwrap();
        assert_eq!(link.exchange("ready\n"), [HostMessage::Status]);
        host.set_nonblocking(true).unwrap();
        assert!(host.read(&mut said).is_err());
        // What a host says before it leaves counts.
        host.write_all(b"{\"request\":\"poweroff\"}\n").unwrap();
        drop(host);
        assert_eq!(link.exchange("ready\n"), [HostMessage::Poweroff]);
        assert!(link.is_over());
    }

    #[test]
    fn a_host_that_does_not_listen_is_not_waited_for() {
        let (link, host) = streams();
        drop(host);
        assert!(!link.wait_connected(Duration::from_secs(60)).unwrap());
        let (link, _host) = streams();
        assert!(link.wait_connected(Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn a_host_that_asks_and_never_listens_fills_no_memory() {
        let (mut link, _host) = streams();
        while link.say(&"x".repeat(MAX_GUEST_MESSAGE)) {}
        for _ in 0..1000 {
            assert!(!link.say(&"x".repeat(1000)));
        }
        assert!(link.output.len() < 2 * MAX_GUEST_MESSAGE);
    }
}
