//! What a program and all that it starts ask the kernel for, by strace.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::processes;
use crate::rig::{LIMIT, Out, Rig, finished};

/// Everything that takes a path, and everything that mounts.
const CALLS: &str = "%file,mount,umount2,fsopen,fsconfig,fsmount,fspick,open_tree,move_mount,\
    mount_setattr,execve,ioctl";

/// A trace that was written.
#[derive(Debug)]
pub struct Trace {
    lines: Vec<String>,
}

impl Trace {
    /// Runs `banger` below strace, with the daemon that it starts and the daemon's children.
    /// The daemon is ended afterwards: the trace ends with it. `None` where there is no strace;
    /// that was said.
    ///
    /// # Panics
    /// When strace cannot be started.
    pub async fn of<S: AsRef<OsStr>>(
        rig: &Rig,
        rung: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Option<(Out, Self)> {
        if !crate::has_program("strace") {
            crate::skipped(rung, "no strace here");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let out = traced(rig, dir.path(), args).await;
        // One file for each process.
        let mut lines = Vec::new();
        for entry in fs::read_dir(dir.path())
            .expect("the directory is there")
            .flatten()
        {
            let text = fs::read(entry.path()).unwrap_or_default();
            lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        Some((out, Self { lines }))
    }

    /// Calls that mount something or make a device of a file, also those that failed.
    pub fn mounts(&self) -> Vec<&str> {
        const NAMES: [&str; 9] = [
            "mount(",
            "umount2(",
            "fsopen(",
            "fsconfig(",
            "fsmount(",
            "fspick(",
            "open_tree(",
            "move_mount(",
            "mount_setattr(",
        ];
        let is = |line: &&str| {
            NAMES.iter().any(|name| line.starts_with(name))
                || line.contains("\"/dev/loop")
                || line.contains("LOOP_")
                || line.contains("losetup")
        };
        self.lines.iter().map(String::as_str).filter(is).collect()
    }

    /// The calls by which programs were started.
    pub fn programs(&self) -> BTreeSet<&str> {
        let lines = self.lines.iter().map(String::as_str);
        lines
            .filter(|line| line.starts_with("execve(") && !line.contains(" = -1 "))
            .collect()
    }

    /// The paths of files, directories, links and nodes that were made or given a name, as they
    /// were written, and what the call was.
    pub fn made(&self) -> Vec<(PathBuf, &str)> {
        let makes = |line: &&str| {
            let name = line.split('(').next().unwrap_or_default();
            match name {
                "open" | "openat" | "openat2" => line.contains("O_CREAT") || line.contains("O_TMPFILE"),
                "creat" | "mkdir" | "mkdirat" | "mknod" | "mknodat" | "symlink" | "symlinkat" | "link"
                | "linkat" | "rename" | "renameat" | "renameat2" => true,
                _ => false,
            }
        };
        let lines = self.lines.iter().map(String::as_str).filter(makes);
        lines
            .flat_map(|line| {
                all_quoted(line)
                    .into_iter()
                    .map(move |path| (PathBuf::from(path), line))
            })
            .collect()
    }

    /// How many calls there are in it.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Runs `banger` with a daemon that strace follows. The command itself is not traced: the end
/// of the trace is the end of the daemon.
async fn traced<S: AsRef<OsStr>>(rig: &Rig, dir: &Path, args: impl IntoIterator<Item = S>) -> Out {
    for pid in rig.pids("bangerd") {
        rig.kill(pid).await;
    }
    let wrapper = rig.dir().join("traced-bangerd");
    // -D: the daemon keeps the process id that its socket was handed to.
    let script = format!(
        "#!/bin/sh\nexec strace -D -ff -qq -s 8192 -e trace={CALLS} -o '{}' '{}' \"$@\"\n",
        dir.join("trace").display(),
        Rig::daemon_program().display(),
    );
    fs::write(&wrapper, script).expect("the rig is writable");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("the rig is writable");
    let out = finished(rig.command(args).env("BANGERD", &wrapper), 2 * LIMIT).await;
    let tracers = rig.pids("strace");
    for pid in rig.pids("bangerd") {
        rig.kill(pid).await;
    }
    for pid in tracers {
        let gone = tokio::task::spawn_blocking(move || processes::wait_for(pid));
        assert!(gone.await.expect("the thread runs"), "strace {pid} does not end");
    }
    out
}

/// The first quoted word of a line, and what follows.
fn quoted(line: &str) -> Option<(String, &str)> {
    let (_, rest) = line.split_once('"')?;
    let mut word = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((word, &rest[at + 1..])),
            '\\' => {
                word.push(c);
                word.push(chars.next()?.1);
            }
            _ => word.push(c),
        }
    }
    None
}

fn all_quoted(mut line: &str) -> Vec<String> {
    let mut words = Vec::new();
    while let Some((word, rest)) = quoted(line) {
        words.push(word);
        line = rest;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_make_something_are_told_from_others() {
        let trace = Trace {
            lines: [
                r#"openat(AT_FDCWD, "/a/read", O_RDONLY|O_CLOEXEC) = 3"#,
                r#"openat(5</dir>, "new \"file\"", O_WRONLY|O_CREAT|O_EXCL, 0666) = 4"#,
                r#"renameat(AT_FDCWD, "/a/x", AT_FDCWD, "/a/y") = 0"#,
                r#"execve("/usr/bin/tar", ["tar"], 0x1 /* 2 vars */) = 0"#,
                r#"mount("none", "/", NULL, MS_REC|MS_PRIVATE, NULL) = -1 EPERM"#,
                r#"openat(AT_FDCWD, "/dev/loop-control", O_RDWR) = 3"#,
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        let made: Vec<_> = trace.made().into_iter().map(|(path, _)| path).collect();
        let wanted = [r#"new \"file\""#, "/a/x", "/a/y"].map(PathBuf::from);
        assert_eq!(made, wanted);
        assert_eq!(trace.mounts().len(), 2);
        assert!(trace.programs().iter().any(|line| line.contains("/usr/bin/tar")));
    }
}
