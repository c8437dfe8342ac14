//! Errors on the bus: a name that programs match on and a text for people.

use std::fmt;

use zbus::message::{Header, Message};
use zbus::names::ErrorName;

pub type Result<T> = std::result::Result<T, Error>;

/// An error of the contract. The first line of `message` says what failed and names the object;
/// the second, where there is one, says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident),+ $(,)?) => {
        /// What kind of failure it is. Each has the D-Bus name `org.banger.Error.<kind>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind {
            $($(#[$doc])* $kind),+
        }

        impl ErrorKind {
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The D-Bus error name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!("org.banger.Error.", stringify!($kind))),+
                }
            }
        }
    };
}

kinds!(
    NoSuchVm,
    /// A prefix that several VMs share; the text lists them.
    AmbiguousVm,
    VmExists,
    /// Another job works on the object.
    Busy,
    /// The object is not in a state in which this can be done.
    WrongState,
    NoSuchImage,
    ImageExists,
    ImageInUse,
    /// The file is not an image that can be used.
    BadImage,
    NoSuchKernel,
    KernelExists,
    KernelInUse,
    /// The file is not a kernel that can be used.
    BadKernel,
    NoSuchJob,
    InvalidArgument,
    /// The configuration file was refused.
    BadConfig,
    /// A bound of banger or of the host.
    LimitExceeded,
    NoSpace,
    /// A program of the host is missing; the text names its package.
    MissingTool,
    /// No engine can run a guest here.
    EngineUnavailable,
    /// The VMM could not be started or ended by itself.
    EngineFailed,
    /// The guest never became ready.
    BootFailed,
    /// The guest's agent does not answer.
    GuestUnreachable,
    /// The command cannot be executed in the guest (status 126).
    NotExecutable,
    Timeout,
    Cancelled,
    /// Something that must be fetched could not be.
    FetchFailed,
    /// A registry wants a login, or refuses the one it was given.
    LoginRequired,
    /// The root helper is not there or does not answer.
    HelperUnavailable,
    /// polkit refuses, or wants a password that nobody was asked for.
    NotAuthorized,
    NoSuchSlot,
    /// The directory is in no git repository, or in one that cannot be used.
    BadRepository,
    /// The VM has no workspace.
    NoWorkspace,
    /// Changes in the guest, or of the repository, would be overwritten; the text lists them.
    WouldOverwrite,
    /// The guest sent what cannot be taken.
    BadGuest,
    /// A state directory or database that this version must not touch.
    StoreUnusable,
    /// Everything else; the text says what.
    Failed,
);

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Adds what to do about it, as a second line.
    #[must_use]
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.message.push('\n');
        self.message.push_str(hint.as_ref());
        self
    }

    /// Reads an error back from its name and text, as they come in a job's outcome.
    pub fn from_name(name: &str, message: &str) -> Self {
        let kind = ErrorKind::ALL.iter().copied().find(|kind| kind.name() == name);
        match kind {
            Some(kind) => Self::new(kind, message),
            None => Self::new(ErrorKind::Failed, format!("{message} ({name})")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<zbus::Error> for Error {
    /// What a client sees: an error of the contract as itself, everything else as `Failed`.
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => {
                Self::from_name(name.as_str(), &text.unwrap_or_default())
            }
            zbus::Error::FDO(error) => match *error {
                zbus::fdo::Error::InvalidArgs(text) => Self::new(ErrorKind::InvalidArgument, text),
                zbus::fdo::Error::UnknownObject(text) => {
                    Self::new(ErrorKind::Failed, format!("No such object: {text}"))
                }
                other => Self::new(ErrorKind::Failed, format!("Cannot talk to bangerd: {other}")),
            },
            other => Self::new(ErrorKind::Failed, format!("Cannot talk to bangerd: {other}")),
        }
    }
}

impl zbus::DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.message.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str(self.kind.name()).expect("the names of the kinds are valid")
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_name() {
        for &kind in ErrorKind::ALL {
            assert_eq!(Error::from_name(kind.name(), "x").kind, kind);
            assert!(ErrorName::try_from(kind.name()).is_ok());
        }
        assert_eq!(
            Error::from_name("org.example.Odd", "x").message,
            "x (org.example.Odd)"
        );
    }
}
