//! The helper's errors: what the whole world knows by the bus's own names, the rest by ours.

use std::fmt;

use zbus::message::{Header, Message};
use zbus::names::ErrorName;

use crate::error::{Error, ErrorKind};

pub type HelperResult<T> = std::result::Result<T, HelperError>;

/// An error of the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelperError {
    /// `org.freedesktop.DBus.Error.AccessDenied`.
    AccessDenied(String),
    /// `org.freedesktop.DBus.Error.InteractiveAuthorizationRequired`: with a password it may be
    /// granted, and the message did not allow to ask for one.
    AuthorizationRequired(String),
    /// One of the contract's own.
    Refused(Error),
}

impl HelperError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Refused(Error::new(kind, message))
    }

    /// A slot that is not there, or not the caller's: nobody learns which.
    pub fn no_such_slot() -> Self {
        Self::new(ErrorKind::NoSuchSlot, "No such slot")
    }
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessDenied(text) | Self::AuthorizationRequired(text) => f.write_str(text),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HelperError {}

impl From<Error> for HelperError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<zbus::Error> for HelperError {
    /// What a client sees.
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => {
                let text = text.unwrap_or_default();
                if name.starts_with("org.banger.") {
                    Self::Refused(Error::from_name(name.as_str(), &text))
                } else {
                    // systemd's, which could not start it: the helper has no such names.
                    Self::new(
                        ErrorKind::HelperUnavailable,
                        format!("Cannot start banger-helper: {text}"),
                    )
                }
            }
            zbus::Error::FDO(error) => match *error {
                zbus::fdo::Error::AccessDenied(text) => Self::AccessDenied(text),
                zbus::fdo::Error::InteractiveAuthorizationRequired(text) => Self::AuthorizationRequired(text),
                zbus::fdo::Error::InvalidArgs(text) => Self::new(ErrorKind::InvalidArgument, text),
                other => Self::new(
                    ErrorKind::HelperUnavailable,
                    format!("Cannot talk to banger-helper: {other}"),
                ),
            },
            other => Self::new(
                ErrorKind::HelperUnavailable,
                format!("Cannot talk to banger-helper: {other}"),
            ),
        }
    }
}

impl From<HelperError> for Error {
    /// What the owner's daemon passes on.
    fn from(error: HelperError) -> Self {
        match error {
            HelperError::AccessDenied(text) | HelperError::AuthorizationRequired(text) => {
                Self::new(ErrorKind::NotAuthorized, text)
            }
            HelperError::Refused(error) => error,
        }
    }
}

impl zbus::DBusError for HelperError {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.to_string(),))
    }

    fn name(&self) -> ErrorName<'_> {
        match self {
            Self::AccessDenied(_) => {
                ErrorName::from_static_str_unchecked("org.freedesktop.DBus.Error.AccessDenied")
            }
            Self::AuthorizationRequired(_) => ErrorName::from_static_str_unchecked(
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
            ),
            Self::Refused(error) => error.name(),
        }
    }

    fn description(&self) -> Option<&str> {
        match self {
            Self::AccessDenied(text) | Self::AuthorizationRequired(text) => Some(text),
            Self::Refused(error) => error.description(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where system mode is off, PID 1 answers for the helper.
    #[test]
    fn what_is_not_the_helper_s_own_is_its_absence() {
        let told = |name: &'static str| {
            let name = ErrorName::from_static_str_unchecked(name);
            let message = Message::method_call("/a", "B").build(&()).unwrap();
            HelperError::from(zbus::Error::MethodError(
                name.into(),
                Some("x".to_owned()),
                message,
            ))
        };
        let HelperError::Refused(error) = told("org.freedesktop.systemd1.NoSuchUnit") else {
            panic!("not refused");
        };
        assert_eq!(error.kind, ErrorKind::HelperUnavailable);
        assert_eq!(
            told("org.banger.Error.NoSuchSlot"),
            HelperError::new(ErrorKind::NoSuchSlot, "x")
        );
    }
}
