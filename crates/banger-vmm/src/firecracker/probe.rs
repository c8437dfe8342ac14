//! Which Firecracker is there, and whether it may be used.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::Firecracker;
use crate::qemu::Version;
use crate::roots::changed_by_others;

/// Where `banger engine install firecracker` puts it.
pub const INSTALL_PLACE: &str = "/usr/local/lib/banger/firecracker";
/// Where a Firecracker is looked for, in this order: as administrators and packages install it.
/// PATH is of no account, the program runs as another user.
pub const PLACES: [&str; 4] = [
    INSTALL_PLACE,
    "/usr/lib/banger/firecracker",
    "/usr/local/bin/firecracker",
    "/usr/bin/firecracker",
];
/// The first version of the 1.14 line that can be used: before it a guest's root can write
/// beyond a buffer of the VMM (CVE-2026-5747, from 1.13 on).
const MIN_VERSION: Version = version(1, 14, 4);
/// And of the 1.15 line.
const MIN_NEXT_VERSION: Version = version(1, 15, 1);
/// How long Firecracker may take to print its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Why a Firecracker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FirecrackerError {
    #[error("No Firecracker found in {}: install it by `sudo banger engine install firecracker`", PLACES.join(", "))]
    Missing,
    #[error("{binary:?} is Firecracker {found}, and at least {MIN_VERSION} is needed")]
    TooOld { binary: PathBuf, found: Version },
    #[error(
        "{binary:?} is Firecracker {found}, which has a known hole (CVE-2026-5747): install {MIN_NEXT_VERSION} or later"
    )]
    Vulnerable { binary: PathBuf, found: Version },
    #[error("{0:?} did not say which version of Firecracker it is")]
    NoVersion(PathBuf),
    #[error("{path:?} could be changed by others than root, so {binary:?} is not used")]
    NotRoots { binary: PathBuf, path: PathBuf },
    #[error("Cannot run {binary:?}")]
    Run {
        binary: PathBuf,
        #[source]
        source: io::Error,
    },
}

const fn version(major: u32, minor: u32, micro: u32) -> Version {
    Version { major, minor, micro }
}

/// Finds a Firecracker that only root can change and that may be used.
///
/// # Errors
/// When there is none, or the one that is there must not be used.
pub async fn installed() -> Result<Firecracker, FirecrackerError> {
    examine(&place()?).await
}

/// Where a Firecracker is that only root can change. The first one in [`PLACES`] counts: a bad
/// one there is an error, not skipped, as whoever put it there wants to know.
///
/// # Errors
/// When there is none, or others can change it.
pub fn place() -> Result<PathBuf, FirecrackerError> {
    let found = PLACES.iter().map(Path::new).find(|path| path.exists());
    let binary = found.ok_or(FirecrackerError::Missing)?;
    roots_alone(binary)?;
    Ok(binary.to_owned())
}

/// Asks a binary for its version, and checks it.
///
/// # Errors
/// When it does not run, or must not be used.
pub async fn examine(binary: &Path) -> Result<Firecracker, FirecrackerError> {
    let no_version = || FirecrackerError::NoVersion(binary.to_owned());
    let output = Command::new(binary)
        .arg("--version")
        .env_clear()
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(VERSION_LIMIT, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => {
            let binary = binary.to_owned();
            return Err(FirecrackerError::Run { binary, source });
        }
        Err(_) => return Err(no_version()),
    };
    judge(binary, &String::from_utf8_lossy(&output.stdout))
}

/// What a binary is that has answered `--version` by this text.
///
/// # Errors
/// When that is no version, or one that must not be used.
pub fn judge(binary: &Path, text: &str) -> Result<Firecracker, FirecrackerError> {
    let binary = binary.to_owned();
    let version = parse_version(text).ok_or_else(|| FirecrackerError::NoVersion(binary.clone()))?;
    check_version(&binary, version)?;
    Ok(Firecracker { binary, version })
}

/// Whether this version may be used; `binary` is for the text.
///
/// # Errors
/// [`FirecrackerError::TooOld`], [`FirecrackerError::Vulnerable`].
pub fn check_version(binary: &Path, found: Version) -> Result<(), FirecrackerError> {
    let binary = binary.to_owned();
    if found < MIN_VERSION {
        return Err(FirecrackerError::TooOld { binary, found });
    }
    if found >= version(1, 15, 0) && found < MIN_NEXT_VERSION {
        return Err(FirecrackerError::Vulnerable { binary, found });
    }
    Ok(())
}

/// That nobody but root can change the file or put another in its place.
fn roots_alone(binary: &Path) -> Result<(), FirecrackerError> {
    let binary = binary.to_owned();
    match changed_by_others(&binary) {
        Ok(None) => Ok(()),
        Ok(Some(path)) => Err(FirecrackerError::NotRoots { binary, path }),
        Err(source) => Err(FirecrackerError::Run { binary, source }),
    }
}

/// From `Firecracker v1.14.4` in the first line.
fn parse_version(text: &str) -> Option<Version> {
    parse_number(text.lines().next()?.strip_prefix("Firecracker v")?)
}

/// From `1.14.4`; what follows a `-` is of no account.
pub(super) fn parse_number(text: &str) -> Option<Version> {
    let number = text.split(['-', ' ', '+']).next()?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    let version = version(parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("Firecracker v1.14.4\n\n"), Some(version(1, 14, 4)));
        assert_eq!(
            parse_version("Firecracker v1.17.0-dev\n"),
            Some(version(1, 17, 0))
        );
        for text in [
            "",
            "1.14.4",
            "Firecracker v1.14",
            "Firecracker v1.x.4",
            "Firecracker v1.2.3.4",
        ] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }

    #[test]
    fn versions_with_known_holes_are_refused() {
        let check = |text: &str| check_version(Path::new("/fc"), parse_number(text).unwrap());
        for good in ["1.14.4", "1.14.5", "1.15.1", "1.16.0", "1.17.0-dev", "2.0.0"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for old in ["0.25.0", "1.4.1", "1.13.1", "1.14.0", "1.14.3"] {
            let error = check(old).unwrap_err().to_string();
            assert!(error.contains("at least 1.14.4 is needed"), "{error}");
        }
        let error = check("1.15.0").unwrap_err().to_string();
        assert!(error.contains("CVE-2026-5747"), "{error}");
        assert!(error.contains("1.15.1 or later"), "{error}");
    }

    #[test]
    fn a_binary_that_others_can_change_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let binary = home.path().join("firecracker");
        std::fs::write(&binary, "").unwrap();
        // Whoever runs the test, the directory above is everybody's.
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = roots_alone(&binary).unwrap_err();
        assert!(matches!(error, FirecrackerError::NotRoots { .. }), "{error}");
        assert!(roots_alone(Path::new("/bin/sh")).is_ok());
    }

    #[tokio::test]
    async fn a_program_that_is_no_firecracker_says_nothing() {
        let error = examine(Path::new("/bin/true")).await.unwrap_err();
        assert!(matches!(error, FirecrackerError::NoVersion(_)), "{error}");
        let error = examine(Path::new("/nowhere/firecracker")).await.unwrap_err();
        assert!(matches!(error, FirecrackerError::Run { .. }), "{error}");
    }

    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    #[tokio::test]
    async fn a_real_one_says_its_version() {
        let Some(binary) = std::env::var_os("FIRECRACKER_BIN") else {
            println!("skipped: no firecracker");
            return;
        };
        let firecracker = examine(Path::new(&binary)).await.unwrap();
        assert!(firecracker.version >= MIN_VERSION);
    }
}
