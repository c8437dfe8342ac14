//! Version 3: a VM's workspace. (Specifications may have published ports from here on.)

use rusqlite::Transaction;

pub(super) fn migrate(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE vms ADD COLUMN workspace TEXT CHECK (workspace IS NULL OR json_valid(workspace));",
    )
}
