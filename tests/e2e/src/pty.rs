//! A program on a terminal of its own, played by the test.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rig::LIMIT;

/// The terminal's side of the test.
#[derive(Debug)]
pub struct Pty {
    master: AsyncFd<OwnedFd>,
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
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK).expect("a terminal need not block");
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
        let master = AsyncFd::new(master).expect("a terminal can be waited for");
        let pty = Self {
            master,
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
        tcsetwinsize(self.master.get_ref(), size).expect("the terminal takes a size");
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal does not take it in time.
    pub async fn send(&self, mut text: &[u8]) {
        while !text.is_empty() {
            let mut ready = timeout(LIMIT, self.master.writable())
                .await
                .expect("the terminal takes input")
                .expect("the terminal is there");
            match ready.try_io(|fd| rustix::io::write(fd.get_ref(), text).map_err(Into::into)) {
                Ok(written) => text = &text[written.expect("the terminal is there")..],
                Err(_) => continue,
            }
        }
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

    /// Reads what is there, waiting for something. False at the end.
    async fn read_some(&mut self) -> bool {
        loop {
            let Ok(mut ready) = self.master.readable().await else {
                return false;
            };
            let mut buffer = [0; 4096];
            match ready.try_io(|fd| rustix::io::read(fd.get_ref(), &mut buffer).map_err(Into::into)) {
                // The last process that had the other side open is gone: EIO.
                Ok(Ok(0) | Err(_)) => return false,
                Ok(Ok(read)) => {
                    self.seen.extend_from_slice(&buffer[..read]);
                    return true;
                }
                Err(_) => {}
            }
        }
    }
}
