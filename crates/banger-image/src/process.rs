//! Programs of the host: found, run with a clean environment, read with bounds, ended with
//! their operation.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::thread;

use crate::Cancel;
use crate::error::{Error, Result};
use crate::group::Group;

/// A program and the packages that have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) debian: &'static str,
    pub(crate) fedora: &'static str,
}

pub(crate) const APT_GET: Tool = Tool::new("apt-get", "apt", "apt");
pub(crate) const APT_CACHE: Tool = Tool::new("apt-cache", "apt", "apt");
pub(crate) const APT_CONFIG: Tool = Tool::new("apt-config", "apt", "apt");
pub(crate) const DPKG_DEB: Tool = Tool::new("dpkg-deb", "dpkg", "dpkg");
pub(crate) const MMDEBSTRAP: Tool = Tool::new("mmdebstrap", "mmdebstrap", "mmdebstrap");
pub(crate) const UNSHARE: Tool = Tool::new("unshare", "util-linux", "util-linux");
pub(crate) const NEWUIDMAP: Tool = Tool::new("newuidmap", "uidmap", "shadow-utils");

/// What a program may need of the caller's environment; everything else stays out.
const KEPT: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "HOME",
    "USER",
];
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A longer line is cut; the rest counts as the next one.
const MAX_LINE: u64 = 8 << 10;
/// Lines kept for an error message, and how many of them it shows.
const KEPT_LINES: usize = 200;
const SHOWN_LINES: usize = 6;

impl Tool {
    const fn new(name: &'static str, debian: &'static str, fedora: &'static str) -> Self {
        Self { name, debian, fedora }
    }

    /// Finds the program, in the system's own directories too: those of `sbin` are not on
    /// everybody's path.
    ///
    /// # Errors
    /// [`Error::MissingTool`].
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let path = search_path();
        env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(self.name))
            .find(|file| is_executable(file))
            .ok_or(Error::MissingTool {
                tool: self.name,
                debian: self.debian,
                fedora: self.fedora,
            })
    }

    /// The program with a clean environment.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.find()?);
        command
            .env_clear()
            .env("PATH", search_path())
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        for key in KEPT {
            if let Some(value) = env::var_os(key) {
                command.env(key, value);
            }
        }
        Ok(command)
    }

    /// Runs a command of this program. `out` reads its standard output to the end in this
    /// thread while `line` gets each line of its standard error in another one.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; the error of `out`, unless the program itself had failed;
    /// [`Error::Tool`] with the program's last words.
    pub(crate) fn run<T>(
        &self,
        mut command: Command,
        cancel: &Cancel,
        mut line: impl FnMut(&str) + Send,
        out: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        cancel.check()?;
        tracing::debug!(?command, "Running");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group =
            Group::start(&mut command, cancel).map_err(Error::io("run", Path::new(command.get_program())))?;
        let stdout = group.child.stdout.take();
        let stderr = group.child.stderr.take();
        let mut tail = Tail::default();
        let (result, ended) = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                if let Some(stderr) = stderr {
                    each_line(stderr, |text| {
                        tail.push(text);
                        line(text);
                    });
                }
            });
            let mut stdout = EndSeen {
                inner: stdout,
                end: false,
            };
            let result = out(&mut stdout);
            // A reader that failed before the end must not wait for a writer that goes on.
            let ended = if result.is_err() && !stdout.end {
                drop(group);
                None
            } else {
                // A tar archive may be followed by more than its end.
                _ = io::copy(&mut stdout, &mut io::sink());
                Some(group.wait())
            };
            _ = reader.join();
            (result, ended)
        });
        cancel.check()?;
        let program = Path::new(command.get_program());
        match ended.transpose().map_err(Error::io("wait for", program))? {
            Some(status) if !status.success() => Err(Error::Tool {
                tool: self.name,
                message: tail.message(status),
            }),
            _ => result,
        }
    }

    /// Runs a command whose output is short and text.
    pub(crate) fn output(&self, command: Command, cancel: &Cancel, limit: u64) -> Result<String> {
        let program = PathBuf::from(command.get_program());
        self.run(
            command,
            cancel,
            |_| {},
            |out| {
                let mut text = Vec::new();
                out.take(limit)
                    .read_to_end(&mut text)
                    .map_err(Error::io("read from", &program))?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            },
        )
    }
}

fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(SYSTEM_PATH);
    path
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Calls `each` for every non-empty line; a carriage return ends a line too.
pub(crate) fn each_line(input: impl Read, mut each: impl FnMut(&str)) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut input).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        for part in line.split(|&b| b == b'\n' || b == b'\r') {
            let text = String::from_utf8_lossy(part);
            let text = text.trim_end();
            if !text.is_empty() {
                each(text);
            }
        }
    }
}

/// A standard output that remembers whether its end was read.
struct EndSeen {
    inner: Option<ChildStdout>,
    end: bool,
}

impl Read for EndSeen {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.inner {
            Some(inner) => inner.read(buf)?,
            None => 0,
        };
        self.end |= read == 0 && !buf.is_empty();
        Ok(read)
    }
}

/// The last lines of a program, for the message of its failure.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    /// The first line that says why all the others came.
    cause: Option<String>,
}

/// What a full disk is called.
pub(crate) const NO_SPACE: &str = "No space left on device";

impl Tail {
    fn push(&mut self, line: &str) {
        if line.contains(NO_SPACE) {
            self.cause.get_or_insert_with(|| line.to_owned());
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    /// The lines that are errors, else the last ones, else the status alone.
    fn message(&self, status: std::process::ExitStatus) -> String {
        if let Some(cause) = &self.cause {
            return cause.trim().to_owned();
        }
        let error = |line: &&String| {
            let line = line.trim_start_matches(['\u{1b}', '[', '0', '1', '3', ';', 'm']);
            line.starts_with("E:") || line.contains("error") || line.contains("NO_PUBKEY")
        };
        let mut shown: Vec<&String> = self.lines.iter().rev().filter(error).take(SHOWN_LINES).collect();
        if shown.is_empty() {
            shown = self.lines.iter().rev().take(SHOWN_LINES).collect();
        }
        shown.reverse();
        shown.dedup();
        if shown.is_empty() {
            return status.to_string();
        }
        shown
            .into_iter()
            .map(|line| line.trim())
            .collect::<Vec<_>>()
            .join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Tool = Tool::new("sh", "dash", "bash");

    fn sh(script: &str) -> Command {
        let mut command = SH.command().unwrap();
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = Tool::new("no-such-program", "deb", "rpm").find().unwrap_err();
        assert!(error.to_string().contains("apt install deb"), "{error}");
    }

    #[test]
    fn the_environment_is_clean() {
        let text = SH.output(sh("env"), &Cancel::new(), 1 << 16).unwrap();
        for line in text.lines() {
            let key = line.split('=').next().unwrap();
            assert!(
                KEPT.contains(&key)
                    || ["PATH", "LC_ALL", "DEBIAN_FRONTEND", "PWD", "SHLVL", "_", "OLDPWD"].contains(&key),
                "{line}"
            );
        }
    }

    #[test]
    fn a_failure_has_the_programs_words() {
        let mut seen = Vec::new();
        let error = SH
            .run(
                sh("echo I: a >&2; echo E: no such thing >&2; echo done >&2; exit 3"),
                &Cancel::new(),
                |line| seen.push(line.to_owned()),
                |out| io::copy(out, &mut io::sink()).map_err(Error::io("read", Path::new("x"))),
            )
            .unwrap_err();
        assert_eq!(error.to_string(), "sh failed: E: no such thing");
        assert_eq!(seen, ["I: a", "E: no such thing", "done"]);
    }

    #[test]
    fn a_reader_that_gives_up_ends_the_program() {
        let error = SH
            .run(
                sh("while :; do echo y; done"),
                &Cancel::new(),
                |_| {},
                |out| {
                    out.read_exact(&mut [0; 4]).unwrap();
                    Err::<(), _>(Error::NotInCatalogue("mine".to_owned()))
                },
            )
            .unwrap_err();
        assert!(matches!(error, Error::NotInCatalogue(_)), "{error}");
    }

    #[test]
    fn cancelling_ends_the_program() {
        let cancel = Cancel::new();
        let other = cancel.clone();
        let error = SH
            .run(
                sh("echo up; sleep 1000"),
                &cancel,
                |_| {},
                |out| {
                    out.read_exact(&mut [0; 3]).unwrap();
                    other.cancel();
                    out.read_to_end(&mut Vec::new())
                        .map_err(Error::io("read", Path::new("x")))
                },
            )
            .unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
    }

    #[test]
    fn lines_are_bounded() {
        let mut input = vec![b'a'; 3 * 8192];
        input.extend_from_slice(b"\rb\n\nc");
        let mut lengths = Vec::new();
        each_line(&input[..], |line| lengths.push(line.len()));
        assert_eq!(lengths, [8192, 8192, 8192, 1, 1]);
    }
}
