//! Changing what a VM is made of.

use std::sync::Arc;

use banger_bus::{Error, ErrorKind, SetOptions};
use banger_model::{Size, VmSpec};

use super::capability::{blocking, grow_disk};
use super::defaults;
use super::progress::Cancel;
use super::vm::Vm;

impl Vm {
    /// Changes what is given, all of it or nothing. Gives the names of what takes effect with
    /// the next start: everything but labels, where it runs.
    ///
    /// # Errors
    /// `InvalidArgument`, `LimitExceeded`, `Busy`, `NoSpace`.
    pub(crate) async fn set(self: &Arc<Self>, options: SetOptions) -> Result<Vec<String>, Error> {
        // Labels are nobody's but the owner's: they can change whatever goes on.
        let _turn = match machine_of(&options).is_empty() {
            true => None,
            false => Some(self.turn("set", &Cancel::new(), false).await?),
        };
        let before = self.spec();
        let wanted = with(&before, &options)?;
        defaults::check(&wanted, self.core().host())?;
        let runs = self.machine().is_some();
        if !runs && wanted.disk_bytes > before.disk_bytes {
            let (path, bytes) = (self.core().paths(self.id()).root_disk(), wanted.disk_bytes);
            blocking(move || grow_disk(&path, bytes)).await?;
        }
        // Labels may have changed since; they are added to what there is now.
        let mut refused = None;
        let host = self.core().host();
        let written = self.change(|record| match with(&record.spec, &options) {
            Ok(spec) => match defaults::check(&spec, host) {
                Ok(()) => record.spec = spec,
                Err(e) => refused = Some(e),
            },
            Err(e) => refused = Some(e),
        });
        if let Err(e) = written.done().await {
            self.take_back(before).await;
            return Err(e);
        }
        match refused {
            Some(e) => Err(e),
            None if runs => Ok(machine_of(&options)),
            None => Ok(Vec::new()),
        }
    }

    /// What could not be written down does not count. A disk that was lengthened stays so: its
    /// guest does not mind.
    async fn take_back(self: &Arc<Self>, before: VmSpec) {
        self.change(|record| {
            record.spec = VmSpec {
                name: record.spec.name.clone(),
                ..before
            };
        })
        .noted()
        .await;
    }
}

/// The names of what is not a label.
fn machine_of(options: &SetOptions) -> Vec<String> {
    let given = [
        ("vcpus", options.vcpus.is_some()),
        ("memory", options.memory_mib.is_some()),
        ("disk", options.disk_bytes.is_some()),
    ];
    let names = given.into_iter().filter(|(_, given)| *given);
    names.map(|(name, _)| name.to_owned()).collect()
}

fn with(spec: &VmSpec, options: &SetOptions) -> Result<VmSpec, Error> {
    let mut spec = spec.clone();
    spec.vcpus = options.vcpus.unwrap_or(spec.vcpus);
    spec.memory_mib = options.memory_mib.unwrap_or(spec.memory_mib);
    if let Some(bytes) = options.disk_bytes {
        if bytes < spec.disk_bytes {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "Cannot make the disk of VM {} smaller: it has {}, not {}",
                    spec.name,
                    Size::from_bytes(spec.disk_bytes),
                    Size::from_bytes(bytes)
                ),
            )
            .hint("A disk only grows; make another VM with a smaller one."));
        }
        spec.disk_bytes = bytes;
    }
    for key in options.remove_labels.iter().flatten() {
        spec.labels.remove(key);
    }
    let added = options.labels.iter().flatten();
    spec.labels
        .extend(added.map(|(key, value)| (key.clone(), value.clone())));
    Ok(spec)
}
