//! What a session runs: a command by the user's shell as OpenSSH does it, a login shell, or,
//! where the image has no shell at all, the command's words as they stand.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
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
    /// The file service, see [`banger_model::agent`].
    Files,
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
    #[error("The directory {0:?} of the image cannot be made: {1}")]
    NotMade(String, String),
}

impl Refused {
    /// The exit status, by the shells' convention.
    pub(super) fn status(&self) -> u32 {
        match self {
            Self::NoShell => 127,
            Self::Unbalanced => 2,
            Self::Empty => 0,
            Self::NoDirectory(_) | Self::NotMade(..) => 126,
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

/// The directory that a process starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workdir<'a> {
    /// The user's home, or `/` where there is none.
    Home,
    /// One that must be there.
    Existing(&'a str),
    /// One that is made where it is not there, as docker does for a process of an image.
    Made(&'a str),
}

/// The command with its arguments, its directory and the user's own environment. `login` says
/// whether a shell starts as one of a login does.
pub(super) fn prepare(
    program: &Program,
    user: &User,
    workdir: Workdir<'_>,
    login: bool,
) -> Result<Command, Refused> {
    let shell = find_shell(user);
    let mut command = match (program, &shell) {
        (Program::Sftp, _) => {
            let mut command = Command::new(paths::PROGRAM);
            command.arg("sftp");
            command
        }
        (Program::Files, _) => {
            let mut command = Command::new(paths::PROGRAM);
            command.arg("files");
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
            command.arg0(if login { format!("-{name}") } else { name.clone() });
            command
        }
        (Program::Shell, None) => return Err(Refused::NoShell),
    };
    command.env_clear();
    command.env("PATH", PATH);
    command.env("HOME", &user.home);
    if !user.name.is_empty() {
        command.env("USER", &user.name);
        command.env("LOGNAME", &user.name);
    }
    command.env("SHELL", shell.as_ref().map_or(&user.shell, |(path, _)| path));
    command.current_dir(directory(user, workdir)?);
    Ok(command)
}

fn directory(user: &User, workdir: Workdir<'_>) -> Result<PathBuf, Refused> {
    let (wanted, made) = match workdir {
        Workdir::Home if user.home.is_dir() => return Ok(user.home.clone()),
        Workdir::Home => return Ok(PathBuf::from("/")),
        Workdir::Existing(wanted) => (wanted, false),
        Workdir::Made(wanted) => (wanted, true),
    };
    let path = user.home.join(wanted);
    if path.is_dir() {
        return Ok(path);
    }
    if !made {
        return Err(Refused::NoDirectory(wanted.to_owned()));
    }
    match DirBuilder::new().recursive(true).mode(0o755).create(&path) {
        Ok(()) => Ok(path),
        Err(error) => Err(Refused::NotMade(wanted.to_owned(), error.to_string())),
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
        let command = prepare(&Program::Command(b"exit 7".to_vec()), &user, Workdir::Home, true).unwrap();
        assert_eq!(command.get_program(), "/bin/sh");
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["-c", "exit 7"]);
        let shell = prepare(&Program::Shell, &user, Workdir::Existing("/"), true).unwrap();
        assert_eq!(shell.get_args().count(), 0);
        assert_eq!(shell.get_current_dir(), Some(Path::new("/")));
        let name = |login| {
            let mut shell = prepare(&Program::Shell, &user, Workdir::Existing("/"), login).unwrap();
            shell
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped());
            let mut shell = shell.spawn().unwrap();
            let input = shell.stdin.take().unwrap();
            std::io::Write::write_all(&mut &input, b"echo $0").unwrap();
            drop(input);
            shell.wait_with_output().unwrap().stdout
        };
        assert_eq!((name(true), name(false)), (b"-sh\n".to_vec(), b"sh\n".to_vec()));
    }

    #[test]
    fn words_need_no_shell() {
        let user = crate::users::find("root").unwrap();
        let words = Program::Words(b"'printf' '%s|' '$HOME' 'a  b'".to_vec());
        let run = |words| {
            let mut command = prepare(words, &user, Workdir::Existing("/"), true).unwrap();
            command.output()
        };
        let output = run(&words).unwrap();
        assert_eq!(output.stdout, b"$HOME|a  b|");
        let missing = Program::Words(b"'no-such-program'".to_vec());
        let error = run(&missing).unwrap_err();
        assert_eq!(status_of(&error), 127);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let user = crate::users::find("root").unwrap();
        let missing = Workdir::Existing("/no/such");
        let refused = prepare(&Program::Shell, &user, missing, true).unwrap_err();
        assert_eq!(refused, Refused::NoDirectory("/no/such".into()));
        assert_eq!(refused.status(), 126);
    }

    #[test]
    fn an_images_directory_is_made() {
        let user = crate::users::find("root").unwrap();
        let root = tempfile::tempdir().unwrap();
        let wanted = root.path().join("a/b").display().to_string();
        let words = Program::Words(b"pwd".to_vec());
        for _again in 0..2 {
            let mut command = prepare(&words, &user, Workdir::Made(&wanted), true).unwrap();
            assert_eq!(command.output().unwrap().stdout, format!("{wanted}\n").as_bytes());
        }
        fs::write(root.path().join("file"), b"").unwrap();
        let below = root.path().join("file/c").display().to_string();
        let refused = prepare(&words, &user, Workdir::Made(&below), true).unwrap_err();
        assert_eq!(refused.status(), 126);
        assert!(refused.to_string().contains("file/c"), "{refused}");
    }

    #[test]
    fn a_number_without_a_name_has_none_in_its_environment() {
        let mut user = crate::users::find("root").unwrap();
        user.name = String::new();
        user.home = "/".into();
        let command = prepare(&Program::Words(b"env".to_vec()), &user, Workdir::Home, true).unwrap();
        let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["HOME", "PATH", "SHELL"]);
    }

    #[test]
    fn names_of_variables() {
        assert!(is_variable_name("A.b-c"));
        for name in ["", "A=B", "A\0"] {
            assert!(!is_variable_name(name));
        }
    }
}
