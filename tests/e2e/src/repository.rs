//! Repositories of a rig's user, made with the host's own git.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tree_listing::Listing;

use crate::rig::{Out, Rig, finished};

const LIMIT: Duration = Duration::from_secs(60);

/// What its test says; its status is make's for a recipe that failed.
pub const SAYS: &str = "the test has run in ";
/// The file that git does not track, and the one that it ignores.
pub const UNTRACKED: &str = "notes.txt";
pub const IGNORED: &str = "ignored/build";

/// Questions whose answers are the same in the guest as on the host.
pub const QUESTIONS: [&[&str]; 7] = [
    &["status", "--porcelain", "--branch", "--untracked-files=no"],
    &["log", "-1", "--format=fuller"],
    &["diff", "--full-index"],
    &["diff", "--cached", "--full-index", "--binary"],
    &["diff", "HEAD", "--stat"],
    &["ls-files", "--stage"],
    &["branch", "--show-current"],
];

impl Rig {
    /// The host's git in a directory of the rig's.
    pub async fn git(&self, repository: &Path, words: &[&str]) -> Out {
        let mut git = self.program("git");
        // Asking changes nothing, not even what the index knows of files' times.
        git.env("GIT_OPTIONAL_LOCKS", "0")
            .arg("-C")
            .arg(repository)
            .args(words);
        finished(&mut git, LIMIT).await
    }

    /// An empty repository on the branch `main` of a user with a name.
    ///
    /// # Panics
    /// Without git.
    pub async fn empty_repository(&self, name: &str) -> PathBuf {
        let home = self.dir().join("h");
        let config = "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n";
        fs::write(home.join(".gitconfig"), config).expect("the rig is writable");
        let repository = home.join(name);
        fs::create_dir(&repository).expect("the name is new");
        self.git(&repository, &["init", "--quiet"]).await.ok();
        repository
    }

    /// A repository with two commits, files of every kind, and every kind of change since. Its
    /// `make test` fails with make's status.
    ///
    /// # Panics
    /// Without git.
    pub async fn repository(&self, name: &str) -> PathBuf {
        let repository = self.empty_repository(name).await;
        committed(&repository);
        self.commit(&repository, "First").await;
        write(&repository, "src/second.c", b"int second;\n");
        self.commit(&repository, "Second\n\nWith a body.").await;
        self.changed(&repository).await;
        repository
    }

    /// Commits everything that is not ignored.
    pub async fn commit(&self, repository: &Path, message: &str) {
        self.git(repository, &["add", "--all"]).await.ok();
        self.git(repository, &["commit", "--quiet", "-m", message])
            .await
            .ok();
    }

    /// What git does not know as a commit yet: staged, not staged, untracked, ignored.
    async fn changed(&self, repository: &Path) {
        write(repository, "README", b"changed, and not staged\n");
        write(repository, "src/first.c", b"int staged;\n");
        self.git(repository, &["add", "src/first.c"]).await.ok();
        write(repository, "src/first.c", b"int staged_and_changed;\n");
        write(repository, "new file", b"new and staged\n");
        self.git(repository, &["add", "new file"]).await.ok();
        self.git(repository, &["rm", "--quiet", "gone-staged"]).await.ok();
        fs::remove_file(repository.join("gone")).expect("it was made");
        mode(repository, "mode", 0o755);
        fs::remove_file(repository.join("link")).expect("it was made");
        symlink("src/second.c", repository.join("link")).expect("it is gone");
        write(repository, UNTRACKED, b"not tracked\n");
        write(repository, IGNORED, b"never copied\n");
    }
}

/// Everything in a repository that bringing results out must leave alone: the work tree, the
/// index, HEAD, the configuration, the hooks, the host's own branches. Objects and what is below
/// `refs/banger` may be added.
///
/// # Panics
/// When it cannot be read.
pub fn untouched(repository: &Path) -> Listing {
    let mut listing = tree_listing::list(repository).expect("the repository can be read");
    let added = |path: &str| {
        [".git/objects", ".git/refs/banger"]
            .iter()
            .any(|dir| path.starts_with(dir))
    };
    listing.retain(|path, _| !added(path));
    for dir in [".git", ".git/refs"] {
        if let Some(fields) = listing.get_mut(dir) {
            fields.remove("mtime");
        }
    }
    listing
}

fn committed(repository: &Path) {
    let recipe = format!("test:\n\t@echo {SAYS}`pwd`\n\t@sh ./run-test\n");
    write(repository, "Makefile", recipe.as_bytes());
    write(
        repository,
        "run-test",
        b"cat README src/*.c | wc -c\necho to-err >&2\nexit 3\n",
    );
    for name in ["README", "src/first.c", "gone", "gone-staged", "mode"] {
        write(repository, name, format!("{name} as committed\n").as_bytes());
    }
    write(repository, ".gitignore", b"ignored/\n");
    write(repository, "deep/er/still/für", b"x");
    let every_byte: Vec<u8> = (0..=255).collect();
    write(repository, "binary", &every_byte);
    write(repository, "empty", b"");
    write(repository, "program", b"#!/bin/sh\necho program\n");
    mode(repository, "program", 0o755);
    fs::write(
        repository.join(OsStr::from_bytes(b"not utf-8 \xff\nin two lines")),
        "odd\n",
    )
    .expect("the file system takes every byte");
    symlink("src/first.c", repository.join("link")).expect("it is new");
    symlink("/etc/hostname", repository.join("outward")).expect("it is new");
    symlink("no/where", repository.join("dangling")).expect("it is new");
}

fn write(repository: &Path, name: &str, content: &[u8]) {
    let path = repository.join(name);
    let dir = path.parent().expect("it is below the repository");
    fs::create_dir_all(dir).expect("the rig is writable");
    fs::write(path, content).expect("the rig is writable");
}

fn mode(repository: &Path, name: &str, mode: u32) {
    fs::set_permissions(repository.join(name), fs::Permissions::from_mode(mode))
        .expect("the file was written");
}
