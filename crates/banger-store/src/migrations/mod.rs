//! The schema, one file for each version. A migration runs once, in order, each in a
//! transaction of its own. It may use nothing but SQL and what its own file defines: the
//! types of the other modules change, and a migration must do in two years what it does now.

mod v1;
mod v2;
mod v3;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{Error, Result};

type Migration = fn(&Transaction<'_>) -> rusqlite::Result<()>;

const MIGRATIONS: [Migration; 3] = [v1::migrate, v2::migrate, v3::migrate];

/// The version that the last migration leads to.
pub(crate) const NEWEST: u32 = MIGRATIONS.len() as u32;

/// Brings a database of `version` to [`NEWEST`].
pub(crate) fn run(connection: &mut Connection, version: u32) -> Result<()> {
    for (version, migration) in (1..).zip(MIGRATIONS).skip(version as usize) {
        apply(connection, version, migration).map_err(|source| Error::Migrate { version, source })?;
    }
    Ok(())
}

fn apply(connection: &mut Connection, version: u32, migration: Migration) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    migration(&transaction)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    /// A row with the columns of version 1; those that came later are empty.
    fn old_row(connection: &Connection) -> String {
        let columns: usize = connection
            .query_row("SELECT count(*) FROM pragma_table_info('vms')", [], |row| {
                row.get(0)
            })
            .unwrap();
        let later = ", NULL".repeat(columns - 22);
        format!("{}{later})", OLD_ROW.trim_end_matches(')'))
    }

    const OLD_ROW: &str = "INSERT INTO vms VALUES ('00000000000000000000000000000001', 'a', 1,
        '{\"name\":\"a\",\"image\":\"i\",\"kernel\":null,\"vcpus\":1,\"memory_mib\":512,
          \"disk_bytes\":1,\"engine\":\"auto\",\"network\":\"public\",\"env\":{},\"labels\":{}}',
        '6.1', '00000000000000000000000000000000', '52:54:00:00:00:01', '', 'running', NULL, '',
        'qemu', 'tcg', 4242, NULL, NULL, NULL, '', '', 1, 2, 3)";

    #[test]
    fn each_older_version_is_brought_up_with_its_rows() {
        for version in 1..NEWEST {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("banger.db");
            let mut connection = Connection::open(&path).unwrap();
            for (number, migration) in (1..=version).zip(MIGRATIONS) {
                apply(&mut connection, number, migration).unwrap();
            }
            connection.execute(&old_row(&connection), []).unwrap();
            drop(connection);
            let seen = Store::open_read_only(&path).unwrap().unwrap().vms().unwrap();
            let store = Store::open(&path).unwrap();
            let vms = store.vms().unwrap();
            assert_eq!((&seen, vms.len()), (&vms, 1), "from version {version}");
            assert_eq!((vms[0].ssh_port, vms[0].slot), (4242, None));
            assert_eq!(vms[0].workspace, None);
            assert_eq!(store.quick_check().unwrap(), None);
        }
    }

    /// What a crash leaves of a migration is nothing.
    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        apply(&mut connection, 1, v1::migrate).unwrap();
        let failing: Migration = |transaction| {
            v2::migrate(transaction)?;
            transaction.execute_batch("ALTER TABLE none ADD COLUMN x")
        };
        assert!(apply(&mut connection, 2, failing).is_err());
        let version: u32 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(version, 1);
        apply(&mut connection, 2, v2::migrate).unwrap();
    }
}
