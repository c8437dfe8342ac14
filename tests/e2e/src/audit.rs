//! A snapshot of everything that a rig occupies, to compare before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::processes::{self, Process};
use crate::rig::Rig;

/// What is there: processes (by their program), what they listen on, files, rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    classes: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Audit {
    /// Looks at a rig. Reads only.
    pub fn take(rig: &Rig) -> Self {
        processes::wait_for_probes(rig.dir());
        Self::of(rig, &processes::of_rig(rig.dir()))
    }

    /// The same, for tests in which daemons come and go.
    pub fn take_without_daemon(rig: &Rig) -> Self {
        processes::wait_for_probes(rig.dir());
        let daemons = rig.pids("bangerd");
        let mut owned = processes::of_rig(rig.dir());
        owned.retain(|process| !daemons.contains(&process.pid));
        Self::of(rig, &owned)
    }

    fn of(rig: &Rig, owned: &[Process]) -> Self {
        let inodes: BTreeSet<u64> = owned.iter().flat_map(|p| processes::sockets(p.pid)).collect();
        let programs = owned.iter().map(|p| format!("{} (pid {})", p.command, p.pid));
        let classes = BTreeMap::from([
            ("process", programs.collect()),
            ("listening port", listening(&inodes)),
            ("unix socket", unix_sockets(rig.dir())),
            ("file", files(rig)),
            ("row", rows(&rig.dirs().database())),
        ]);
        Self { classes }
    }

    /// Fails when the rig occupies more than it did, or has lost something.
    ///
    /// # Panics
    /// With a list of the differences.
    #[track_caller]
    pub fn assert_same(&self, rig: &Rig) {
        self.compare(&Self::take(rig), "");
    }

    /// The counterpart of [`Audit::take_without_daemon`]; the words say after what.
    ///
    /// # Panics
    /// With a list of the differences.
    #[track_caller]
    pub fn assert_same_at(&self, rig: &Rig, what: &str) {
        self.compare(&Self::take_without_daemon(rig), what);
    }

    /// The same as [`Audit::assert_same`] without the files below a directory.
    ///
    /// # Panics
    /// With a list of the differences.
    #[track_caller]
    pub fn assert_same_outside(&self, rig: &Rig, dir: &Path) {
        let without = |mut audit: Self| {
            for files in audit.classes.values_mut() {
                files.retain(|name| !Path::new(name).starts_with(dir));
            }
            audit
        };
        without(self.clone()).compare(&without(Self::take(rig)), "");
    }

    #[track_caller]
    fn compare(&self, after: &Self, what: &str) {
        let mut text = String::new();
        for (class, before) in &self.classes {
            let after = &after.classes[class];
            for left in after.difference(before) {
                _ = writeln!(text, "left behind: {class} {left}");
            }
            for lost in before.difference(after) {
                _ = writeln!(text, "lost: {class} {lost}");
            }
        }
        assert!(text.is_empty(), "The audit found after {what}:\n{text}");
    }
}

/// TCP and UDP sockets among `inodes` that wait for others.
fn listening(inodes: &BTreeSet<u64>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (table, state) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, local, _, st, _, _, _, _, _, inode, ..] = fields[..] else {
                continue;
            };
            if st == state && inode.parse().is_ok_and(|inode| inodes.contains(&inode)) {
                found.insert(format!("{table} {local}"));
            }
        }
    }
    found
}

fn unix_sockets(dir: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|path| Path::new(path).starts_with(dir))
        .map(str::to_owned)
        .collect()
}

/// Every file of the rig. SQLite's side files come and go with its connections.
fn files(rig: &Rig) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![rig.dir().to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path: PathBuf = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(path.clone());
            }
            let name = path.to_string_lossy();
            if !name.ends_with(".db-wal") && !name.ends_with(".db-shm") {
                found.insert(name.into_owned());
            }
        }
    }
    found
}

/// The number of rows of each table.
fn rows(database: &Path) -> BTreeSet<String> {
    let count = || -> rusqlite::Result<BTreeSet<String>> {
        let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut tables =
            db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
        let names: Vec<String> = tables
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        names
            .into_iter()
            .map(|name| {
                let rows: i64 =
                    db.query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| row.get(0))?;
                Ok(format!("{rows} in {name}"))
            })
            .collect()
    };
    if !database.exists() {
        return BTreeSet::new();
    }
    count().unwrap_or_else(|error| BTreeSet::from([format!("cannot be read: {error}")]))
}
