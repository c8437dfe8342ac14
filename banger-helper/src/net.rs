//! The one thing that the helper does to the network: a slot's tap on its bridge.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use banger_bus::ErrorKind;
use banger_bus::helper::HelperError;
use banger_model::{GuestBridge, Slot};

/// The taps of the namespace in which the helper lives. Calls block, shortly.
pub trait Net: Send + Sync + 'static {
    /// Makes the slot's tap what it should be: owned by the slot's uid, persistent, up, an
    /// isolated port of the bridge. Does nothing when it is.
    ///
    /// # Errors
    /// When the network is not there, or the kernel refuses.
    fn ensure_tap(&self, slot: Slot, bridge: GuestBridge) -> io::Result<()>;

    /// Removes the slot's tap, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_tap(&self, slot: Slot) -> io::Result<()>;

    /// A queue of the slot's tap, for its VMM.
    ///
    /// # Errors
    /// When there is no tap, or somebody has its queue.
    fn open_tap(&self, slot: Slot) -> io::Result<OwnedFd>;

    /// The taps that there are, whether or not they are as they should be.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn taps(&self) -> io::Result<Vec<Slot>>;
}

/// A tap could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {what} the tap of slot {slot}")]
pub struct TapError {
    what: &'static str,
    slot: Slot,
    #[source]
    source: io::Error,
}

/// [`Net::ensure_tap`] without holding up the others.
///
/// # Errors
/// As there.
pub async fn ensure_tap(net: &Arc<dyn Net>, slot: Slot, bridge: GuestBridge) -> Result<(), TapError> {
    blocking(net, "make", slot, move |net| net.ensure_tap(slot, bridge)).await
}

/// [`Net::remove_tap`] without holding up the others.
///
/// # Errors
/// As there.
pub async fn remove_tap(net: &Arc<dyn Net>, slot: Slot) -> Result<(), TapError> {
    blocking(net, "remove", slot, move |net| net.remove_tap(slot)).await
}

/// [`Net::open_tap`] without holding up the others.
///
/// # Errors
/// As there.
pub async fn open_tap(net: &Arc<dyn Net>, slot: Slot) -> Result<OwnedFd, TapError> {
    blocking(net, "open", slot, move |net| net.open_tap(slot)).await
}

async fn blocking<T: Send + 'static>(
    net: &Arc<dyn Net>,
    what: &'static str,
    slot: Slot,
    work: impl FnOnce(&dyn Net) -> io::Result<T> + Send + 'static,
) -> Result<T, TapError> {
    let net = net.clone();
    let done = tokio::task::spawn_blocking(move || work(&*net)).await;
    let result = done.unwrap_or_else(|error| Err(io::Error::other(error)));
    result.map_err(|source| TapError { what, slot, source })
}

impl From<TapError> for HelperError {
    fn from(error: TapError) -> Self {
        let text = format!(
            "{}\nRun: systemctl status {}",
            crate::journal::chain(&error),
            banger_model::slot::NETWORK_UNIT
        );
        Self::new(ErrorKind::Failed, text)
    }
}
