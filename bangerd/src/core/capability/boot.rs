//! What the guest boots: the kernel, its command line, and the initramfs that tells the guest
//! who it is.

use std::fs::File;

use async_trait::async_trait;
use banger_bus::Error;
use banger_image::initramfs;
use banger_model::VmId;
use banger_model::guest::{AGENT_PORT, GuestSsh, IDENTITY_VERSION, Identity, ROOT_SERIAL};
use banger_store::VmRecord;
use banger_vmm::{EngineKind, firecracker};

use super::{Capability, Parts, Site, archives, blocking, network};
use crate::core::registry::Core;
use crate::core::{access, error};

pub(super) struct Boot;

#[async_trait]
impl Capability for Boot {
    async fn prepare(&self, site: &Site<'_>, parts: &Parts) -> Result<(), Error> {
        let sources = site.core.sources().clone();
        let dirs = site.core.dirs().clone();
        let host_key = site.core.paths(site.vm.id).host_key();
        let mut identity = identity(site.vm, site.core.authorized_keys());
        let root_disk = site.core.paths(site.vm.id).root_disk();
        let engine = site.chosen().await?.engine;
        let kernel_name = site.vm.kernel.clone();
        let (kernel, initrd) = blocking(move || {
            identity.ssh.host_key =
                std::fs::read_to_string(&host_key).map_err(|e| error::io("read", &host_key, &e))?;
            if let EngineKind::Firecracker(_) = engine {
                let disk = root_disk
                    .metadata()
                    .map_err(|e| error::io("examine", &root_disk, &e))?;
                identity.root_serial = firecracker::disk_serial(&disk);
            }
            let kernel = sources.kernel(&kernel_name)?;
            let modules = archives::modules(&dirs, &kernel)?;
            let guest = archives::guest(&dirs)?;
            let initrd = initramfs::assemble(&modules, &guest, &initramfs::identity_archive(&identity))
                .map_err(|e| error::failed("Cannot assemble the initramfs in memory", &e))?;
            let kernel = File::open(&kernel.vmlinux).map_err(|e| error::io("open", &kernel.vmlinux, &e))?;
            Ok((kernel, initrd))
        })
        .await?;
        parts.fill(|parts| {
            parts.kernel = Some(kernel);
            parts.initrd = Some(initrd);
        });
        Ok(())
    }

    /// The kernel is other VMs' too, and they keep their rights to it.
    async fn cleanup(&self, core: &Core, id: VmId) -> Result<(), Error> {
        let Some((kernel, held)) = core.kernel_and_slot(id) else {
            return Ok(());
        };
        let sources = core.sources().clone();
        blocking(move || match sources.kernel(&kernel) {
            Ok(kernel) => access::take_back(&kernel.vmlinux, |slot| slot != held.slot),
            // With its file its rights are gone.
            Err(_) => Ok(()),
        })
        .await
    }
}

fn identity(vm: &VmRecord, authorized_keys: &[String]) -> Identity {
    Identity {
        version: IDENTITY_VERSION,
        vm_id: vm.id.to_string(),
        hostname: vm.spec.name.to_string(),
        machine_id: vm.machine_id.clone(),
        root_serial: ROOT_SERIAL.to_owned(),
        network: Some(network::identity(vm)),
        ssh: GuestSsh {
            port: AGENT_PORT,
            // Filled in where the file may be read.
            host_key: String::new(),
            authorized_keys: authorized_keys.to_vec(),
        },
        env: vm.spec.env.clone(),
    }
}
