//! The image's own init: which one it is, and how PID 1 becomes it.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The order is that of the kernel, and then where systemd lies without a link to it.
const CANDIDATES: [&str; 5] = [
    "/sbin/init",
    "/usr/sbin/init",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd",
    "/bin/init",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image's init.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageInit {
    /// The name that it is started by.
    pub(super) path: String,
    /// The file behind it.
    program: PathBuf,
}

/// Finds the init of the root file system at `root`, which is `/` except in tests.
pub(super) fn find(root: &Path) -> Option<ImageInit> {
    CANDIDATES.iter().find_map(|candidate| {
        let program = fs::canonicalize(root.join(&candidate[1..])).ok()?;
        let found = fs::metadata(&program).ok()?;
        let executable = found.is_file() && found.permissions().mode() & 0o111 != 0;
        executable.then(|| ImageInit {
            path: (*candidate).to_owned(),
            program,
        })
    })
}

/// Becomes the image's init, with an environment like the kernel's own.
pub(super) fn execute(init: &ImageInit) -> io::Result<Infallible> {
    let error = Command::new(&init.program)
        .arg0(&init.path)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/")
        .env("TERM", "linux")
        .exec();
    let path = &init.path;
    Err(io::Error::other(format!("{path} does not start: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_that_can_run_is_taken() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path()), None);
        file(&root.path().join("bin/init"), 0o755);
        assert_eq!(find(root.path()).unwrap().path, "/bin/init");
        file(&root.path().join("usr/lib/systemd/systemd"), 0o755);
        assert_eq!(find(root.path()).unwrap().path, "/usr/lib/systemd/systemd");
        fs::create_dir_all(root.path().join("sbin")).unwrap();
        std::os::unix::fs::symlink("../usr/lib/systemd/systemd", root.path().join("sbin/init")).unwrap();
        let found = find(root.path()).unwrap();
        assert_eq!(found.path, "/sbin/init");
        assert!(found.program.ends_with("usr/lib/systemd/systemd"));
    }

    #[test]
    fn what_cannot_run_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        file(&root.path().join("sbin/init"), 0o644);
        fs::create_dir_all(root.path().join("bin/init")).unwrap();
        assert_eq!(find(root.path()), None);
    }
}
