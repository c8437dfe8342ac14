//! VMs' rows.

use std::fmt::Display;
use std::str::FromStr;

use banger_model::{GuestBridge, Slot, VmId, VmName, VmSpec};
use rusqlite::{Connection, Row, named_params};

use crate::error::{Error, Result};
use crate::record::{HeldSlot, NewIntent, VmRecord, VmmProcess};
use crate::{Store, intents};

/// The form of the `spec` column: [`banger_model::VmSpec`] as JSON.
const SPEC_VERSION: u32 = 1;

impl Store {
    /// All VMs, the oldest first.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a row cannot be understood: a VM that were left out would be
    /// taken for garbage.
    pub fn vms(&self) -> Result<Vec<VmRecord>> {
        let mut statement = self
            .connection
            .prepare("SELECT * FROM vms ORDER BY created_us, id")
            .map_err(Error::doing("list VMs"))?;
        let mut rows = statement.query([]).map_err(Error::doing("list VMs"))?;
        let mut vms = Vec::new();
        while let Some(row) = rows.next().map_err(Error::doing("list VMs"))? {
            vms.push(read(row)?);
        }
        Ok(vms)
    }

    /// Adds a VM and the intent to make it, both or neither. On the disk when it returns.
    ///
    /// # Errors
    /// [`Error::NameTaken`], and errors of the database.
    pub fn add(&mut self, vm: &VmRecord, intent: &NewIntent) -> Result<()> {
        self.durable(true)?;
        let added = add(&mut self.connection, vm, intent);
        self.durable(false)?;
        added
    }

    /// Writes what is known about a VM now.
    ///
    /// # Errors
    /// [`Error::NoSuchVm`], and errors of the database.
    pub fn update(&mut self, vm: &VmRecord) -> Result<()> {
        update(&self.connection, vm)
    }

    /// Gives a VM another name. It counts from here on, whatever name a later [`Store::update`]
    /// carries. On the disk when it returns.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::NoSuchVm`], and errors of the database.
    pub fn rename(&mut self, id: VmId, name: &VmName) -> Result<()> {
        self.durable(true)?;
        let renamed = rename(&self.connection, id, name);
        self.durable(false)?;
        renamed
    }

    /// Forgets a VM and its intents. That it is gone already is no error. Not flushed: after
    /// a crash of the host the row is back with its intent to delete, and is forgotten again.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn forget(&mut self, id: VmId) -> Result<()> {
        self.connection
            .execute("DELETE FROM vms WHERE id = ?1", [id.to_string()])
            .map(drop)
            .map_err(Error::doing("forget a VM"))
    }
}

/// Reads a word of a closed set, or an id.
pub(crate) fn word<T>(id: &str, column: &'static str, text: &str) -> Result<T>
where
    T: FromStr<Err: Display>,
{
    text.parse().map_err(|e: T::Err| Error::Damaged {
        id: id.to_owned(),
        column,
        problem: e.to_string(),
    })
}

fn add(connection: &mut Connection, vm: &VmRecord, intent: &NewIntent) -> Result<()> {
    let transaction = connection
        .transaction()
        .map_err(Error::doing("begin a transaction"))?;
    let inserted = transaction.execute(
        "INSERT INTO vms VALUES (:id, :name, :spec_version, :spec, :kernel, :machine_id, :mac, :host_key,
            :state, :stop_reason, :state_detail, :engine, :accelerator, :ssh_port,
            :vmm_pid, :vmm_start_time, :vmm_boot_id, :unit, :init, :created_us, :started_us, :ready_us,
            :slot, :slot_handle, :slot_bridge, :workspace)",
        named_params! {
            ":id": vm.id.to_string(),
            ":name": vm.spec.name.as_str(),
            ":spec_version": SPEC_VERSION,
            ":spec": spec_text(vm)?,
            ":kernel": vm.kernel.as_str(),
            ":machine_id": vm.machine_id,
            ":mac": vm.mac,
            ":host_key": vm.host_key,
            ":state": vm.state.as_str(),
            ":stop_reason": vm.stop_reason.map(banger_model::StopReason::as_str),
            ":state_detail": detail(vm),
            ":engine": vm.engine,
            ":accelerator": vm.accelerator,
            ":ssh_port": vm.ssh_port,
            ":vmm_pid": vm.vmm.as_ref().map(|vmm| vmm.pid),
            ":vmm_start_time": vm.vmm.as_ref().map(|vmm| vmm.start_time),
            ":vmm_boot_id": vm.vmm.as_ref().map(|vmm| vmm.boot_id.as_str()),
            ":unit": vm.unit,
            ":init": vm.init,
            ":created_us": vm.created_us,
            ":started_us": vm.started_us,
            ":ready_us": vm.ready_us,
            ":slot": vm.slot.map(|held| held.slot.number()),
            ":slot_handle": vm.slot.map(|held| held.handle.to_string()),
            ":slot_bridge": vm.slot.map(|held| held.bridge.name()),
            ":workspace": workspace_text(vm)?,
        },
    );
    match inserted {
        Ok(_) => {}
        Err(e) if taken(&e) => return Err(Error::NameTaken(vm.spec.name.to_string())),
        Err(e) => return Err(Error::doing("add a VM")(e)),
    }
    intents::insert(&transaction, intent)?;
    transaction.commit().map_err(Error::doing("commit"))
}

