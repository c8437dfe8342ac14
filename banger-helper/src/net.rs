//! The one thing that the helper does to the network: a slot's tap on its bridge.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use banger_bus::ErrorKind;
use banger_bus::helper::HelperError;
use banger_model::{GuestBridge, Slot};
use banger_net::tap::TapState;
use banger_net::{Check, NetError, tap};

/// The taps of the namespace in which the helper lives; see [`banger_net::tap`]. Calls block,
/// shortly.
pub trait Net: Send + Sync + 'static {
    /// # Errors
    /// As [`tap::make`].
    fn ensure_tap(&self, slot: Slot, bridge: GuestBridge) -> Result<(), NetError>;

    /// # Errors
    /// As [`tap::remove`].
    fn remove_tap(&self, slot: Slot) -> Result<(), NetError>;

    /// # Errors
    /// As [`tap::open_queue`].
    fn open_tap(&self, slot: Slot) -> Result<OwnedFd, NetError>;

    /// # Errors
    /// As [`tap::list`].
    fn taps(&self) -> Result<Vec<TapState>, NetError>;

    /// As [`banger_net::check`].
    fn checks(&self) -> Vec<Check>;

    /// # Errors
    /// As [`banger_net::host_link_index`].
    fn host_link_index(&self) -> Result<u32, NetError>;
}

/// The kernel's.
pub struct KernelNet;

impl Net for KernelNet {
    fn ensure_tap(&self, slot: Slot, bridge: GuestBridge) -> Result<(), NetError> {
        tap::make(slot, bridge)
    }

    fn remove_tap(&self, slot: Slot) -> Result<(), NetError> {
        tap::remove(slot)
    }

    fn open_tap(&self, slot: Slot) -> Result<OwnedFd, NetError> {
        tap::open_queue(slot)
    }

    fn taps(&self) -> Result<Vec<TapState>, NetError> {
        tap::list()
    }

    fn checks(&self) -> Vec<Check> {
        banger_net::check()
    }

    fn host_link_index(&self) -> Result<u32, NetError> {
        banger_net::host_link_index()
    }
}

/// [`Net::ensure_tap`] without holding up the others.
///
/// # Errors
/// As there.
pub async fn ensure_tap(net: &Arc<dyn Net>, slot: Slot, bridge: GuestBridge) -> Result<(), TapError> {
    blocking(net, move |net| net.ensure_tap(slot, bridge)).await
}

/// [`Net::remove_tap`] without holding up the others.
///
/// # Errors
/// As there.
pub async fn remove_tap(net: &Arc<dyn Net>, slot: Slot) -> Result<(), TapError> {
    blocking(net, move |net| net.remove_tap(slot)).await
}

/// [`Net::open_tap`] without holding up the others.
///
/// # Errors
/// As there.
pub async fn open_tap(net: &Arc<dyn Net>, slot: Slot) -> Result<OwnedFd, TapError> {
    blocking(net, move |net| net.open_tap(slot)).await
}

/// [`Net::taps`] without holding up the others.
///
/// # Errors
/// As there.
pub async fn taps(net: &Arc<dyn Net>) -> Result<Vec<TapState>, TapError> {
    blocking(net, |net| net.taps()).await
}

/// [`Net::checks`] without holding up the others.
///
/// # Errors
/// When there can be no more threads.
pub async fn checks(net: &Arc<dyn Net>) -> Result<Vec<Check>, TapError> {
    blocking(net, |net| Ok(net.checks())).await
}

/// A tap could not be made, opened or removed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("Cannot work on taps in a thread")]
    Thread(#[source] tokio::task::JoinError),
}

async fn blocking<T: Send + 'static>(
    net: &Arc<dyn Net>,
    work: impl FnOnce(&dyn Net) -> Result<T, NetError> + Send + 'static,
) -> Result<T, TapError> {
    let net = net.clone();
    let done = tokio::task::spawn_blocking(move || work(&*net)).await;
    Ok(done.map_err(TapError::Thread)??)
}

impl From<TapError> for HelperError {
    fn from(error: TapError) -> Self {
        Self::new(ErrorKind::Failed, crate::journal::chain(&error))
    }
}
