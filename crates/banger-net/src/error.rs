use std::io;
use std::path::PathBuf;

use banger_model::slot::{GuestBridge, Slot};

/// What can go wrong with the network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("Cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error("Cannot {what}")]
    Kernel {
        /// An infinitive with its object.
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("The bridge {} does not exist: start {}", .0.name(), banger_model::slot::NETWORK_UNIT)]
    NoBridge(GuestBridge),
    #[error("The link {0} does not exist: start {unit}", unit = banger_model::slot::NETWORK_UNIT)]
    NoLink(&'static str),
    #[error("The tap {} does not exist", .0.tap())]
    NoTap(Slot),
    #[error("The tap {} is in use", .0.tap())]
    TapInUse(Slot),
    /// Another kind of interface, or somebody else's.
    #[error("The interface {} is not banger's: delete it", .0.tap())]
    ForeignTap(Slot),
    #[error("Cannot run nft: install nftables")]
    NoNft(#[source] io::Error),
    /// nft's own words, bounded.
    #[error("Cannot read or load nftables ({table}): {words}")]
    Nft { table: &'static str, words: String },
    #[error("Cannot read or write {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Cannot confine this process")]
    Confine(#[source] io::Error),
    /// Teardown goes on after an error, and returns them all.
    #[error("{}", .0.iter().map(|e| describe(e)).collect::<Vec<_>>().join("; "))]
    Several(Vec<NetError>),
}

impl NetError {
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// An error with its causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_errors_are_told_with_their_causes() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let all = NetError::Several(vec![
            NetError::kernel("delete banger0")(missing()),
            NetError::file("/proc/sys/x")(missing()),
        ]);
        assert_eq!(
            all.to_string(),
            "Cannot delete banger0: entity not found; Cannot read or write /proc/sys/x: entity not found"
        );
    }
}
