//! What a session runs: a command by the user's shell as OpenSSH does it, a login shell, or,
//! where the image has no shell at all, the command's words as they stand.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::paths;
use crate::users::User;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A shell where the user's own is not there. Busybox is many programs by their names.
const SHELLS: [(&str, &str); 5] = [
    ("/bin/sh", "sh"),
    ("/usr/bin/sh", "sh"),
    ("/bin/busybox", "sh"),
    ("/usr/bin/busybox", "sh"),
    ("/busybox/sh", "sh"),
];

/// What the client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    Command(Vec<u8>),
    /// Words quoted for a shell, but for none to read: a start of a shell less.
    Words(Vec<u8>),
    Shell,
    Sftp,
}

/// Why nothing can be started; the text goes to the client's standard error.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("There is no shell in this image")]
    NoShell,
    #[error("The command has a quote that does not end")]
    Unbalanced,
    #[error("The command is empty")]
    Empty,
    #[error("The directory {0:?} does not exist")]
    NoDirectory(String),
}

impl Refused {
    /// The exit status, by the shells' convention.
    pub(super) fn status(&self) -> u32 {
        match self {
            Self::NoShell => 127,
            Self::Unbalanced => 2,
            Self::Empty => 0,
            Self::NoDirectory(_) => 126,
        }
    }
}

/// The exit status of a program that the kernel does not start.
pub(super) fn status_of(error: &std::io::Error) -> u32 {
    match error.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    }
}

/// The command with its arguments, its directory and the user's own environment.
pub(super) fn prepare(program: &Program, user: &User, workdir: Option<&str>) -> Result<Command, Refused> {
    let shell = find_shell(user);
    let mut command = match (program, &shell) {
        (Program::Sftp, _) => {
            let mut command = Command::new(paths::PROGRAM);
            command.arg("sftp");
            command
        }
        (Program::Command(line), Some((path, name))) => {
            let mut command = Command::new(path);
            command.arg0(name).arg("-c").arg(OsStr::from_bytes(line));
            command
        }
        (Program::Command(line), None) | (Program::Words(line), _) => {
            let words = split(line).ok_or(Refused::Unbalanced)?;
            let (name, arguments) = words.split_first().ok_or(Refused::Empty)?;
            let mut command = Command::new(OsStr::from_bytes(name));
            command.args(arguments.iter().map(|word| OsStr::from_bytes(word)));
            command
        }
        (Program::Shell, Some((path, name))) => {
            let mut command = Command::new(path);
            command.arg0(format!("-{name}"));
            command
        }
        (Program::Shell, None) => return Err(Refused::NoShell),
    };
    command.env_clear();
    command.env("PATH", PATH);
    command.env("HOME", &user.home);
    command.env("USER", &user.name);
    command.env("LOGNAME", &user.name);
    command.env("SHELL", shell.as_ref().map_or(&user.shell, |(path, _)| path));
    command.current_dir(directory(user, workdir)?);
    Ok(command)
}

/// Where the process starts: what was asked for must be there, the home need not.
fn directory(user: &User, workdir: Option<&str>) -> Result<PathBuf, Refused> {
    match workdir {
        Some(wanted) => {
            let path = user.home.join(wanted);
            if path.is_dir() {
                Ok(path)
            } else {
                Err(Refused::NoDirectory(wanted.to_owned()))
            }
        }
        None if user.home.is_dir() => Ok(user.home.clone()),
        None => Ok(PathBuf::from("/")),
    }
}

/// A shell and the name it is started by.
fn find_shell(user: &User) -> Option<(PathBuf, String)> {
    if is_executable(&user.shell) {
        let name = user.shell.file_name()?.to_string_lossy().into_owned();
        return Some((user.shell.clone(), name));
    }
    SHELLS
        .iter()
        .find(|(path, _)| is_executable(Path::new(path)))
        .map(|&(path, name)| (PathBuf::from(path), name.to_owned()))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Splits a command into words by the shell's rules of quoting (POSIX, "2.2 Quoting"), without
/// any expansion. None when a quote does not end.
pub(super) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    // Some while inside a word, which may be empty: `''` is one.
    let mut word: Option<Vec<u8>> = None;
    let mut rest = line.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take()),
            b'\\' => match rest.next() {
                // A line that goes on.
                Some(b'\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => word.get_or_insert_default().push(b'\\'),
            },
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        b'\'' => break,
                        quoted => word.push(quoted),
                    }
                }
            }
            b'"' => double_quoted(&mut rest, word.get_or_insert_default())?,
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

/// In double quotes a backslash escapes only what would be special there.
fn double_quoted(rest: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Option<()> {
    loop {
        match rest.next()? {
            b'"' => return Some(()),
            b'\\' => match rest.next()? {
                b'\n' => {}
                escaped @ (b'$' | b'`' | b'"' | b'\\') => word.push(escaped),
                other => word.extend([b'\\', other]),
            },
            other => word.push(other),
        }
    }
}

/// Whether a variable of this name can be in an environment.
pub(super) fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split(line.as_bytes())?.into_iter();
        Some(words.map(|word| String::from_utf8(word).unwrap()).collect())
    }

    #[test]
    fn quoting_follows_the_shell() {
        for (line, expected) in [
            ("a b  c", vec!["a", "b", "c"]),
            (" a\t\n", vec!["a"]),
            ("'a b'c", vec!["a bc"]),
            ("a '' \"\"", vec!["a", "", ""]),
            (r#""a\"b\c\\" d\ e"#, vec![r#"a"b\c\"#, "d e"]),
            (r"'it'\''s'", vec!["it's"]),
            ("a\\\nb", vec!["ab"]),
            ("$HOME `x` *", vec!["$HOME", "`x`", "*"]),
            ("", vec![]),
            ("\\", vec!["\\"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line:?}");
        }
        for line in ["'a", "\"a", "\"a\\", "a 'b"] {
            assert_eq!(words(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_shell_runs_a_command_and_is_a_login_shell_without_one() {
        let mut user = crate::users::find("root").unwrap();
        user.shell = "/bin/sh".into();
        let command = prepare(&Program::Command(b"exit 7".to_vec()), &user, None).unwrap();
        assert_eq!(command.get_program(), "/bin/sh");
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["-c", "exit 7"]);
        let shell = prepare(&Program::Shell, &user, Some("/")).unwrap();
        assert_eq!(shell.get_args().count(), 0);
        assert_eq!(shell.get_current_dir(), Some(Path::new("/")));
    }

    #[test]
    fn words_need_no_shell() {
        let user = crate::users::find("root").unwrap();
        let words = Program::Words(b"'printf' '%s|' '$HOME' 'a  b'".to_vec());
        let output = prepare(&words, &user, Some("/")).unwrap().output().unwrap();
        assert_eq!(output.stdout, b"$HOME|a  b|");
        let missing = Program::Words(b"'no-such-program'".to_vec());
        let error = prepare(&missing, &user, Some("/")).unwrap().output().unwrap_err();
        assert_eq!(status_of(&error), 127);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let user = crate::users::find("root").unwrap();
        let refused = prepare(&Program::Shell, &user, Some("/no/such")).unwrap_err();
        assert_eq!(refused, Refused::NoDirectory("/no/such".into()));
        assert_eq!(refused.status(), 126);
    }

    #[test]
    fn names_of_variables() {
        assert!(is_variable_name("A.b-c"));
        for name in ["", "A=B", "A\0"] {
            assert!(!is_variable_name(name));
        }
    }
}
