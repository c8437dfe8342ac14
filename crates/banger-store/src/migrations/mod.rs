//! The schema, one file for each version. A migration runs once, in order, each in a
//! transaction of its own. It may use nothing but SQL and what its own file defines: the
//! types of the other modules change, and a migration must do in two years what it does now.

mod v1;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{Error, Result};

type Migration = fn(&Transaction<'_>) -> rusqlite::Result<()>;

const MIGRATIONS: [Migration; 1] = [v1::migrate];

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
