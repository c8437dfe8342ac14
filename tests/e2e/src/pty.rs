//! A program on a terminal of its own, played by the test.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::rig::LIMIT;

/// The terminal's side of the test.
#[derive(Debug)]
pub struct Pty {
    master: OwnedFd,
    output: UnboundedReceiver<Vec<u8>>,
    child: Child,
    /// What the program wrote and no [`Pty::expect`] has passed yet.
    seen: Vec<u8>,
}

impl Pty {
    /// Starts a command of the rig with the terminal as its controlling one, of this size.
    ///
    /// # Panics
    /// Without terminals, or when the program cannot be started.
    pub fn spawn(command: &Command, columns: u16, rows: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("the terminal is ours");
        unlockpt(&master).expect("the terminal is ours");
        let name = ptsname(&master, Vec::new()).expect("the terminal has a name");
        let slave = open(
            name,
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .expect("the other side");
        let copy = || Stdio::from(slave.try_clone().expect("a descriptor can be copied"));
        let inner = command.as_std();
        // setsid makes the terminal the controlling one; without it no signal follows a resize.
        let mut outer = Command::new("setsid");
        outer
            .arg("--ctty")
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear();
        for (key, value) in inner.get_envs() {
            if let Some(value) = value {
                outer.env(key, value);
            }
        }
        if let Some(dir) = inner.get_current_dir() {
            outer.current_dir(dir);
        }
        outer
            .env("TERM", "xterm")
            .stdin(copy())
            .stdout(copy())
            .stderr(copy())
            .kill_on_drop(true);
        let child = outer.spawn().expect("setsid can be started");
        let output = read_from(master.try_clone().expect("a descriptor can be copied"));
        let pty = Self {
            master,
            output,
            child,
            seen: Vec::new(),
        };
        pty.resize(columns, rows);
        pty
    }

    /// Gives the terminal another size; the program is told by SIGWINCH.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).expect("the terminal takes a size");
    }

    /// Types. For the few bytes that a terminal takes at once.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn send(&self, text: &[u8]) {
        let written = rustix::io::write(&self.master, text);
        assert_eq!(written, Ok(text.len()), "the terminal takes input");
    }

    /// Waits until the program has written `text`, and passes it.
    ///
    /// # Panics
    /// When it ends, or the time is over, without it.
    pub async fn expect(&mut self, text: &str) {
        self.expect_within(text, LIMIT).await;
    }

    /// The same with a limit of its own.
    ///
    /// # Panics
    /// When the program ends, or the time is over, without it.
    pub async fn expect_within(&mut self, text: &str, limit: Duration) {
        let found = timeout(limit, async {
            loop {
                if let Some(at) = self
                    .seen
                    .windows(text.len())
                    .position(|part| part == text.as_bytes())
                {
                    self.seen.drain(..at + text.len());
                    return true;
                }
                if !self.read_some().await {
                    return false;
                }
            }
        })
        .await;
        assert!(
            found == Ok(true),
            "no {text:?} on the terminal: {:?}",
            String::from_utf8_lossy(&self.seen)
        );
    }

    /// Waits until the program has ended: its exit status and the rest of what it wrote.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn finish(mut self) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;
        let status = timeout(LIMIT, async {
            while self.read_some().await {}
            self.child.wait().await
        })
        .await
        .unwrap_or_else(|_| {
            panic!(
                "the program did not end: {:?}",
                String::from_utf8_lossy(&self.seen)
            )
        })
        .expect("a child can be waited for");
        let code = status.code().or(status.signal().map(|n| 128 + n)).unwrap_or(-1);
        (code, String::from_utf8_lossy(&self.seen).into_owned())
    }

    /// The process on the terminal.
    ///
    /// # Panics
    /// When it has ended and was waited for.
    pub fn pid(&self) -> i32 {
        self.child
            .id()
            .and_then(|pid| pid.try_into().ok())
            .expect("the program runs")
    }

    /// Waits for something to read. False at the end.
    async fn read_some(&mut self) -> bool {
        match self.output.recv().await {
            Some(bytes) => {
                self.seen.extend_from_slice(&bytes);
                true
            }
            None => false,
        }
    }
}

/// A thread reads, because a terminal's descriptor cannot be given to the runtime safely. It
/// ends when the last process that has the other side open is gone.
fn read_from(master: OwnedFd) -> UnboundedReceiver<Vec<u8>> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = rustix::io::read(&master, &mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}
