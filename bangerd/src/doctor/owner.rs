//! The owner's configuration, his daemon, and the program that guests run.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use banger_model::Dirs;

use super::known::Known;
use super::report::Report;
use crate::config::ConfigFile;
use crate::core::capability::guest_program::find;

pub(super) fn config(report: &mut Report, dirs: &Dirs) {
    let file = ConfigFile::new(dirs);
    let config = match file.read() {
        Ok(config) => config,
        Err(error) => {
            let text = error.message.replace('\n', " ");
            return report.failure("config", text, "Correct the line; docs/config.md has every key.");
        }
    };
    if file.path().exists() {
        report.ok("config", file.path().display().to_string());
    } else {
        report.info(
            "config",
            format!("{} is not there: all defaults", file.path().display()),
        );
    }
    for (key, value, source) in crate::api::defaults(&config, dirs) {
        report.info(
            &format!("default-{}", key.replace('_', "-")),
            format!("{value} ({source})"),
        );
    }
    if let Some(path) = &config.ssh_key_path {
        let path = path.resolve(&std::env::home_dir().unwrap_or_default());
        match File::open(&path) {
            Ok(_) => report.ok("ssh-key", path.display().to_string()),
            Err(error) => report.failure(
                "ssh-key",
                format!("Cannot read {}: {error}", path.display()),
                "Correct ssh_key_path, or leave it out: banger makes a key.",
            ),
        }
        let open_to_others = std::fs::metadata(&path).is_ok_and(|meta| meta.mode() & 0o077 != 0);
        if open_to_others {
            let hint = format!("chmod 600 {}", path.display());
            report.warning("ssh-key-mode", "Others can read your key: ssh refuses it", &hint);
        }
    }
}

pub(super) fn daemon(report: &mut Report, known: &Known) {
    match known {
        Known::Daemon(pid, _) => report.ok("daemon", format!("Runs as process {pid}")),
        Known::Database(_) | Known::Unsettled => {
            report.info("daemon", "Does not run; it starts when it is needed");
        }
        Known::Unknown(why) => report.failure(
            "daemon",
            format!("Runs and cannot be asked: {why}"),
            "`banger daemon status` says which process it is. Kill that: VMs keep running, and the next call starts a new one.",
        ),
    }
}

pub(super) fn guest_program(report: &mut Report) {
    match find() {
        Ok(path) => match needs_interpreter(&path) {
            Ok(false) => report.ok("guest-program", path.display().to_string()),
            Ok(true) => report.failure(
                "guest-program",
                format!(
                    "{} is not linked statically: no guest could run it",
                    path.display()
                ),
                "Install banger as a whole, or build it with make.",
            ),
            Err(problem) => report.failure(
                "guest-program",
                format!("{}: {problem}", path.display()),
                "Install banger as a whole.",
            ),
        },
        Err(error) => {
            let mut lines = error.message.lines();
            let message = lines.next().unwrap_or_default().to_owned();
            report.failure(
                "guest-program",
                message,
                lines.next().unwrap_or("Install banger as a whole."),
            );
        }
    }
}

/// Whether an ELF program needs a loader of the image: elf(5), a segment PT_INTERP.
fn needs_interpreter(path: &Path) -> Result<bool, String> {
    const PT_INTERP: u32 = 3;
    const HEADER: usize = 64;
    let mut head = Vec::new();
    // The program headers follow the file's header.
    let read = File::open(path).and_then(|file| file.take(64 << 10).read_to_end(&mut head));
    read.map_err(|error| error.to_string())?;
    if head.len() < HEADER || !head.starts_with(b"\x7fELF\x02\x01") {
        return Err("not a 64-bit ELF program".to_owned());
    }
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    };
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let (Some(offset), Some(size), Some(count)) = (offset, size, count) else {
        return Err("a damaged ELF program".to_owned());
    };
    for index in 0..count {
        let at = usize::try_from(offset.saturating_add(index * size)).unwrap_or(usize::MAX);
        match number(at, 4) {
            Some(kind) if kind == u64::from(PT_INTERP) => return Ok(true),
            Some(_) => {}
            None => return Err("a damaged ELF program".to_owned()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_host_needs_its_loader() {
        assert_eq!(needs_interpreter(Path::new("/bin/sh")), Ok(true));
        assert!(needs_interpreter(Path::new("/etc/passwd")).is_err());
    }
}
