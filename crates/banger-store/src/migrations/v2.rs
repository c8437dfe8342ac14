//! Version 2: the slot that a VM holds in system mode.

use rusqlite::Transaction;

pub(super) fn migrate(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE vms ADD COLUMN slot INTEGER CHECK (slot BETWEEN 0 AND 511);
        ALTER TABLE vms ADD COLUMN slot_handle TEXT CHECK (length(slot_handle) = 32)
            CHECK ((slot IS NULL) = (slot_handle IS NULL));
        ALTER TABLE vms ADD COLUMN slot_bridge TEXT CHECK (length(slot_bridge) <= 32)
            CHECK ((slot IS NULL) = (slot_bridge IS NULL));",
    )
}
