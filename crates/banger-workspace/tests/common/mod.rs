//! Repositories made by git, and guests that are directories.
#![allow(dead_code, reason = "each test uses its part of it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use banger_workspace::{Cancel, Error, Git, Manifest, Mode, Options, Owner, Payload, Plan};
use tempfile::TempDir;

pub(crate) struct Repo {
    dir: TempDir,
}

/// Whether the tests can run here; says so when not.
pub(crate) fn can_run() -> bool {
    if Git::find().is_ok() {
        return true;
    }
    let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|rung| rung == "unit"), "no git here");
    say("skipped: no git here");
    false
}

pub(crate) fn say(text: &str) {
    io::Write::write_all(&mut io::stdout(), format!("{text}\n").as_bytes()).unwrap();
}

/// Output of a git of the owner's, with no settings but the repository's.
pub(crate) fn git_in(dir: &Path, args: &[&str]) -> Output {
    let who = [("GIT_AUTHOR", "A U Thor"), ("GIT_COMMITTER", "C O Mitter")];
    let mut command = Command::new("git");
    for (role, name) in who {
        command
            .env(format!("{role}_NAME"), name)
            .env(format!("{role}_EMAIL"), "a@example.org")
            .env(format!("{role}_DATE"), "1700000000 +0100");
    }
    command
        .args(["-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_EDITOR", "true")
        .output()
        .unwrap()
}

pub(crate) fn git_ok(dir: &Path, args: &[&str]) -> Vec<u8> {
    let out = git_in(dir, args);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "git {args:?} in {}: {text}", dir.display());
    out.stdout
}

impl Repo {
    /// With two commits.
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(init: &[&str]) -> Self {
        let this = Self::empty(init);
        this.write("a", "1\n");
        this.write("d/b", "2\n");
        this.write("x.sh", "#!/bin/sh\n");
        fs::set_permissions(this.path().join("x.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("a", this.path().join("link")).unwrap();
        this.commit("one");
        this.write("a", "1\n2\n");
        this.commit("two");
        this
    }

    pub(crate) fn empty(init: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("repo")).unwrap();
        let this = Self { dir };
        this.git(&[&["init", "-q", "-b", "main"], init].concat());
        this
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("repo").canonicalize().unwrap()
    }

    /// A path beside the repository.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn git(&self, args: &[&str]) -> Vec<u8> {
        git_ok(&self.path(), args)
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    pub(crate) fn plan(&self, options: &Options) -> Result<Plan, Error> {
        Plan::new(&self.path(), options, &Cancel::new())
    }
}

pub(crate) fn options() -> Options {
    Options {
        owner: Owner::default(),
        ..Options::default()
    }
}

pub(crate) fn untracked() -> Options {
    Options {
        include_untracked: true,
        ..options()
    }
}

pub(crate) fn full_copy() -> Options {
    Options {
        mode: Mode::FullCopy,
        ..options()
    }
}

/// A guest's workspace, filled as the guest's agent does it.
pub(crate) struct Guest {
    dir: TempDir,
    pub(crate) manifest: Option<Manifest>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            manifest: None,
        }
    }

    pub(crate) fn of(plan: &Plan) -> Self {
        let mut guest = Self::new();
        guest.sync(plan);
        guest
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Sends what is needed. Through the record's written form, as it is kept.
    pub(crate) fn sync(&mut self, plan: &Plan) -> Payload {
        let payload = plan.payload(self.manifest.as_ref(), &Cancel::new()).unwrap();
        self.put(&payload);
        self.manifest = Some(Manifest::from_bytes(&payload.manifest.to_bytes()).unwrap());
        payload
    }

    fn put(&self, payload: &Payload) {
        for path in &payload.remove {
            let path = self.path().join(path);
            let removed = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir(&path)
            } else {
                fs::remove_file(&path)
            };
            if let Err(e) = removed {
                assert_eq!(e.kind(), io::ErrorKind::NotFound, "{}: {e}", path.display());
            }
        }
        for part in &payload.parts {
            for path in &part.paths {
                copy(&part.root.join(path), &self.path().join(path));
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let metadata = fs::symlink_metadata(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    if metadata.is_dir() {
        fs::create_dir_all(to).unwrap();
        return;
    }
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    if to.is_dir() && !to.is_symlink() {
        fs::remove_dir(to).unwrap();
    }
    _ = fs::remove_file(to);
    if metadata.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else {
        fs::copy(from, to).unwrap();
        fs::set_permissions(to, metadata.permissions()).unwrap();
    }
    let stamp = rustix::fs::Timespec {
        tv_sec: metadata.mtime(),
        tv_nsec: metadata.mtime_nsec(),
    };
    let times = rustix::fs::Timestamps {
        last_access: stamp,
        last_modification: stamp,
    };
    rustix::fs::utimensat(rustix::fs::CWD, to, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// What a person sees is the same in both.
pub(crate) fn assert_same(host: &Path, guest: &Path, args: &[&str]) {
    let [host_says, guest_says] = [host, guest].map(|dir| {
        let out = git_in(dir, args);
        let text = [&out.stdout[..], &out.stderr].concat();
        (out.status.code(), String::from_utf8_lossy(&text).into_owned())
    });
    assert_eq!(host_says, guest_says, "git {args:?}");
}

pub(crate) fn assert_equal(host: &Path, guest: &Path, with_untracked: bool) {
    let untracked = if with_untracked { "-uall" } else { "-uno" };
    assert_same(host, guest, &["status", "--porcelain=v2", "--branch", untracked]);
    assert_same(host, guest, &["status", untracked]);
    assert_same(host, guest, &["log", "-1"]);
    assert_same(host, guest, &["diff"]);
    assert_same(host, guest, &["diff", "--cached"]);
    assert_same(host, guest, &["ls-files", "--stage"]);
    assert_same(host, guest, &["show", "--stat", "HEAD"]);
    let checked = git_in(guest, &["fsck", "--full", "--strict"]);
    let text = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success() && !text.contains("error"), "{text}");
}

/// Every name below a directory with its kind, permissions, times and contents.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let m = fs::symlink_metadata(&path).unwrap();
            let contents = if m.is_file() && m.len() < 10 << 20 {
                format!("{:?}", fs::read(&path).unwrap())
            } else if m.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else {
                String::new()
            };
            let text = format!(
                "{:o} {} {}.{} {}.{} {} {contents}",
                m.mode(),
                m.len(),
                m.mtime(),
                m.mtime_nsec(),
                m.ctime(),
                m.ctime_nsec(),
                m.ino()
            );
            all.insert(path.clone(), text);
            if m.is_dir() {
                dirs.push(path);
            }
        }
    }
    all
}

pub(crate) fn has(plan: &Plan, name: impl AsRef<OsStr>) -> bool {
    plan.list().any(|path| path.as_os_str() == name.as_ref())
}
