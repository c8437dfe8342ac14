//! The listening sockets of the control channel and the monitor. They are made here and handed
//! to the VMM, so that it needs no right to make any, and a later daemon finds them by name.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use async_trait::async_trait;
use banger_bus::Error;
use banger_model::VmId;

use super::{Capability, Parts, Site, remove_file};
use crate::core::error;
use crate::core::registry::Core;

pub(super) struct Channels;

#[async_trait]
impl Capability for Channels {
    async fn prepare(&self, site: &Site<'_>, parts: &Parts) -> Result<(), Error> {
        let paths = site.core.paths(site.vm.id);
        let control = listen(&paths.control())?;
        let monitor = listen(&paths.monitor())?;
        parts.fill(|parts| {
            parts.control = Some(control);
            parts.monitor = Some(monitor);
        });
        Ok(())
    }

    async fn cleanup(&self, core: &Core, id: VmId) -> Result<(), Error> {
        let paths = core.paths(id);
        let control = remove_file(&paths.control());
        remove_file(&paths.monitor()).and(control)
    }
}

fn listen(path: &Path) -> Result<OwnedFd, Error> {
    // A left-over of a run that ended with its daemon.
    remove_file(path)?;
    UnixListener::bind(path)
        .map(OwnedFd::from)
        .map_err(|e| error::io("listen on", path, &e))
}
