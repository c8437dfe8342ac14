//! The guest's host key: made with the VM, in its directory, for the owner alone.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use async_trait::async_trait;
use banger_bus::Error;
use banger_model::VmId;

use super::{Capability, Parts, Site, blocking, remove_file};
use crate::core::registry::Core;
use crate::core::{error, keys};

pub(super) struct Keys;

#[async_trait]
impl Capability for Keys {
    fn is_made(&self, core: &Core, id: VmId) -> bool {
        core.paths(id).host_key().is_file()
    }

    async fn make(&self, site: &Site<'_>, parts: &Parts) -> Result<(), Error> {
        let path = site.core.paths(site.vm.id).host_key();
        let public = blocking(move || {
            let (private, public) = keys::generate_host_key()?;
            // A half-written one of an earlier try is replaced: no guest has seen it.
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| file.write_all(private.as_bytes()))
                .map_err(|e| error::io("write", &path, &e))?;
            Ok(public)
        })
        .await?;
        parts.fill(|parts| parts.host_key = Some(public));
        Ok(())
    }

    async fn unmake(&self, core: &Core, id: VmId, _: &Parts) -> Result<(), Error> {
        remove_file(&core.paths(id).host_key())
    }
}
