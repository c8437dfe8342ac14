//! The process that listens: connections, the control channel, and signals, one event at a
//! time and without a thread, so that it can fork.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

use banger_model::guest::Identity;
use banger_sys::guest::{Forked, SignalFd, fork};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::process::{Signal, WaitOptions, wait};

use super::control::Channel;
use crate::{console, paths};

/// Connections at once; each is a process.
const MAX_CONNECTIONS: usize = 64;

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const CONTROL: u64 = 2;

/// What the caller does after [`run`].
pub(super) enum Next {
    /// The agent was told to end.
    Stop,
    /// This is a new process, for one connection.
    Serve(TcpStream),
}

/// Listens until the agent is told to end. `listening` is called once connections are
/// accepted.
pub(super) fn run(identity: &Identity, listening: impl FnOnce()) -> io::Result<Next> {
    let listener = bind(identity.ssh.port)?;
    listener.set_nonblocking(true)?;
    let mut signals = SignalFd::new(&[
        Signal::CHILD.as_raw(),
        Signal::TERM.as_raw(),
        Signal::INT.as_raw(),
    ])?;
    let mut control = Channel::open()?;
    let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&events, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&events, &signals, EventData::new_u64(SIGNALS), EventFlags::IN)?;
    control.watch(&events, EventData::new_u64(CONTROL))?;

    // The kernel kills others first; each connection takes this back.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    fs::write(paths::PID_FILE, format!("{}\n", std::process::id()))?;
    listening();

    let mut connections = BTreeSet::new();
    let mut ready: Vec<Event> = Vec::with_capacity(8);
    loop {
        ready.clear();
        match epoll::wait(&events, rustix::buffer::spare_capacity(&mut ready), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &ready {
            match event.data.u64() {
                LISTENER => {
                    if let Some(stream) = accept(&listener, &mut connections) {
                        return Ok(Next::Serve(stream));
                    }
                }
                SIGNALS => {
                    if stops(&mut signals, &mut connections)? {
                        control.say_ending();
                        return Ok(Next::Stop);
                    }
                }
                _ => control.handle(&events, EventData::new_u64(CONTROL)),
            }
        }
    }
}

/// IPv6 and IPv4 in one socket where the kernel has both.
fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// Takes one connection; some in the process that was forked for it.
fn accept(listener: &TcpListener, connections: &mut BTreeSet<i32>) -> Option<TcpStream> {
    let (stream, _) = listener.accept().ok()?;
    if connections.len() >= MAX_CONNECTIONS {
        return None;
    }
    match fork() {
        Ok(Forked::Child) => Some(stream),
        Ok(Forked::Parent { child }) => {
            connections.insert(child);
            None
        }
        Err(error) => {
            console::warn("A connection is not served", &error);
            None
        }
    }
}

/// Takes pending signals; true when the agent is to end.
fn stops(signals: &mut SignalFd, connections: &mut BTreeSet<i32>) -> io::Result<bool> {
    let mut stop = false;
    while let Some(signal) = signals.take()? {
        stop |= signal != Signal::CHILD.as_raw();
    }
    while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
        connections.remove(&pid.as_raw_nonzero().get());
    }
    Ok(stop)
}