fn taken(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(e, _)
        if e.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}

/// What may change in a VM's life.
fn update(connection: &Connection, vm: &VmRecord) -> Result<()> {
    let changed = connection
        .execute(
            "UPDATE vms SET spec = :spec, kernel = :kernel, host_key = :host_key, state = :state, stop_reason = :stop_reason,
                state_detail = :state_detail, engine = :engine, accelerator = :accelerator,
                ssh_port = :ssh_port, vmm_pid = :vmm_pid, vmm_start_time = :vmm_start_time,
                vmm_boot_id = :vmm_boot_id, unit = :unit, init = :init,
                started_us = :started_us, ready_us = :ready_us, slot = :slot,
                slot_handle = :slot_handle, slot_bridge = :slot_bridge, workspace = :workspace
            WHERE id = :id",
            named_params! {
                ":id": vm.id.to_string(),
                ":spec": spec_text(vm)?,
                ":kernel": vm.kernel.as_str(),
                ":host_key": vm.host_key,
                ":state": vm.state.as_str(),
                ":stop_reason": vm.stop_reason.map(banger_model::StopReason::as_str),
                ":state_detail": detail(vm),
                ":engine": vm.engine,
                ":accelerator": vm.accelerator,
                ":ssh_port": vm.ssh_port,
                ":vmm_pid": vm.vmm.as_ref().map(|vmm| vmm.pid),
                ":vmm_start_time": vm.vmm.as_ref().map(|vmm| vmm.start_time),
                ":vmm_boot_id": vm.vmm.as_ref().map(|vmm| vmm.boot_id.as_str()),
                ":unit": vm.unit,
                ":init": vm.init,
                ":started_us": vm.started_us,
                ":ready_us": vm.ready_us,
                ":slot": vm.slot.map(|held| held.slot.number()),
                ":slot_handle": vm.slot.map(|held| held.handle.to_string()),
                ":slot_bridge": vm.slot.map(|held| held.bridge.name()),
                ":workspace": workspace_text(vm)?,
            },
        )
        .map_err(Error::doing("update a VM"))?;
    if changed == 0 {
        return Err(Error::NoSuchVm(vm.id.to_string()));
    }
    Ok(())
}

fn rename(connection: &Connection, id: VmId, name: &VmName) -> Result<()> {
    let renamed = connection.execute(
        "UPDATE vms SET name = ?1 WHERE id = ?2",
        [name.as_str(), &id.to_string()],
    );
    match renamed {
        Ok(0) => Err(Error::NoSuchVm(id.to_string())),
        Ok(_) => Ok(()),
        Err(e) if taken(&e) => Err(Error::NameTaken(name.to_string())),
        Err(e) => Err(Error::doing("rename a VM")(e)),
    }
}

