//! Intents: what was begun.

use banger_model::VmId;
use rusqlite::{Connection, params};

use crate::error::{Error, Result};
use crate::record::{Intent, NewIntent, Operation};
use crate::{Store, vms};

impl Store {
    /// Writes down that an operation begins. On the disk when it returns.
    ///
    /// # Errors
    /// [`Error::NoSuchVm`], and errors of the database.
    pub fn begin(&mut self, intent: &NewIntent) -> Result<()> {
        self.durable(true)?;
        let begun = insert(&self.connection, intent);
        self.durable(false)?;
        begun
    }

    /// Writes down that an operation has ended, well or not.
    ///
    /// # Errors
    /// Errors of the database; that it had not begun is none.
    pub fn finish(&mut self, vm: VmId, operation: Operation) -> Result<()> {
        self.connection
            .execute(
                "DELETE FROM intents WHERE vm = ?1 AND operation = ?2",
                params![vm.to_string(), operation.as_str()],
            )
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

pub(crate) fn insert(connection: &Connection, intent: &NewIntent) -> Result<()> {
    let vm = intent.vm.to_string();
    let inserted = connection.execute(
        "INSERT INTO intents (vm, operation, created_us) VALUES (?1, ?2, ?3)",
        params![vm, intent.operation.as_str(), intent.created_us],
    );
    match inserted {
        Ok(_) => Ok(()),
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(Error::NoSuchVm(vm))
        }
        Err(e) => Err(Error::doing("begin an operation")(e)),
    }
}
