//! `banger daemon status`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::client::{Client, Transport, dirs, log_tail};
use crate::error::{Error, Result};
use crate::exit;
use crate::output::{self, Style, Table, Tone};

/// Say whether the daemon runs, and which one; never starts it
///
/// The exit status is 0 when it runs and 3 when it does not, as with systemctl.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Document {
    running: bool,
    /// 0 when it is not known.
    pid: u32,
    version: String,
    commit: String,
    interface_version: u32,
    mode: String,
    /// `private-socket` or `session-bus`: how this program reaches it.
    transport: &'static str,
    socket: String,
    state_directory: String,
    vms: usize,
    /// What the last daemon said on its standard error.
    last_words: String,
}

impl Status {
    pub(crate) async fn run(self) -> Result<()> {
        let dirs = dirs()?;
        let mut document = Document {
            socket: dirs.socket().display().to_string(),
            state_directory: dirs.state.display().to_string(),
            ..Document::default()
        };
        match Client::connect_running().await? {
            Some(client) => {
                describe(&client, &mut document).await?;
                document.pid = lock_holder(&dirs.daemon_lock()).unwrap_or(document.pid);
            }
            None => document.last_words = log_tail(&dirs.daemon_log()),
        }
        if self.json {
            output::json(&document)?;
        } else {
            output::data(table(&document).render(Style::stdout()).as_bytes())?;
        }
        if document.running {
            Ok(())
        } else {
            Err(Error::Reported(exit::NOT_RUNNING))
        }
    }
}

async fn describe(client: &Client, document: &mut Document) -> Result<()> {
    let manager = client.manager().await?;
    document.running = true;
    document.version = manager.version().await?;
    document.commit = manager.commit().await?;
    document.interface_version = manager.interface_version().await?;
    document.mode = manager.mode().await?;
    document.vms = client.everything().await?.vms.len();
    match client.transport() {
        Transport::Private { pid, .. } => {
            document.transport = "private-socket";
            document.pid = u32::try_from(*pid).unwrap_or(0);
        }
        Transport::SessionBus => document.transport = "session-bus",
    }
    Ok(())
}

/// Who holds a lock. The other end of the socket may be whoever started the daemon: the kernel
/// remembers who made the socket listen.
fn lock_holder(lock: &Path) -> Option<u32> {
    let inode = fs::metadata(lock).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder(&locks, inode)
}

/// Lines of proc_locks(5): `1: FLOCK ADVISORY WRITE 1234 00:2f:56 0 EOF`.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    let of_inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, _, pid, file, ..] = fields[..] else {
            return None;
        };
        let same = file.rsplit(':').next()?.parse() == Ok(inode);
        same.then(|| pid.parse().ok()).flatten()
    };
    locks.lines().find_map(of_inode)
}

fn table(document: &Document) -> Table {
    let mut table = Table::default();
    if document.running {
        table.row(["daemon", "running"]).tone(1, Some(Tone::Good));
    } else {
        table
            .row(["daemon", "not running (the next command starts it)"])
            .tone(1, Some(Tone::Faint));
    }
    let commit = if document.commit.is_empty() {
        String::new()
    } else {
        format!(" ({})", document.commit)
    };
    let number = |n: u32| if n == 0 { String::new() } else { n.to_string() };
    let vms = if document.running {
        document.vms.to_string()
    } else {
        String::new()
    };
    let rows = [
        ("process", number(document.pid)),
        ("version", format!("{}{commit}", document.version)),
        ("interface", number(document.interface_version)),
        ("mode", document.mode.clone()),
        ("VMs", vms),
        ("reached by", document.transport.replace('-', " ")),
        ("socket", document.socket.clone()),
        ("state", document.state_directory.clone()),
        ("last words", document.last_words.clone()),
    ];
    for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        table.row([*key, value.as_str()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_s_holder_is_found_by_its_file() {
        let locks = "1: POSIX  ADVISORY  READ 10 08:01:5 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 12 08:01:6 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 11 08:01:56 0 EOF\n";
        assert_eq!(holder(locks, 56), Some(11));
        assert_eq!(holder(locks, 5), Some(10));
        // Who waits is not who holds.
        assert_eq!(holder(locks, 6), None);
        assert_eq!(holder("", 1), None);
    }
}
