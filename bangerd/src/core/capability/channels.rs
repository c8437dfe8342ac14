//! The sockets of the control channel and the monitor. For QEMU they listen already when it gets
//! them, so that it needs no right to make any; Firecracker makes its own, in a directory for
//! nothing else. A later daemon finds both by name.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use async_trait::async_trait;
use banger_bus::Error;
use banger_model::{Slot, VmId};
use banger_vmm::EngineKind;

use super::directory::make;
use super::{Capability, Parts, Site, blocking, remove_file, remove_tree};
use crate::core::registry::Core;
use crate::core::{access, error};

pub(super) struct Channels;

#[async_trait]
impl Capability for Channels {
    async fn prepare(&self, site: &Site<'_>, parts: &Parts) -> Result<(), Error> {
        let paths = site.core.paths(site.vm.id);
        match (site.chosen().await?.engine, site.vm.slot) {
            (EngineKind::Firecracker(_), Some(held)) => {
                let directory = paths.vmm_sockets();
                let directory = blocking(move || shared(&directory, held.slot)).await?;
                parts.fill(|parts| parts.directory = Some(directory));
            }
            _ => {
                let control = listen(&paths.control())?;
                let monitor = listen(&paths.monitor())?;
                parts.fill(|parts| {
                    parts.control = Some(control);
                    parts.monitor = Some(monitor);
                });
            }
        }
        Ok(())
    }

    async fn cleanup(&self, core: &Core, id: VmId) -> Result<(), Error> {
        let paths = core.paths(id);
        let directory = remove_tree(&paths.vmm_sockets());
        let control = remove_file(&paths.control());
        remove_file(&paths.monitor()).and(control).and(directory)
    }
}

/// An empty directory for the sockets of a slot's VMM, to which its owner can connect.
fn shared(directory: &Path, slot: Slot) -> Result<OwnedFd, Error> {
    // A left-over of a run that ended with its daemon: its sockets are in the way of new ones.
    remove_tree(directory)?;
    make(directory)?;
    let opened = File::open(directory).map_err(|e| error::io("open", directory, &e))?;
    access::share_directory(&opened, slot)
        .map_err(|e| error::io("let the VMM make sockets in", directory, &e))?;
    Ok(opened.into())
}

fn listen(path: &Path) -> Result<OwnedFd, Error> {
    // A left-over of a run that ended with its daemon.
    remove_file(path)?;
    UnixListener::bind(path)
        .map(OwnedFd::from)
        .map_err(|e| error::io("listen on", path, &e))
}
