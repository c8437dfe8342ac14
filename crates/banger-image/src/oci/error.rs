//! What can go wrong between here and a registry.

use std::time::Duration;

use crate::digest::Digest;
use crate::error::Error;

/// Why an image cannot be had of its registry. Texts of the network are escaped and cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    #[error("Not found in {host}: {what} (check the name and the tag)")]
    NotFound { host: String, what: String },
    #[error("{}", login(.host, *.refused))]
    LoginRequired {
        host: String,
        /// Credentials were sent, and not accepted.
        refused: bool,
    },
    #[error("{host} has had too many requests{} (a login often raises the limit: docker login {host})", wait(*.after))]
    RateLimited {
        host: String,
        /// What the registry says about the time to wait.
        after: Option<Duration>,
    },
    #[error("It is not made for linux/amd64, only for {}", .have.join(", "))]
    WrongPlatform { have: Vec<String> },
    #[error("The {what} is not one that can be used: {reason}")]
    Unsupported { what: String, reason: String },
    #[error("The {what} is not what its name says: expected {expected}, received {found}")]
    DigestMismatch {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("The {what} has not the size that was announced: expected {expected} bytes, {found}")]
    SizeMismatch {
        what: String,
        expected: u64,
        found: String,
    },
    #[error("The {what} is too large (at most {limit})")]
    TooLarge { what: String, limit: String },
    #[error("The {what} is damaged: {reason}")]
    Malformed { what: String, reason: String },
    #[error("Cannot reach {host}")]
    Unreachable { host: String, source: reqwest::Error },
    #[error(
        "Cannot trust {host} (a certificate of one's own belongs into the system's store, or into a file that SSL_CERT_FILE names)"
    )]
    Tls { host: String, source: reqwest::Error },
    #[error("{host} does not speak TLS (a registry on this machine may do with plain HTTP, by --insecure)")]
    NotTls { host: String, source: reqwest::Error },
    #[error("{host} breaks off each time")]
    BrokenOff { host: String },
    #[error("{host} answers {status}{}", after_colon(.message))]
    Status {
        host: String,
        status: u16,
        /// The registry's own words.
        message: String,
        /// What the registry says about the time to wait.
        after: Option<Duration>,
    },
    #[error("{host} sends a bad redirect: {reason}")]
    Redirect { host: String, reason: String },
    #[error(
        "Plain HTTP is for registries on this machine alone, and {host} is not localhost nor a loopback address: leave --insecure away"
    )]
    InsecureHost { host: String },
    #[error("{host} wants a login that cannot be made: {reason}")]
    Challenge { host: String, reason: String },
    #[error(
        "{host} has no such image, or shows it only after a login, and the one that is stored cannot be used: {reason}"
    )]
    Credentials { host: String, reason: String },
    #[error("It is not in the cache, and the registry is not to be asked")]
    Offline,
    #[error("Cannot use the network")]
    Client { source: reqwest::Error },
}

impl OciError {
    /// Whether a download may go on later where it broke off.
    pub(super) fn may_go_on(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::BrokenOff { .. }
                | Self::RateLimited { .. }
                | Self::Status { .. }
                | Self::LoginRequired { .. }
                | Self::Credentials { .. }
                | Self::Tls { .. }
                | Self::NotTls { .. }
        )
    }

    pub(super) fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed {
            what: what.into(),
            reason: reason.into(),
        }
    }

    pub(super) fn unsupported(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

/// What ends a pull before it is known whose it is.
#[derive(Debug)]
pub(super) enum Failure {
    Oci(OciError),
    Other(Error),
}

impl Failure {
    pub(super) fn of(self, reference: &str) -> Error {
        match self {
            Self::Oci(source) => Error::Oci {
                reference: reference.to_owned(),
                source: Box::new(source),
            },
            Self::Other(error) => error,
        }
    }
}

impl From<OciError> for Failure {
    fn from(error: OciError) -> Self {
        Self::Oci(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Characters of a text from the network that an error repeats.
const SHOWN: usize = 200;

/// A text of strangers in a form that harms no terminal and fits a line.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).collect();
    let rest = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{rest}", cut.escape_debug())
}

fn login(host: &str, refused: bool) -> String {
    if refused {
        return format!("{host} does not accept the credentials that are stored for it: docker login {host}");
    }
    format!(
        "{host} has no such image, or shows it only after a login: check the name, or docker login {host}"
    )
}

fn wait(after: Option<Duration>) -> String {
    after.map_or_else(String::new, |after| match after.as_secs() {
        seconds @ 0..120 => format!(": try again in {seconds} s"),
        seconds => format!(": try again in {} min", seconds.div_ceil(60)),
    })
}

fn after_colon(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_words_are_escaped_and_cut() {
        assert_eq!(shown("a\u{1b}[2J\n"), r"a\u{1b}[2J\n");
        assert!(shown(&"x".repeat(1 << 20)).len() < 300);
    }

    #[test]
    fn texts_say_what_to_do() {
        let host = || "registry.example".to_owned();
        let text = OciError::LoginRequired {
            host: host(),
            refused: false,
        };
        assert!(
            text.to_string().contains("docker login registry.example"),
            "{text}"
        );
        let text = OciError::RateLimited {
            host: host(),
            after: Some(Duration::from_secs(21_000)),
        };
        assert!(text.to_string().contains("350 min"), "{text}");
    }
}
