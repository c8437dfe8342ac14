//! What can be pulled: kernels and images by name, each with its sources.

use std::fmt;

use banger_model::{ImageName, KernelName};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The catalogue that comes with the program.
const EMBEDDED: &str = include_str!("../../../packaging/recipes/catalog.toml");

/// A list of what can be pulled. The later of two entries with one name wins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    #[serde(default, rename = "kernel")]
    kernels: Vec<KernelEntry>,
    #[serde(default, rename = "image")]
    images: Vec<ImageEntry>,
}

/// A kernel of the catalogue. Its name stays with what was pulled, as an alias.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelEntry {
    pub name: KernelName,
    pub description: String,
    /// Tried in this order.
    #[serde(rename = "source")]
    pub sources: Vec<KernelSource>,
}

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum KernelSource {
    /// A kernel's package in Debian's signed archive, or the package that depends on the
    /// newest one.
    DebianPackage { suite: Word, package: Word },
}

/// An image of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    pub name: ImageName,
    pub description: String,
    /// The kernel that its VMs boot unless told otherwise: a name of this catalogue.
    pub kernel: KernelName,
    /// Tried in this order.
    #[serde(rename = "source")]
    pub sources: Vec<ImageSource>,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ImageSource {
    /// Built here by `mmdebstrap` from a distribution's signed archive.
    Recipe(Recipe),
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

impl Catalog {
    /// The catalogue that comes with the program.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn embedded() -> Self {
        Self::parse(EMBEDDED, "of the program").expect("the embedded catalogue is tested")
    }

    /// Reads a catalogue, or a fragment of one.
    ///
    /// # Errors
    /// [`Error::Catalogue`] with `origin`, the line and what is wrong there.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let refused = |reason: String| Error::Catalogue {
            origin: origin.to_owned(),
            reason,
        };
        let catalog: Self =
            toml::from_str(text).map_err(|error| refused(error.to_string().trim_end().to_owned()))?;
        let kernels = catalog.kernels.iter().map(|k| (k.name.as_str(), k.sources.len()));
        let images = catalog.images.iter().map(|i| (i.name.as_str(), i.sources.len()));
        for (name, sources) in kernels.chain(images) {
            if sources == 0 {
                return Err(refused(format!("{name} has no source")));
            }
        }
        Ok(catalog)
    }

    /// Adds the entries of another catalogue; they win over those of the same name.
    pub fn extend(&mut self, other: Self) {
        self.kernels.extend(other.kernels);
        self.images.extend(other.images);
    }

    /// The kernels, each name once.
    pub fn kernels(&self) -> impl Iterator<Item = &KernelEntry> {
        self.kernels.iter().filter(|entry| {
            self.kernel(&entry.name)
                .is_ok_and(|won| std::ptr::eq(won, *entry))
        })
    }

    /// The images, each name once.
    pub fn images(&self) -> impl Iterator<Item = &ImageEntry> {
        self.images
            .iter()
            .filter(|entry| self.image(&entry.name).is_ok_and(|won| std::ptr::eq(won, *entry)))
    }

    /// # Errors
    /// [`Error::NotInCatalogue`].
    pub fn kernel(&self, name: &KernelName) -> Result<&KernelEntry> {
        self.kernels
            .iter()
            .rfind(|entry| entry.name == *name)
            .ok_or_else(|| Error::NotInCatalogue(name.to_string()))
    }

    /// # Errors
    /// [`Error::NotInCatalogue`].
    pub fn image(&self, name: &ImageName) -> Result<&ImageEntry> {
        self.images
            .iter()
            .rfind(|entry| entry.name == *name)
            .ok_or_else(|| Error::NotInCatalogue(name.to_string()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_catalogue_is_whole() {
        let catalog = Catalog::embedded();
        for image in catalog.images() {
            assert!(catalog.kernel(&image.kernel).is_ok(), "{}", image.name);
        }
        for name in ["debian-bookworm", "debian-minimal"] {
            assert!(catalog.image(&name.parse().unwrap()).is_ok(), "{name}");
        }
        for name in ["debian-6.1", "debian-6.12"] {
            assert!(catalog.kernel(&name.parse().unwrap()).is_ok(), "{name}");
        }
    }

    #[test]
    fn fragments_extend_and_override() {
        let mut catalog = Catalog::embedded();
        let before = catalog.kernels().count();
        let fragment = r#"
            [[kernel]]
            name = "debian-6.1"
            description = "mine"
            [[kernel.source]]
            type = "debian-package"
            suite = "trixie"
            package = "linux-image-amd64"
        "#;
        catalog.extend(Catalog::parse(fragment, "mine.toml").unwrap());
        assert_eq!(catalog.kernels().count(), before);
        let kernel = catalog.kernel(&"debian-6.1".parse().unwrap()).unwrap();
        assert_eq!(kernel.description, "mine");
    }

    #[test]
    fn bad_entries_name_origin_and_line() {
        let head = "[[kernel]]\nname = \"a\"\ndescription = \"\"\n";
        for (text, word) in [
            (format!("{head}source = []"), "no source"),
            (format!("{head}sauce = []"), "sauce"),
            (
                format!(
                    "{head}[[kernel.source]]\ntype = \"debian-package\"\nsuite = \"a b\"\npackage = \"x\""
                ),
                "a b",
            ),
            (
                format!(
                    "{head}[[kernel.source]]\ntype = \"debian-package\"\nsuite = \"sid\"\npackage = \"-o\""
                ),
                "-o",
            ),
            (
                format!("{head}[[kernel.source]]\ntype = \"telepathy\""),
                "telepathy",
            ),
        ] {
            let error = Catalog::parse(&text, "x.toml").unwrap_err().to_string();
            assert!(error.contains("x.toml") && error.contains(word), "{error}");
        }
    }
}
