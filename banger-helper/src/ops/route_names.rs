//! `RouteNames`: has the host's resolver ask the caller's DNS server for names of VMs.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult};

use super::{Details, Op};
use crate::context::Call;

/// Tells systemd-resolved.
pub struct RouteNames {
    pub port: u16,
}

impl Op for RouteNames {
    const ACTION: &'static str = "route-names";
    type Output = ();

    fn details(&self, _: &Call) -> Details {
        Details::from([("port", self.port.to_string())])
    }

    async fn apply(self, _: &Call) -> HelperResult<()> {
        Err(HelperError::new(
            ErrorKind::Failed,
            "This build cannot route names",
        ))
    }
}
