//! Opening the database: what is not ours, or of a newer banger, is not touched.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};
use crate::{Store, migrations};

/// How long a call waits for another process that has the database open: a backup, a shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// Opens the database at `path` for reading and writing; makes it (0600) and its directory
    /// (0700) as needed, and brings it to the newest schema.
    ///
    /// # Errors
    /// [`Error::Newer`] and [`Error::Foreign`] leave every byte as it was.
    pub fn open(path: &Path) -> Result<Self> {
        make_file(path)?;
        // First without the right to write: opening in WAL mode may already write.
        let version = look(path)?;
        let open = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_NOFOLLOW,
        )
        .map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        connection
            .pragma_update(None, "journal_mode", "wal")
            .map_err(open)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(open)?;
        // Hostile content of a replaced file must not run code: no functions in views, no
        // writing of the schema table.
        connection
            .pragma_update(None, "trusted_schema", false)
            .map_err(open)?;
        migrations::run(&mut connection, version)?;
        // A new schema goes into the database itself, where one who only looks can see it.
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(open)?;
        let store = Self { connection };
        store.durable(false)?;
        Ok(store)
    }

    /// Opens the database to look only: nothing is written, not even the files beside it.
    /// `None` when there is none. What a running daemon has not yet moved from its log (-wal)
    /// into the database is not seen: reading the log would need a file of shared locks.
    ///
    /// # Errors
    /// As [`Store::open`]; a database older than this version is an [`Error::Foreign`] only
    /// when it has no tables of ours.
    pub fn open_read_only(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let connection = open_uri(path, "immutable=1")?;
        let version = version(&connection, path)?;
        check(&connection, path, version)?;
        Ok((version > 0).then_some(Self { connection }))
    }

    /// Whether what is committed from now on is flushed to the disk at once.
    pub(crate) fn durable(&self, durable: bool) -> Result<()> {
        let level = if durable { "full" } else { "normal" };
        self.connection
            .pragma_update(None, "synchronous", level)
            .map_err(Error::doing("choose how it writes"))
    }
}

fn make_file(path: &Path) -> Result<()> {
    let make = |at: &Path| {
        let path = at.to_owned();
        move |source| Error::Make { path, source }
    };
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(make(directory))?;
        std::fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(make(directory))?;
    }
    // SQLite would take the umask; the files beside it get the same mode as this one.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(make(path))
}

/// The version of a database that may be opened for writing.
fn look(path: &Path) -> Result<u32> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = PathBuf::from(log);
    // A log that an ended daemon left may hold the version: then it must be read too.
    let mode = if log.metadata().is_ok_and(|log| log.len() > 0) {
        "mode=ro"
    } else {
        "immutable=1"
    };
    let connection = open_uri(path, mode)?;
    let version = version(&connection, path)?;
    check(&connection, path, version)?;
    Ok(version)
}

fn open_uri(path: &Path, mode: &str) -> Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("{uri}?{mode}"), flags).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })
}

fn version(connection: &Connection, path: &Path) -> Result<u32> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Error::Foreign {
                path: path.to_owned(),
            },
            _ => Error::Open {
                path: path.to_owned(),
                source,
            },
        })
}

fn check(connection: &Connection, path: &Path, version: u32) -> Result<()> {
    if version > migrations::NEWEST {
        return Err(Error::Newer {
            path: path.to_owned(),
            found: version,
            known: migrations::NEWEST,
        });
    }
    let tables: u32 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|source| Error::Open {
            path: path.to_owned(),
            source,
        })?;
    if (version == 0) == (tables == 0) {
        Ok(())
    } else {
        Err(Error::Foreign {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_look_beside_a_running_daemon_sees_the_schema() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("banger.db");
        let _daemon = Store::open(&path).unwrap();
        let seen = Store::open_read_only(&path).unwrap().unwrap();
        seen.quick_check().unwrap();
    }

    /// Every file of a directory with its content.
    fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
            .collect()
    }

    #[test]
    fn it_is_made_for_the_owner_alone_and_opened_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state ?#%/banger.db");
        drop(Store::open(&path).unwrap());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let store = Store::open(&path).unwrap();
        assert_eq!(store.vms().unwrap(), []);
    }

    #[test]
    fn a_newer_one_is_refused_and_untouched() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("banger.db");
        drop(Store::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let before = snapshot(home.path());
        for result in [
            Store::open(&path).map(drop),
            Store::open_read_only(&path).map(drop),
        ] {
            assert!(
                matches!(result, Err(Error::Newer { found: 99, .. })),
                "{result:?}"
            );
        }
        assert_eq!(snapshot(home.path()), before);
    }

    #[test]
    fn what_is_not_ours_is_refused_and_untouched() {
        let home = tempfile::tempdir().unwrap();
        let text = home.path().join("text.db");
        std::fs::write(&text, "not a database ".repeat(100)).unwrap();
        let other = home.path().join("other.db");
        let connection = Connection::open(&other).unwrap();
        connection.execute_batch("CREATE TABLE x (y)").unwrap();
        drop(connection);
        let before = snapshot(home.path());
        for path in [text, other] {
            assert!(
                matches!(Store::open(&path), Err(Error::Foreign { .. })),
                "{path:?}"
            );
            assert!(Store::open_read_only(&path).is_err(), "{path:?}");
        }
        assert_eq!(snapshot(home.path()), before);
    }

    #[test]
    fn looking_leaves_no_trace() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("banger.db");
        assert!(Store::open_read_only(&path).unwrap().is_none());
        drop(Store::open(&path).unwrap());
        let before = snapshot(home.path());
        let store = Store::open_read_only(&path).unwrap().unwrap();
        assert_eq!(store.vms().unwrap(), []);
        drop(store);
        assert_eq!(snapshot(home.path()), before);
    }

    #[test]
    fn a_link_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("banger.db");
        std::os::unix::fs::symlink(home.path().join("elsewhere.db"), &path).unwrap();
        assert!(Store::open(&path).is_err());
    }
}
