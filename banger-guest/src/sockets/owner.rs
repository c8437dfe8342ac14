//! Which process has a socket open. The kernel tells only the other way round.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use banger_model::figures::{MAX_COMMAND_LINE, MAX_PROCESS_NAME};

/// Where a socket was found: the process and its descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pid: u32,
    fd: String,
}

impl Place {
    /// Whether it is there still.
    fn holds(&self, inode: u64) -> bool {
        socket_at(
            &Path::new("/proc")
                .join(self.pid.to_string())
                .join("fd")
                .join(&self.fd),
        ) == Some(inode)
    }
}

/// Finds the sockets' processes, the oldest of each; what was known is looked at first, and all
/// processes only when something is missing. `None`: nobody has it.
pub(super) fn find(known: &mut HashMap<u64, Option<Place>>, wanted: &HashSet<u64>) {
    known.retain(|inode, place| {
        wanted.contains(inode) && place.as_ref().is_none_or(|place| place.holds(*inode))
    });
    let mut missing: HashSet<u64> = wanted
        .iter()
        .copied()
        .filter(|inode| !known.contains_key(inode))
        .collect();
    for pid in pids() {
        if missing.is_empty() {
            return;
        }
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Some(inode) = socket_at(&entry.path())
                && missing.remove(&inode)
            {
                let fd = entry.file_name().to_string_lossy().into_owned();
                known.insert(inode, Some(Place { pid, fd }));
            }
        }
    }
    known.extend(missing.into_iter().map(|inode| (inode, None)));
}

/// A process's name and its command line, as far as they are told.
pub(super) fn describe(pid: u32) -> (String, String) {
    let name = read(pid, "comm", MAX_PROCESS_NAME);
    let line = read(pid, "cmdline", MAX_COMMAND_LINE);
    let text = |bytes: &[u8], max: usize| {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        while text.len() > max {
            text.pop();
        }
        text
    };
    let line: Vec<u8> = line
        .iter()
        .map(|byte| if *byte == 0 { b' ' } else { *byte })
        .collect();
    (
        text(name.trim_ascii_end(), MAX_PROCESS_NAME),
        text(line.trim_ascii_end(), MAX_COMMAND_LINE),
    )
}

fn read(pid: u32, name: &str, max: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A process may end at any time.
    if let Ok(file) = File::open(format!("/proc/{pid}/{name}")) {
        let _ = file.take(max as u64).read_to_end(&mut bytes);
    }
    bytes
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

fn socket_at(path: &Path) -> Option<u64> {
    let target = fs::read_link(path).ok()?;
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_as_long_as_it_holds() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let inode = socket_at(Path::new(&format!("/proc/self/fd/{fd}"))).unwrap();
        let wanted = HashSet::from([inode, u64::MAX]);
        let mut known = HashMap::new();
        find(&mut known, &wanted);
        let place = known[&inode].clone().unwrap();
        assert_eq!((place.pid, &place.fd), (std::process::id(), &fd.to_string()));
        assert_eq!(known[&u64::MAX], None, "nobody has it");
        drop(listener);
        assert!(!place.holds(inode));
        find(&mut known, &HashSet::from([inode]));
        assert_eq!(known, HashMap::from([(inode, None)]));
    }

    #[test]
    fn a_process_is_described_and_one_that_ended_is_empty() {
        let (name, line) = describe(std::process::id());
        assert!(!name.is_empty() && name.len() <= 15);
        assert!(line.len() <= MAX_COMMAND_LINE && !line.contains('\0') && !line.is_empty());
        assert_eq!(describe(u32::MAX), (String::new(), String::new()));
    }
}
