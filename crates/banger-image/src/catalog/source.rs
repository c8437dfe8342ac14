//! Where things come from.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::BundleUrl;
use crate::digest::Digest;
use crate::oci::Reference;

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum KernelSource {
    /// A kernel's package in Debian's signed archive, or the package that depends on the
    /// newest one.
    DebianPackage { suite: Word, package: Word },
    /// A kernel that was exported.
    Bundle(BundleSource),
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ImageSource {
    /// Built here by `mmdebstrap` from a distribution's signed archive.
    Recipe(Recipe),
    /// An image of a registry.
    Oci {
        #[serde(deserialize_with = "reference")]
        reference: Reference,
    },
    /// An image that was exported.
    Bundle(BundleSource),
}

/// A bundle: it is used only when it is what the catalogue says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleSource {
    pub url: BundleUrl,
    /// 64 hexadecimal digits.
    #[serde(deserialize_with = "digits")]
    pub sha256: Digest,
    /// Bytes of the bundle.
    pub size: u64,
}

/// What a root file system is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// A suite of Debian, as `bookworm`.
    pub suite: Word,
    #[serde(default = "main_only")]
    pub components: Vec<Word>,
    /// On top of the packages that are marked required.
    pub packages: Vec<Word>,
    /// Leave documentation, manual pages and translations out.
    #[serde(default)]
    pub slim: bool,
}

/// A name in an archive: of a suite, a component or a package. It reaches command lines
/// and apt's configuration, so it has no other letters than those that the archive uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(String);

/// As errors name it.
impl fmt::Display for KernelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DebianPackage { suite, package } => write!(f, "package {package} of {suite}"),
            Self::Bundle(bundle) => write!(f, "bundle {}", bundle.url),
        }
    }
}

/// As errors name it.
impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recipe(recipe) => write!(f, "recipe for {}", recipe.suite),
            Self::Oci { reference } => reference.fmt(f),
            Self::Bundle(bundle) => write!(f, "bundle {}", bundle.url),
        }
    }
}

impl Word {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let good = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.len() <= 128
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
        if good {
            Ok(Self(text))
        } else {
            Err(format!("Not a name of an archive: {text:?}"))
        }
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.0
    }
}

fn main_only() -> Vec<Word> {
    vec![Word("main".to_owned())]
}

/// The key says the algorithm already.
fn digits<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(from)?;
    format!("sha256:{text}").parse().map_err(de::Error::custom)
}

fn reference<'de, D: Deserializer<'de>>(from: D) -> Result<Reference, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}
