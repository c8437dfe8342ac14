//! Looking for damage.

use crate::Store;
use crate::error::{Error, Result};

impl Store {
    /// What SQLite's quick check finds; nothing when all is well. Reads the whole database.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn quick_check(&self) -> Result<Option<String>> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(Error::doing("check itself"))?;
        Ok((found != "ok").then_some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_database_is_well() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("banger.db")).unwrap();
        assert_eq!(store.quick_check().unwrap(), None);
    }
}
