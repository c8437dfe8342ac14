//! Intents: what was begun.

use banger_model::VmId;
use rusqlite::{Connection, params};

use crate::error::{Error, Result};
use crate::record::{Intent, NewIntent};
use crate::{Store, vms};

impl Store {
    /// Writes down that an operation begins. On the disk when it returns.
    ///
    /// # Errors
    /// [`Error::NoSuchVm`], and errors of the database.
    pub fn begin(&mut self, intent: &NewIntent) -> Result<i64> {
        self.durable(true)?;
        let id = insert(&self.connection, intent);
        self.durable(false)?;
        id
    }

    /// Writes down that an operation has ended, well or not.
    ///
    /// # Errors
    /// Errors of the database; an intent that is gone already is none.
    pub fn finish(&mut self, intent: i64) -> Result<()> {
        self.connection
            .execute("DELETE FROM intents WHERE id = ?1", [intent])
            .map(drop)
            .map_err(Error::doing("finish an operation"))
    }

    /// All open intents, the oldest first.
    ///
    /// # Errors
    /// [`Error::Damaged`], and errors of the database.
    pub fn intents(&self) -> Result<Vec<Intent>> {
        let mut statement = self
            .connection
            .prepare("SELECT id, vm, operation, created_us FROM intents ORDER BY id")
            .map_err(Error::doing("list operations"))?;
        let rows = statement
            .query_map([], |row| {
                Ok((
                    row.get(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get(3)?,
                ))
            })
            .map_err(Error::doing("list operations"))?;
        rows.map(|row| {
            let (id, vm, operation, created_us) = row.map_err(Error::doing("list operations"))?;
            Ok(Intent {
                id,
                operation: vms::word(&vm, "operation", &operation)?,
                vm: vms::word::<VmId>(&vm, "id", &vm)?,
                created_us,
            })
        })
        .collect()
    }
}

pub(crate) fn insert(connection: &Connection, intent: &NewIntent) -> Result<i64> {
    let vm = intent.vm.to_string();
    let inserted = connection.execute(
        "INSERT INTO intents (vm, operation, created_us) VALUES (?1, ?2, ?3)",
        params![vm, intent.operation.as_str(), intent.created_us],
    );
    match inserted {
        Ok(_) => Ok(connection.last_insert_rowid()),
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(Error::NoSuchVm(vm))
        }
        Err(e) => Err(Error::doing("begin an operation")(e)),
    }
}
