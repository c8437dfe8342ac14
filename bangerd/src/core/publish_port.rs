//! Which of a VM's ports are reached on the host's loopback, as the owner wants it.

use std::sync::Arc;

use banger_bus::{Error, ErrorKind};
use banger_model::limits::MAX_PORTS;

use super::vm::Vm;

impl Vm {
    /// Notes that a port of the host leads to one of the guest.
    ///
    /// # Errors
    /// When the host's port is published already, or too many are.
    pub(crate) async fn publish_port(self: &Arc<Self>, guest: u16, host: u16) -> Result<(), Error> {
        self.check_port(guest, host)?;
        let mut refused = None;
        let written = self.change(|record| {
            let ports = &mut record.spec.ports;
            if ports.len() >= MAX_PORTS {
                refused = Some(Error::new(
                    ErrorKind::LimitExceeded,
                    format!("Cannot publish more than {MAX_PORTS} ports of a VM"),
                ));
            } else {
                ports.insert(host, guest);
            }
        });
        if let Err(e) = written.done().await {
            self.change(|record| _ = record.spec.ports.remove(&host))
                .noted()
                .await;
            return Err(e);
        }
        refused.map_or(Ok(()), Err)
    }

    /// Whether a port of the host can be published for this VM.
    ///
    /// # Errors
    /// `InvalidArgument` for what leads nowhere, `Failed` naming the VM that has the port.
    pub(crate) fn check_port(&self, guest: u16, host: u16) -> Result<(), Error> {
        if guest == 0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "Not a port of a guest: 0 (1 to 65535)",
            ));
        }
        let vms = self.core().vms();
        let taken = vms.iter().find(|vm| vm.spec().ports.contains_key(&host));
        match taken {
            None => Ok(()),
            Some(vm) => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "Port {host} of the host is published already: it leads to VM {}",
                    vm.name()
                ),
            )
            .hint(format!(
                "Choose another, or take it back: `banger vm port remove {} {host}`.",
                vm.name()
            ))),
        }
    }

    /// Notes that a port of the host is not published any more.
    ///
    /// # Errors
    /// When it was not.
    pub(crate) async fn unpublish_port(self: &Arc<Self>, host: u16) -> Result<(), Error> {
        let mut was = false;
        self.change(|record| was = record.spec.ports.remove(&host).is_some())
            .done()
            .await?;
        if was {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("Port {host} of the host is not published by VM {}", self.name()),
        )
        .hint(format!("See those that are: `banger vm show {}`.", self.name())))
    }
}
