//! Giving a VM another name.

use std::sync::Arc;

use banger_bus::Error;
use banger_model::VmName;

use super::progress::Cancel;
use super::vm::Vm;

impl Vm {
    /// Renames it for everybody on the host at once; its guest hears of it with the next start.
    ///
    /// # Errors
    /// `VmExists` when another VM has the name, `Busy`.
    pub(crate) async fn rename(self: &Arc<Self>, name: VmName) -> Result<(), Error> {
        // Two renames of one VM keep their order.
        let _turn = self.turn("rename", &Cancel::new(), false).await?;
        let (id, new) = (self.id(), name.clone());
        // The database decides who has a name: nobody is told before it has.
        self.core()
            .database()
            .call(move |store| store.rename(id, &new))
            .done()
            .await?;
        self.change(|record| record.spec.name = name).noted().await;
        Ok(())
    }
}
