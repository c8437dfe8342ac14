//! What a bundle says about itself.

use banger_model::limits::MAX_DISK_BYTES;
use banger_model::{ImageConfig, ImageName, KernelName};
use serde::{Deserialize, Serialize};

use super::error::{BundleError, shown};

/// The version that is written, and the only one that is read.
const VERSION: u64 = 1;
/// Bytes of a manifest.
pub(super) const MAX_MANIFEST: u64 = 1 << 20;
/// Bytes of the text that says where the content had come from.
const MAX_ORIGIN: usize = 4096;

/// The first file of a bundle, in JSON; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Manifest {
    Image(ImageManifest),
    Kernel(KernelManifest),
}

/// An image's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    pub version: u64,
    pub name: ImageName,
    /// The kernel that its VMs boot unless told otherwise. An image with kernel files of its
    /// owner has none: they are not in the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelName>,
    /// Bytes of the file system.
    pub size: u64,
    /// Bytes that are in use in it.
    pub content: u64,
    #[serde(default)]
    pub config: ImageConfig,
    /// Seconds since 1970.
    pub created: u64,
    /// Where the image had come from, for people.
    pub origin: String,
}

/// A kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelManifest {
    pub version: u64,
    pub name: KernelName,
    /// What `uname -r` says in the guest.
    pub release: String,
    /// Bytes of `vmlinux`.
    pub vmlinux: u64,
    /// Bytes of `config`, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<u64>,
    /// Bytes of `modules.tar`, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules: Option<u64>,
    /// Seconds since 1970.
    pub created: u64,
    /// Where the kernel had come from, for people.
    pub origin: String,
}

impl Manifest {
    /// Reads a manifest and holds it to its bounds.
    ///
    /// # Errors
    /// [`BundleError::Manifest`], [`BundleError::Version`], [`BundleError::TooLarge`].
    pub fn parse(json: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        if json.len() as u64 > MAX_MANIFEST {
            return Err(BundleError::TooLarge {
                member: super::MANIFEST,
                limit: MAX_MANIFEST,
            });
        }
        // A later version may look different in everything but this.
        let head: Head = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
        if head.version != VERSION {
            return Err(BundleError::Version(head.version));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// In the one form in which it stands in a bundle.
    ///
    /// # Errors
    /// When it is out of its bounds.
    pub fn to_json(&self) -> Result<Vec<u8>, BundleError> {
        self.check()?;
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| malformed(&error))?;
        json.push(b'\n');
        if json.len() as u64 > MAX_MANIFEST {
            return Err(BundleError::TooLarge {
                member: super::MANIFEST,
                limit: MAX_MANIFEST,
            });
        }
        Ok(json)
    }

    /// The word for people.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Image(_) => "image",
            Self::Kernel(_) => "kernel",
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Image(image) => image.name.as_str(),
            Self::Kernel(kernel) => kernel.name.as_str(),
        }
    }

    pub(super) const fn created(&self) -> u64 {
        match self {
            Self::Image(image) => image.created,
            Self::Kernel(kernel) => kernel.created,
        }
    }

    fn check(&self) -> Result<(), BundleError> {
        let refused = |reason: String| Err(BundleError::Manifest(reason));
        let origin = match self {
            Self::Image(image) => {
                if let Err(error) = image.config.process.check() {
                    return refused(error.to_string());
                }
                let bad = |key: &str, value: &str| {
                    key.is_empty() || key.contains(['=', '\0']) || value.contains('\0')
                };
                if let Some((key, _)) = image.config.env.iter().find(|(key, value)| bad(key, value)) {
                    return refused(format!("a variable that cannot be: {:?}", shown(key.as_bytes())));
                }
                if image.size == 0 || image.size > MAX_DISK_BYTES || image.content > image.size {
                    return refused("sizes that no file system has".to_owned());
                }
                &image.origin
            }
            Self::Kernel(kernel) => {
                // The release becomes a file name in the guest's archive.
                if kernel.release.parse::<KernelName>().is_err() {
                    return refused(format!("a bad release: {:?}", shown(kernel.release.as_bytes())));
                }
                &kernel.origin
            }
        };
        if origin.len() > MAX_ORIGIN {
            return refused(format!("an origin of more than {MAX_ORIGIN} bytes"));
        }
        Ok(())
    }
}

fn malformed(error: &serde_json::Error) -> BundleError {
    BundleError::Manifest(shown(error.to_string().as_bytes()))
}

impl ImageManifest {
    pub(crate) const VERSION: u64 = VERSION;
}

impl KernelManifest {
    pub(crate) const VERSION: u64 = VERSION;
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"kind":"image","version":1,"name":"a:1","kernel":"debian-6.1","size":4096,
        "content":1024,"created":5,"origin":"here","config":{"env":{"A":"b"}}}"#;

    #[test]
    fn a_manifest_is_read_as_it_is_written() {
        let manifest = Manifest::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((manifest.kind(), manifest.name()), ("image", "a:1"));
        assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap(), manifest);
        let kernel =
            r#"{"kind":"kernel","version":1,"name":"k","release":"6.1","vmlinux":1,"created":0,"origin":""}"#;
        let kernel = Manifest::parse(kernel.as_bytes()).unwrap();
        assert_eq!(kernel.kind(), "kernel");
        assert_eq!(Manifest::parse(&kernel.to_json().unwrap()).unwrap(), kernel);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        for (from, to) in [
            ("\"a:1\"", "\"../a\""),
            ("\"origin\"", "\"orgin\""),
            ("4096", "0"),
            ("4096", "18446744073709551615"),
            ("1024", "8192"),
            ("\"A\"", "\"A=\""),
            ("\"b\"", "\"b\\u0000\""),
            ("image", "disk"),
            ("{\"env\":{\"A\":\"b\"}}", "{\"process\":{\"user\":\"-x\"}}"),
            ("}}", ""),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let refused = Manifest::parse(text.as_bytes());
            assert!(
                matches!(refused, Err(BundleError::Manifest(_))),
                "{text}: {refused:?}"
            );
        }
        let later = GOOD.replace(":1,", ":2,");
        assert!(matches!(
            Manifest::parse(later.as_bytes()),
            Err(BundleError::Version(2))
        ));
        let deep = "[".repeat(1 << 20);
        assert!(matches!(
            Manifest::parse(deep.as_bytes()),
            Err(BundleError::Manifest(text)) if text.len() < 200
        ));
        let large = format!("{GOOD}{}", " ".repeat(1 << 20));
        assert!(matches!(
            Manifest::parse(large.as_bytes()),
            Err(BundleError::TooLarge { .. })
        ));
    }
}