fn spec_text(vm: &VmRecord) -> Result<String> {
    serde_json::to_string(&vm.spec).map_err(|e| Error::Damaged {
        id: vm.id.to_string(),
        column: "spec",
        problem: e.to_string(),
    })
}

fn workspace_text(vm: &VmRecord) -> Result<Option<String>> {
    let text = vm.workspace.as_ref().map(serde_json::to_string).transpose();
    text.map_err(|e| Error::Damaged {
        id: vm.id.to_string(),
        column: "workspace",
        problem: e.to_string(),
    })
}

/// The guest has a say in this text: it is cut, not refused.
fn detail(vm: &VmRecord) -> &str {
    let text = &vm.state_detail;
    let mut end = text.len().min(VmRecord::MAX_DETAIL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn read(row: &Row<'_>) -> Result<VmRecord> {
    let id: String = row.get("id").map_err(Error::doing("read a VM"))?;
    let damaged = |column: &'static str, problem: String| Error::Damaged {
        id: id.clone(),
        column,
        problem,
    };
    let get = |column: &'static str| Columns { row, id: &id, column };
    let version: u32 = get("spec_version").value()?;
    if version != SPEC_VERSION {
        return Err(damaged("spec_version", format!("{version}, not {SPEC_VERSION}")));
    }
    let spec: String = get("spec").value()?;
    let vmm = match get("vmm_pid").value()? {
        Some(pid) => Some(VmmProcess {
            pid,
            start_time: get("vmm_start_time").value()?,
            boot_id: get("vmm_boot_id").value()?,
        }),
        None => None,
    };
    // Who only looks may look at a database of version 1.
    let number: Option<u16> = match row.as_ref().column_index("slot") {
        Ok(_) => get("slot").value()?,
        Err(_) => None,
    };
    let slot = match number {
        Some(number) => Some(HeldSlot {
            slot: Slot::new(number).map_err(|e| damaged("slot", e.to_string()))?,
            handle: get("slot_handle").word()?,
            bridge: bridge(&get("slot_bridge").value::<String>()?)
                .ok_or_else(|| damaged("slot_bridge", "no network of banger's".to_owned()))?,
        }),
        None => None,
    };
    let workspace: Option<String> = match row.as_ref().column_index("workspace") {
        Ok(_) => get("workspace").value()?,
        Err(_) => None,
    };
    let workspace = workspace.map(|text| serde_json::from_str(&text)).transpose();
    let stop_reason: Option<String> = get("stop_reason").value()?;
    let mut spec: VmSpec = serde_json::from_str(&spec).map_err(|e| damaged("spec", e.to_string()))?;
    // The one by which it is unique.
    spec.name = get("name").word()?;
    Ok(VmRecord {
        spec,
        kernel: get("kernel").word()?,
        machine_id: get("machine_id").value()?,
        mac: get("mac").value()?,
        host_key: get("host_key").value()?,
        state: get("state").word()?,
        stop_reason: stop_reason
            .map(|reason| word(&id, "stop_reason", &reason))
            .transpose()?,
        state_detail: get("state_detail").value()?,
        engine: get("engine").value()?,
        accelerator: get("accelerator").value()?,
        ssh_port: get("ssh_port").value()?,
        vmm,
        unit: get("unit").value()?,
        init: get("init").value()?,
        created_us: get("created_us").value()?,
        started_us: get("started_us").value()?,
        ready_us: get("ready_us").value()?,
        slot,
        workspace: workspace.map_err(|e| damaged("workspace", e.to_string()))?,
        id: word(&id, "id", &id)?,
    })
}

fn bridge(name: &str) -> Option<GuestBridge> {
    GuestBridge::ALL.into_iter().find(|bridge| bridge.name() == name)
}

/// One column of one VM.
struct Columns<'a> {
    row: &'a Row<'a>,
    id: &'a str,
    column: &'static str,
}

