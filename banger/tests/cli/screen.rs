//! A terminal, and what can be seen on it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A terminal's screen: as much of ECMA-48 as progress bars use.
pub(crate) struct Screen {
    master: File,
    slave: OwnedFd,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    columns: usize,
    escape: Option<String>,
    /// Lines that have left at the top.
    pub(crate) scrolled: usize,
}

/// Longer than any program here is silent.
const LIMIT: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

impl Screen {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let (master, slave) = pty();
        tcsetwinsize(&master, window(columns, rows)).unwrap();
        Self {
            master: master.into(),
            slave,
            rows: vec![Vec::new(); rows.into()],
            row: 0,
            column: 0,
            columns: columns.into(),
            escape: None,
            scrolled: 0,
        }
    }

    /// Gives a command the terminal as all its standard streams.
    pub(crate) fn attach(&self, command: &mut Command) {
        let slave = || self.slave.try_clone().unwrap();
        command
            .env("TERM", "xterm")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave());
    }

    /// Types something.
    pub(crate) fn write(&mut self, text: &str) {
        std::io::Write::write_all(&mut self.master, text.as_bytes()).unwrap();
    }

    /// Reads until something can be seen.
    pub(crate) fn wait_for(&mut self, word: &str) {
        let mut buffer = [0; 4096];
        // What is cut in the middle of a character is completed by the next read.
        let mut pending = Vec::new();
        while !self.text().contains(word) {
            // The slave is open here too, so an end of the program is no end of the file.
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            let ready = poll(&mut ready, Some(&LIMIT)).unwrap();
            assert!(ready > 0, "no {word:?} in {}", self.text());
            let read = self.master.read(&mut buffer).unwrap();
            pending.extend(&buffer[..read]);
            let valid = match std::str::from_utf8(&pending) {
                Ok(text) => text.len(),
                Err(e) => e.valid_up_to(),
            };
            let text: Vec<u8> = pending.drain(..valid).collect();
            String::from_utf8(text).unwrap().chars().for_each(|c| self.put(c));
        }
    }

    /// The lines, without what is empty at the end.
    pub(crate) fn text(&self) -> String {
        let lines = self.rows.iter().map(|row| row.iter().collect::<String>());
        let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n").trim_end().to_owned()
    }

    fn put(&mut self, c: char) {
        if let Some(mut escape) = self.escape.take() {
            escape.push(c);
            if escape == "[" || !('@'..='~').contains(&c) {
                self.escape = Some(escape);
            } else {
                self.control(&escape);
            }
            return;
        }
        match c {
            '\x1b' => self.escape = Some(String::new()),
            '\r' => self.column = 0,
            '\n' => self.down(),
            c if c.is_control() => {}
            c => {
                if self.column == self.columns {
                    self.column = 0;
                    self.down();
                }
                let row = &mut self.rows[self.row];
                row.resize(row.len().max(self.column + 1), ' ');
                row[self.column] = c;
                self.column += 1;
            }
        }
    }

    fn down(&mut self) {
        if self.row + 1 < self.rows.len() {
            self.row += 1;
        } else {
            self.rows.remove(0);
            self.rows.push(Vec::new());
            self.scrolled += 1;
        }
    }

    fn control(&mut self, escape: &str) {
        let (parameter, kind) = escape.split_at(escape.len() - 1);
        let number = parameter.trim_start_matches('[').parse().unwrap_or(1_usize);
        match kind {
            "A" => self.row = self.row.saturating_sub(number),
            "B" => self.row = (self.row + number).min(self.rows.len() - 1),
            "C" => self.column += number,
            "D" => self.column = self.column.saturating_sub(number),
            "G" => self.column = number - 1,
            "K" if parameter == "[2" => self.rows[self.row].clear(),
            "K" => self.rows[self.row].truncate(self.column),
            "J" => {
                self.rows[self.row].truncate(self.column);
                self.rows[self.row + 1..].iter_mut().for_each(Vec::clear);
            }
            "m" | "h" | "l" => {}
            _ => panic!("the terminal does not know {escape:?}"),
        }
    }
}

pub(crate) fn window(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

pub(crate) fn pty() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (master, slave.into())
}
