//! Pseudo-terminals: made, sized, and set as the client's own terminal is (RFC 4254,
//! sections 6.2 and 8).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use russh::Pty;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize, tcgetattr,
    tcsetattr, tcsetwinsize,
};
use tokio::io::unix::AsyncFd;

use crate::users::User;

/// The group that terminals belong to, `tty` by its number everywhere.
const TTY: u32 = 5;

/// What the client wants.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) term: String,
    pub(super) size: Winsize,
    pub(super) modes: Vec<(Pty, u32)>,
}

/// A size in characters and pixels; what does not fit is as large as can be.
pub(super) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Winsize {
    let short = |value| u16::try_from(value).unwrap_or(u16::MAX);
    Winsize {
        ws_col: short(columns),
        ws_row: short(rows),
        ws_xpixel: short(width),
        ws_ypixel: short(height),
    }
}

/// The agent's side of a terminal.
pub(super) struct Terminal {
    master: AsyncFd<OwnedFd>,
}

/// The process's side, and its name.
pub(super) struct Slave {
    pub(super) file: File,
    pub(super) name: String,
}

/// Makes a terminal that belongs to `user`.
pub(super) fn open(wanted: &Wanted, user: &User) -> io::Result<(Terminal, Slave)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    let mut settings = tcgetattr(&slave)?;
    set_modes(&mut settings, &wanted.modes);
    tcsetattr(&slave, OptionalActions::Now, &settings)?;
    tcsetwinsize(&slave, wanted.size)?;
    let slave = File::from(slave);
    std::os::unix::fs::fchown(&slave, Some(user.credentials.uid), Some(TTY))?;
    rustix::io::ioctl_fionbio(&master, true)?;
    let master = banger_sys::guest::watch_descriptor(master)?;
    Ok((Terminal { master }, Slave { file: slave, name }))
}

impl Terminal {
    pub(super) fn resize(&self, size: Winsize) {
        // A terminal that is gone has no size.
        let _ = tcsetwinsize(self.master.get_ref(), size);
    }

    /// The next output; nothing once no process has the terminal open any more.
    pub(super) async fn read(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.master.readable().await?;
            if let Ok(result) = ready.try_io(|master| read_some(master.get_ref())) {
                return result;
            }
        }
    }

    /// What is there at once; nothing when there is nothing.
    pub(super) fn read_rest(&self) -> Vec<u8> {
        read_some(self.master.get_ref()).unwrap_or_default()
    }

    pub(super) async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut ready = self.master.writable().await?;
            let written = ready.try_io(|master| Ok(rustix::io::write(master.get_ref(), data)?));
            match written {
                Ok(Ok(length)) => data = &data[length..],
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// The client has no more input: what a user would type then.
    pub(super) async fn end_input(&self) -> io::Result<()> {
        let settings = tcgetattr(self.master.get_ref())?;
        self.write_all(&[settings.special_codes[SpecialCodeIndex::VEOF]])
            .await
    }
}

