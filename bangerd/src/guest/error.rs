//! What can go wrong on the way to a guest.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use banger_bus::ErrorKind;

use super::agent::Gone;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Cannot {what} {}", .path.display())]
    File {
        /// A verb, as "read".
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("Not a private key that can be used: {}", .path.display())]
    Key {
        path: PathBuf,
        source: russh::keys::ssh_key::Error,
    },
    #[error("The private key {} is encrypted", .0.display())]
    EncryptedKey(PathBuf),
    #[error("The private key {} is of type {kind}", .path.display())]
    KeyType { path: PathBuf, kind: String },
    #[error("Cannot make a key")]
    MakeKey(#[source] russh::keys::ssh_key::Error),
    #[error("Not a host key: {0:?}")]
    HostKey(String),
    #[error("Cannot connect to the guest's agent at {address}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("The guest's agent at {0} did not answer in time")]
    ConnectTimeout(SocketAddr),
    #[error("The agent at {0} is not the guest's: it has another host key")]
    WrongHostKey(SocketAddr),
    #[error("The guest's agent refused the owner's key")]
    Refused,
    #[error("The connection to the guest's agent broke")]
    Ssh(#[source] russh::Error),
    #[error("The guest's agent refused {0}")]
    Request(&'static str),
    #[error("The guest's agent does not answer")]
    NoAnswer,
    #[error("The guest's agent gave no usable answer to {0}")]
    Answer(&'static str),
    #[error("The connection to the guest ended while the command ran")]
    Lost,
    #[error("The {} while the command ran", match .0 { Gone::Restarted => "guest restarted", Gone::Ended => "VM ended" })]
    Gone(Gone),
}

impl Error {
    pub(crate) fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            what,
            path: path.to_owned(),
            source,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::File { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                ErrorKind::NoSpace
            }
            Self::Key { .. } | Self::EncryptedKey(_) | Self::KeyType { .. } => ErrorKind::BadConfig,
            Self::File { .. } | Self::MakeKey(_) | Self::HostKey(_) => ErrorKind::Failed,
            Self::Answer(_) => ErrorKind::BadGuest,
            Self::Request(_) => ErrorKind::NotExecutable,
            Self::Connect { .. }
            | Self::ConnectTimeout(_)
            | Self::WrongHostKey(_)
            | Self::Refused
            | Self::NoAnswer
            | Self::Ssh(_)
            | Self::Lost
            | Self::Gone(_) => ErrorKind::GuestUnreachable,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Key { .. } | Self::KeyType { .. } => {
                Some("Set ssh_key_path to an ed25519 or ECDSA key of OpenSSH's format, or leave it out.")
            }
            Self::EncryptedKey(_) => {
                Some("Set ssh_key_path to a key without a passphrase, or leave it out: banger makes one.")
            }
            _ => None,
        }
    }
}

impl From<Error> for banger_bus::Error {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        let out = Self::new(error.kind(), text);
        match error.hint() {
            Some(hint) => out.hint(hint),
            None => out,
        }
    }
}
