//! Why the helper did not do what it was asked.

use banger_bus::{Error, ErrorKind};

const INSTALL: &str = "Install it: `sudo banger system install`.";
const ALLOW: &str = "Log in at this machine, or join the group banger: `sudo usermod -aG banger $USER`, then log in anew. Or set `mode = \"user\"` in config.toml.";
const LOOK: &str = "See `systemctl status banger-helper` and `banger doctor`.";

/// Why the helper did not do it. What decides how to go on is told apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no system bus, or no helper on it.
    #[error("System mode is not installed")]
    NotInstalled,
    /// It is installed and does not answer.
    #[error("banger-helper does not answer: {0}")]
    Unreachable(String),
    /// polkit refuses, or wants a password for which nobody could be asked.
    #[error("banger-helper is not allowed to do this for you: {0}")]
    NotAuthorized(String),
    /// The handle means nothing any more.
    #[error("The slot is not this owner's any more")]
    NoSuchSlot,
    /// Its own words.
    #[error("{}", .0.message)]
    Refused(Error),
}

impl Failure {
    /// Whether a daemon that may choose can do without the helper.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::NotInstalled | Self::Unreachable(_) | Self::NotAuthorized(_) => true,
            Self::NoSuchSlot | Self::Refused(_) => false,
        }
    }

    /// What to do about it; empty where its words say it.
    pub(crate) fn way_out(&self) -> &'static str {
        match self {
            Self::NotInstalled => INSTALL,
            Self::Unreachable(_) => LOOK,
            Self::NotAuthorized(_) => ALLOW,
            Self::NoSuchSlot | Self::Refused(_) => "",
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind = match &failure {
            Failure::NotInstalled | Failure::Unreachable(_) => ErrorKind::HelperUnavailable,
            Failure::NotAuthorized(_) => ErrorKind::NotAuthorized,
            Failure::NoSuchSlot => ErrorKind::NoSuchSlot,
            Failure::Refused(error) => return error.clone(),
        };
        let error = Self::new(kind, failure.to_string());
        match failure.way_out() {
            "" => error,
            hint => error.hint(hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_kind_and_a_way_out() {
        for (failure, kind, hinted) in [
            (Failure::NotInstalled, ErrorKind::HelperUnavailable, true),
            (
                Failure::Unreachable("x".into()),
                ErrorKind::HelperUnavailable,
                true,
            ),
            (Failure::NotAuthorized("x".into()), ErrorKind::NotAuthorized, true),
            (Failure::NoSuchSlot, ErrorKind::NoSuchSlot, false),
        ] {
            let error = Error::from(failure);
            assert_eq!(
                (error.kind, error.message.contains('\n')),
                (kind, hinted),
                "{error}"
            );
        }
        let own = Error::new(ErrorKind::LimitExceeded, "Enough");
        assert_eq!(Error::from(Failure::Refused(own.clone())), own);
    }
}
