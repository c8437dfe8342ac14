//! Names that people give, checked where they enter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_IMAGE_NAME, MAX_KERNEL_NAME, MAX_NAME};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "Not a valid VM name: {0:?} (use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends)"
    )]
    Vm(String),
    #[error(
        "Not a valid image name: {0:?} (use 1 to 255 of a-z, A-Z, 0-9, '.', '_', '-', ':' and '@', with a letter or digit first, and first after each '/')"
    )]
    Image(String),
    #[error(
        "Not a valid kernel name: {0:?} (use 1 to 128 of a-z, A-Z, 0-9, '.', '_', '-' and '+', with a letter or digit first)"
    )]
    Kernel(String),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $valid:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError::$variant(text.to_owned()))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// A VM's name: one label of a host name (RFC 1123), in lower case, because it becomes
    /// the guest's host name and `<name>.vm`.
    VmName, Vm, valid_vm
);
name!(
    /// The name under which an image is listed: a word, or an OCI reference in the short form
    /// in which docker shows it, as `alpine:3.20` or `ghcr.io/owner/name:1`.
    ImageName, Image, valid_image
);
name!(
    /// The name under which a kernel is listed, as `6.1.0-30-cloud-amd64`.
    KernelName, Kernel, valid_kernel
);

fn valid_vm(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    matches!(bytes, [first, .., last] if alnum(*first) && alnum(*last))
        | matches!(bytes, [only] if alnum(*only))
        && bytes.len() <= MAX_NAME
        && bytes.iter().all(|&b| alnum(b) || b == b'-')
}

impl ImageName {
    /// The name of the image's directory in a store: no image's name has a '+'.
    pub fn file_name(&self) -> String {
        self.0.replace('/', "+")
    }

    /// The name that belongs to a directory of a store.
    ///
    /// # Errors
    /// When no image can have it.
    pub fn from_file_name(name: &str) -> Result<Self, NameError> {
        name.replace('+', "/").parse()
    }
}

fn valid_image(text: &str) -> bool {
    text.len() <= MAX_IMAGE_NAME && text.split('/').all(|part| valid_word(part, b":@"))
}

fn valid_kernel(text: &str) -> bool {
    text.len() <= MAX_KERNEL_NAME && valid_word(text, b"+")
}

/// Names become file names: no separator, nothing hidden, nothing that looks like an option.
fn valid_word(text: &str, extra: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b) || extra.contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_names_are_host_names() {
        for good in ["a", "a1", "beta-sandbox", "0", &"x".repeat(63)] {
            assert!(good.parse::<VmName>().is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "-",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            "ü",
            "a b",
            "a\n",
            "../a",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<VmName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn references_are_file_names() {
        for good in [
            "debian-bookworm",
            "alpine:3.20",
            "6.1.0-30-cloud-amd64",
            "a",
            "localhost:5000/a/b:1@sha256:0",
            &"x".repeat(255),
        ] {
            let name: ImageName = good.parse().unwrap();
            assert!(!name.file_name().contains('/'));
            assert_eq!(ImageName::from_file_name(&name.file_name()), Ok(name));
        }
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "-x",
            "a+b",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "a/-b",
            "a b",
            "a\0",
            &"x".repeat(256),
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        assert!("6.1.0+deb12".parse::<KernelName>().is_ok());
        for bad in ["a:b", "a/b", &"x".repeat(129)] {
            assert!(bad.parse::<KernelName>().is_err(), "{bad:?}");
        }
    }
}
