//! The one connection to the system bus. It stays for the daemon's life: systemd asks its name
//! when somebody stops a VM's scope.

use std::time::Duration;

use tokio::sync::Mutex;
use zbus::Connection;
use zbus::connection::Builder;

/// How long the bus may take to let us in.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A connection that is made when it is needed, and again when it was lost.
#[derive(Debug)]
pub(crate) struct SystemBus {
    address: Address,
    open: Mutex<Option<Connection>>,
}

#[derive(Debug)]
enum Address {
    /// `DBUS_SYSTEM_BUS_ADDRESS`, else where D-Bus has it.
    Usual,
    #[cfg(test)]
    Named(String),
}

impl SystemBus {
    pub(crate) fn usual() -> Self {
        Self::at(Address::Usual)
    }

    #[cfg(test)]
    pub(crate) fn named(address: &str) -> Self {
        Self::at(Address::Named(address.to_owned()))
    }

    fn at(address: Address) -> Self {
        Self {
            address,
            open: Mutex::default(),
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// When there is no bus, or it does not answer.
    pub(crate) async fn connection(&self) -> zbus::Result<Connection> {
        let mut open = self.open.lock().await;
        if let Some(connection) = &*open
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let builder = match &self.address {
            Address::Usual => Builder::system(),
            #[cfg(test)]
            Address::Named(address) => Builder::address(address.as_str()),
        };
        let connection = match tokio::time::timeout(CONNECT_LIMIT, builder.build()).await {
            Ok(connection) => connection?,
            Err(_) => return Err(zbus::Error::Failure("the system bus does not answer".to_owned())),
        };
        *open = Some(connection.clone());
        Ok(connection)
    }
}