impl Columns<'_> {
    fn value<T: rusqlite::types::FromSql>(&self) -> Result<T> {
        self.row.get(self.column).map_err(|e| Error::Damaged {
            id: self.id.to_owned(),
            column: self.column,
            problem: e.to_string(),
        })
    }

    fn word<T: FromStr<Err: Display>>(&self) -> Result<T> {
        word(self.id, self.column, &self.value::<String>()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use banger_model::{EngineChoice, NetworkMode, StopReason, VmSpec, VmState};

    use super::*;
    use crate::record::Operation;

    fn record(name: &str, byte: u8) -> VmRecord {
        VmRecord {
            id: VmId::from_bytes([byte; 16]),
            spec: VmSpec {
                name: name.parse().unwrap(),
                image: "debian-minimal".parse().unwrap(),
                kernel: None,
                vcpus: 2,
                memory_mib: 512,
                disk_bytes: 1 << 33,
                engine: EngineChoice::Auto,
                network: NetworkMode::Public,
                env: BTreeMap::new(),
                labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
                process: banger_model::Process {
                    user: Some("app:app".to_owned()),
                    command: vec!["serve".to_owned()],
                    ..banger_model::Process::default()
                },
                ports: [(8080, 80)].into(),
            },
            kernel: "6.1.0".parse().unwrap(),
            machine_id: "0".repeat(32),
            mac: "52:54:00:00:00:01".to_owned(),
            host_key: String::new(),
            state: VmState::Creating,
            stop_reason: None,
            state_detail: String::new(),
            engine: String::new(),
            accelerator: String::new(),
            ssh_port: 0,
            vmm: None,
            unit: String::new(),
            init: String::new(),
            created_us: 7,
            started_us: 0,
            ready_us: 0,
            slot: None,
            workspace: None,
        }
    }

    fn intent(vm: &VmRecord, operation: Operation) -> NewIntent {
        NewIntent {
            vm: vm.id,
            operation,
            created_us: 8,
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("banger.db")).unwrap();
        (home, store)
    }

    #[test]
    fn everything_is_read_back() {
        let (_home, mut store) = store();
        let mut vm = record("a", 1);
        store.add(&vm, &intent(&vm, Operation::Create)).unwrap();
        assert_eq!(store.vms().unwrap(), [vm.clone()]);
        vm.state = VmState::Running;
        vm.stop_reason = Some(StopReason::GuestPanic);
        vm.host_key = "ssh-ed25519 AAAA".to_owned();
        vm.vmm = Some(VmmProcess {
            pid: 4_000_000,
            start_time: 1 << 40,
            boot_id: "x".to_owned(),
        });
        vm.ssh_port = 65535;
        vm.slot = Some(HeldSlot {
            slot: Slot::new(511).unwrap(),
            handle: banger_model::SlotHandle::from_bytes([0xa5; 16]),
            bridge: GuestBridge::Closed,
        });
        store.update(&vm).unwrap();
        store.finish(vm.id, Operation::Create).unwrap();
        assert_eq!(store.vms().unwrap(), [vm.clone()]);
        vm.slot = None;
        store.update(&vm).unwrap();
        assert_eq!(store.vms().unwrap(), [vm]);
        assert_eq!(store.intents().unwrap(), []);
    }

    #[test]
    fn a_slot_is_noted_whole_or_not_at_all() {
        let (_home, mut store) = store();
        let mut vm = record("a", 1);
        vm.slot = Some(HeldSlot {
            slot: Slot::new(0).unwrap(),
            handle: banger_model::SlotHandle::from_bytes([1; 16]),
            bridge: GuestBridge::Public,
        });
        store.add(&vm, &intent(&vm, Operation::Create)).unwrap();
        for damage in [
            "slot = 512",
            "slot = NULL",
            "slot_handle = NULL",
            "slot_handle = 'x'",
            "slot_bridge = NULL",
        ] {
            let refused = store.connection.execute(&format!("UPDATE vms SET {damage}"), []);
            assert!(refused.is_err(), "{damage}");
        }
        store
            .connection
            .execute("UPDATE vms SET slot_bridge = 'open'", [])
            .unwrap();
        let error = store.vms().unwrap_err();
        assert!(error.to_string().contains("slot_bridge"), "{error}");
    }

    #[test]
    fn names_are_unique_and_a_refused_one_leaves_no_intent() {
        let (_home, mut store) = store();
        let (first, second) = (record("a", 1), record("a", 2));
        store.add(&first, &intent(&first, Operation::Create)).unwrap();
        let error = store
            .add(&second, &intent(&second, Operation::Create))
            .unwrap_err();
        assert!(matches!(error, Error::NameTaken(name) if name == "a"));
        assert_eq!(store.intents().unwrap().len(), 1);
    }

    #[test]
    fn what_a_vm_should_be_may_change_and_its_name_by_renaming_alone() {
        let (_home, mut store) = store();
        let mut vm = record("a", 1);
        store.add(&vm, &intent(&vm, Operation::Create)).unwrap();
        vm.spec.vcpus = 2;
        vm.spec.labels.insert("k".to_owned(), "v".to_owned());
        store.update(&vm).unwrap();
        let new = "b".parse().unwrap();
        store.rename(vm.id, &new).unwrap();
        // A change that was on its way with the old name does not bring it back.
        vm.spec.memory_mib = 1024;
        store.update(&vm).unwrap();
        vm.spec.name = new;
        assert_eq!(store.vms().unwrap(), [vm]);
    }

    #[test]
    fn a_name_of_another_vm_is_refused() {
        let (_home, mut store) = store();
        let (a, b) = (record("a", 1), record("b", 2));
        for vm in [&a, &b] {
            store.add(vm, &intent(vm, Operation::Create)).unwrap();
        }
        let taken = store.rename(b.id, &a.spec.name).unwrap_err();
        assert!(matches!(taken, Error::NameTaken(name) if name == "a"));
        store.forget(a.id).unwrap();
        store.rename(b.id, &a.spec.name).unwrap();
        assert!(matches!(
            store.rename(a.id, &a.spec.name),
            Err(Error::NoSuchVm(_))
        ));
    }

    #[test]
    fn a_forgotten_vm_takes_its_intents_along() {
        let (_home, mut store) = store();
        let vm = record("a", 1);
        store.add(&vm, &intent(&vm, Operation::Create)).unwrap();
        store.begin(&intent(&vm, Operation::Delete)).unwrap();
        let operations: Vec<_> = store.intents().unwrap().iter().map(|i| i.operation).collect();
        assert_eq!(operations, [Operation::Create, Operation::Delete]);
        store.forget(vm.id).unwrap();
        store.forget(vm.id).unwrap();
        assert_eq!(
            (store.vms().unwrap().len(), store.intents().unwrap().len()),
            (0, 0)
        );
        assert!(matches!(store.update(&vm), Err(Error::NoSuchVm(_))));
        assert!(matches!(
            store.begin(&intent(&vm, Operation::Delete)),
            Err(Error::NoSuchVm(_))
        ));
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let (_home, mut store) = store();
        let mut vm = record("a", 1);
        vm.state_detail = "ä".repeat(VmRecord::MAX_DETAIL);
        store.add(&vm, &intent(&vm, Operation::Create)).unwrap();
        let read = store.vms().unwrap().remove(0).state_detail;
        assert_eq!(read.len(), VmRecord::MAX_DETAIL);
    }

    #[test]
    fn a_damaged_row_is_named_and_not_left_out() {
        let (_home, mut store) = store();
        let vm = record("a", 1);
        store.add(&vm, &intent(&vm, Operation::Create)).unwrap();
        store
            .connection
            .execute("UPDATE vms SET state = 'asleep'", [])
            .unwrap();
        let error = store.vms().unwrap_err();
        assert!(error.to_string().contains("asleep"), "{error}");
    }

    #[test]
    fn what_is_committed_is_there_after_a_crash() {
        let (home, mut store) = store();
        let vm = record("a", 1);
        store.add(&vm, &intent(&vm, Operation::Create)).unwrap();
        // As after kill -9: the files as they are, and no close.
        let copy = home.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for name in ["banger.db", "banger.db-wal"] {
            std::fs::copy(home.path().join(name), copy.join(name)).unwrap();
        }
        let reopened = Store::open(&copy.join("banger.db")).unwrap();
        assert_eq!(reopened.vms().unwrap(), [vm]);
    }
}