fn read_some(master: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(16 << 10);
    match rustix::io::read(master, rustix::buffer::spare_capacity(&mut data)) {
        Ok(_) => Ok(data),
        // How Linux says that the other side is closed.
        Err(Errno::IO) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Sets what the client names, and leaves the rest. Bits and parity are a line's; a
/// pseudo-terminal always has eight and none.
fn set_modes(settings: &mut Termios, modes: &[(Pty, u32)]) {
    for &(mode, value) in modes {
        if let Some(index) = special_code(mode) {
            // 255 is a character that is not in use.
            settings.special_codes[index] = match u8::try_from(value) {
                Ok(255) | Err(_) => 0,
                Ok(code) => code,
            };
            continue;
        }
        let on = value != 0;
        if let Some(flag) = input_mode(mode) {
            settings.input_modes.set(flag, on);
        } else if let Some(flag) = local_mode(mode) {
            settings.local_modes.set(flag, on);
        } else if let Some(flag) = output_mode(mode) {
            settings.output_modes.set(flag, on);
        }
    }
}

fn special_code(mode: Pty) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Pty::VINTR => SpecialCodeIndex::VINTR,
        Pty::VQUIT => SpecialCodeIndex::VQUIT,
        Pty::VERASE => SpecialCodeIndex::VERASE,
        Pty::VKILL => SpecialCodeIndex::VKILL,
        Pty::VEOF => SpecialCodeIndex::VEOF,
        Pty::VEOL => SpecialCodeIndex::VEOL,
        Pty::VEOL2 => SpecialCodeIndex::VEOL2,
        Pty::VSTART => SpecialCodeIndex::VSTART,
        Pty::VSTOP => SpecialCodeIndex::VSTOP,
        Pty::VSUSP => SpecialCodeIndex::VSUSP,
        Pty::VREPRINT => SpecialCodeIndex::VREPRINT,
        Pty::VWERASE => SpecialCodeIndex::VWERASE,
        Pty::VLNEXT => SpecialCodeIndex::VLNEXT,
        Pty::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input_mode(mode: Pty) -> Option<InputModes> {
    Some(match mode {
        Pty::IGNPAR => InputModes::IGNPAR,
        Pty::PARMRK => InputModes::PARMRK,
        Pty::INPCK => InputModes::INPCK,
        Pty::ISTRIP => InputModes::ISTRIP,
        Pty::INLCR => InputModes::INLCR,
        Pty::IGNCR => InputModes::IGNCR,
        Pty::ICRNL => InputModes::ICRNL,
        Pty::IUCLC => InputModes::IUCLC,
        Pty::IXON => InputModes::IXON,
        Pty::IXANY => InputModes::IXANY,
        Pty::IXOFF => InputModes::IXOFF,
        Pty::IMAXBEL => InputModes::IMAXBEL,
        Pty::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local_mode(mode: Pty) -> Option<LocalModes> {
    Some(match mode {
        Pty::ISIG => LocalModes::ISIG,
        Pty::ICANON => LocalModes::ICANON,
        Pty::ECHO => LocalModes::ECHO,
        Pty::ECHOE => LocalModes::ECHOE,
        Pty::ECHOK => LocalModes::ECHOK,
        Pty::ECHONL => LocalModes::ECHONL,
        Pty::NOFLSH => LocalModes::NOFLSH,
        Pty::TOSTOP => LocalModes::TOSTOP,
        Pty::IEXTEN => LocalModes::IEXTEN,
        Pty::ECHOCTL => LocalModes::ECHOCTL,
        Pty::ECHOKE => LocalModes::ECHOKE,
        Pty::PENDIN => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output_mode(mode: Pty) -> Option<OutputModes> {
    Some(match mode {
        Pty::OPOST => OutputModes::OPOST,
        Pty::OLCUC => OutputModes::OLCUC,
        Pty::ONLCR => OutputModes::ONLCR,
        Pty::OCRNL => OutputModes::OCRNL,
        Pty::ONOCR => OutputModes::ONOCR,
        Pty::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(modes: Vec<(Pty, u32)>) -> Wanted {
        Wanted {
            term: "dumb".into(),
            size: size(100, 40, 0, 0),
            modes,
        }
    }

    fn this_user() -> User {
        let mut user = crate::users::find("root").unwrap();
        user.credentials.uid = rustix::process::getuid().as_raw();
        user
    }

    #[tokio::test]
    async fn modes_size_and_end_reach_the_terminal() {
        let modes = vec![(Pty::ECHO, 0), (Pty::VINTR, 7), (Pty::VQUIT, 255)];
        let Ok((terminal, slave)) = open(&wanted(modes), &this_user()) else {
            println!("skipped: no terminal can be made here");
            return;
        };
        let settings = tcgetattr(&slave.file).unwrap();
        assert!(!settings.local_modes.contains(LocalModes::ECHO));
        assert_eq!(settings.special_codes[SpecialCodeIndex::VINTR], 7);
        assert_eq!(settings.special_codes[SpecialCodeIndex::VQUIT], 0);
        terminal.resize(size(1 << 20, 7, 0, 0));
        let found = rustix::termios::tcgetwinsize(&slave.file).unwrap();
        assert_eq!((found.ws_col, found.ws_row), (u16::MAX, 7));
        drop(slave);
        assert!(terminal.read().await.unwrap().is_empty());
    }
}
