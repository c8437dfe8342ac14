//! Version 1: VMs and intents. The bounds keep a bug from filling the disk.

use rusqlite::Transaction;

pub(super) fn migrate(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE vms (
            id TEXT PRIMARY KEY CHECK (length(id) = 32),
            name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63),
            spec_version INTEGER NOT NULL,
            spec TEXT NOT NULL CHECK (length(spec) <= 2097152),
            kernel TEXT NOT NULL CHECK (length(kernel) BETWEEN 1 AND 128),
            machine_id TEXT NOT NULL CHECK (length(machine_id) = 32),
            mac TEXT NOT NULL CHECK (length(mac) = 17),
            host_key TEXT NOT NULL CHECK (length(host_key) <= 1024),
            state TEXT NOT NULL CHECK (length(state) <= 32),
            stop_reason TEXT CHECK (length(stop_reason) <= 32),
            state_detail TEXT NOT NULL CHECK (length(state_detail) <= 4096),
            engine TEXT NOT NULL CHECK (length(engine) <= 32),
            accelerator TEXT NOT NULL CHECK (length(accelerator) <= 32),
            ssh_port INTEGER NOT NULL CHECK (ssh_port BETWEEN 0 AND 65535),
            vmm_pid INTEGER,
            vmm_start_time INTEGER,
            vmm_boot_id TEXT CHECK (length(vmm_boot_id) <= 64),
            unit TEXT NOT NULL CHECK (length(unit) <= 255),
            init TEXT NOT NULL CHECK (length(init) <= 4096),
            created_us INTEGER NOT NULL,
            started_us INTEGER NOT NULL,
            ready_us INTEGER NOT NULL,
            CHECK ((vmm_pid IS NULL) = (vmm_start_time IS NULL)),
            CHECK ((vmm_pid IS NULL) = (vmm_boot_id IS NULL))
        ) STRICT;
        CREATE TABLE intents (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            vm TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
            operation TEXT NOT NULL CHECK (length(operation) <= 32),
            created_us INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX intents_by_vm ON intents (vm);",
    )
}
