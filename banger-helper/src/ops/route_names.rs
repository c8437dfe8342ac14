//! `RouteNames`: has the host's resolver ask the caller's DNS server for names of VMs.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult};

use super::{Details, Op};
use crate::context::Call;

/// Ports below it are given out by root.
const FIRST_PORT: u16 = 1024;

/// Tells the host's resolver, see [`crate::name_routes`].
pub struct RouteNames {
    /// Of the host's address on the link; 0 takes back what was told.
    pub port: u16,
}

impl Op for RouteNames {
    const ACTION: &'static str = "route-names";
    type Output = ();

    fn details(&self, _: &Call) -> Details {
        Details::from([("port", self.port.to_string())])
    }

    async fn apply(self, call: &Call) -> HelperResult<()> {
        let names = &call.context.names;
        match self.port {
            0 => names.withdraw(call.uid).await,
            FIRST_PORT.. => {
                let departure = call.departure.clone();
                names.claim(call.uid, &call.name, self.port, departure).await
            }
            port => Err(HelperError::new(
                ErrorKind::InvalidArgument,
                format!("Not a port of a user's: {port} ({FIRST_PORT} and above)"),
            )),
        }
    }
}
