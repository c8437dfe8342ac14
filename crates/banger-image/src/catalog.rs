//! What can be pulled: kernels and images by name, each with its sources.

mod edit;
mod fragments;
mod source;
mod tried;
mod url;

use std::path::{Path, PathBuf};

use banger_model::{ImageName, KernelName};
use serde::Deserialize;

pub use fragments::Fragments;
pub use source::{BundleSource, ImageSource, KernelSource, Recipe, Word};
pub use url::BundleUrl;

pub(crate) use edit::{Entry, Thing, has, publish};
pub(crate) use tried::first_of;
pub(crate) use url::Target;

use crate::error::{Error, Result};

/// The catalogue that comes with the program.
const EMBEDDED: &str = include_str!("../../../packaging/recipes/catalog.toml");
/// Entries of one file, and sources of one entry.
const MAX_ENTRIES: usize = 4096;
const MAX_SOURCES: usize = 16;
/// Bytes of a description: one line of a list.
pub(crate) const MAX_DESCRIPTION: usize = 512;

/// A list of what can be pulled. The later of two entries with one name wins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    #[serde(default, rename = "kernel")]
    kernels: Vec<KernelEntry>,
    #[serde(default, rename = "image")]
    images: Vec<ImageEntry>,
    #[serde(default, rename = "engine")]
    engines: Vec<EngineEntry>,
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

/// An engine that is in no distribution: an archive (tar, gzip) that holds its program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineEntry {
    pub name: Word,
    pub version: Word,
    /// The program's path in the archive.
    pub member: PathBuf,
    pub source: BundleSource,
}

impl Catalog {
    /// The catalogue that comes with the program.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn embedded() -> Self {
        Self::parse(EMBEDDED, "of the program").expect("the embedded catalogue is tested")
    }

    /// Reads a catalogue, or a fragment of one, in which every bundle says fully where it is.
    ///
    /// # Errors
    /// [`Error::Catalogue`] with `origin`, the line and what is wrong there.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        Self::parse_in(text, origin, None)
    }

    /// The same for a file's text: bundles with a relative url lie in `base`, the directory of
    /// the file.
    ///
    /// # Errors
    /// As [`Catalog::parse`].
    pub fn parse_in(text: &str, origin: &str, base: Option<&Path>) -> Result<Self> {
        let refused = |reason: String| Error::Catalogue {
            origin: origin.to_owned(),
            reason,
        };
        let mut catalog: Self =
            toml::from_str(text).map_err(|error| refused(error.to_string().trim_end().to_owned()))?;
        catalog.check().map_err(refused)?;
        catalog.resolve(base).map_err(refused)?;
        Ok(catalog)
    }

    /// Adds the entries of another catalogue; they win over those of the same name.
    pub fn extend(&mut self, other: Self) {
        self.kernels.extend(other.kernels);
        self.images.extend(other.images);
        self.engines.extend(other.engines);
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

    /// # Errors
    /// [`Error::NotInCatalogue`].
    pub fn engine(&self, name: &str) -> Result<&EngineEntry> {
        self.engines
            .iter()
            .rfind(|entry| entry.name.as_str() == name)
            .ok_or_else(|| Error::NotInCatalogue(name.to_owned()))
    }

    fn check(&self) -> Result<(), String> {
        if self.kernels.len() + self.images.len() + self.engines.len() > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} entries"));
        }
        let kernels = self
            .kernels
            .iter()
            .map(|k| (k.name.as_str(), &k.description, k.sources.len()));
        let images = self
            .images
            .iter()
            .map(|i| (i.name.as_str(), &i.description, i.sources.len()));
        for (name, description, sources) in kernels.chain(images) {
            if sources == 0 {
                return Err(format!("{name} has no source"));
            }
            if sources > MAX_SOURCES {
                return Err(format!("{name} has more than {MAX_SOURCES} sources"));
            }
            if !is_description(description) {
                return Err(format!(
                    "The description of {name} is not one line of at most {MAX_DESCRIPTION} bytes"
                ));
            }
        }
        Ok(())
    }

    fn resolve(&mut self, base: Option<&Path>) -> Result<(), String> {
        let kernels = self.kernels.iter_mut().flat_map(|entry| &mut entry.sources);
        let images = self.images.iter_mut().flat_map(|entry| &mut entry.sources);
        let kernels = kernels.filter_map(|source| match source {
            KernelSource::Bundle(bundle) => Some(bundle),
            KernelSource::DebianPackage { .. } => None,
        });
        let images = images.filter_map(|source| match source {
            ImageSource::Bundle(bundle) => Some(bundle),
            ImageSource::Recipe(_) | ImageSource::Oci { .. } => None,
        });
        let engines = self.engines.iter_mut().map(|entry| &mut entry.source);
        for bundle in kernels.chain(images).chain(engines) {
            bundle.url.resolve(base)?;
        }
        Ok(())
    }
}

/// What people are shown in a list must not move their cursor.
pub(crate) fn is_description(text: &str) -> bool {
    text.len() <= MAX_DESCRIPTION && !text.chars().any(char::is_control)
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
        let package = format!("{head}[[kernel.source]]\ntype = \"debian-package\"\n");
        let bundle = format!("{head}[[kernel.source]]\ntype = \"bundle\"\n");
        let hex = "0".repeat(64);
        for (text, word, line) in [
            (format!("{head}source = []"), "no source", 0),
            (format!("{head}sauce = []"), "sauce", 4),
            (format!("{package}suite = \"a b\"\npackage = \"x\""), "a b", 4),
            (format!("{package}suite = \"sid\"\npackage = \"-o\""), "-o", 4),
            (
                format!("{package}suite = \"sid\"\npackage = \"o\"\nsize = 1"),
                "size",
                4,
            ),
            (
                format!("{head}[[kernel.source]]\ntype = \"telepathy\""),
                "telepathy",
                4,
            ),
            (format!("{bundle}url = \"https://a/b\"\nsize = 1"), "sha256", 4),
            (
                format!("{bundle}url = \"https://a/b\"\nsha256 = \"{hex}\""),
                "size",
                4,
            ),
            (
                format!("{bundle}url = \"http://a/b\"\nsize = 1\nsha256 = \"{hex}\""),
                "http://a/b",
                4,
            ),
            (
                format!(
                    "{bundle}url = \"https://a/b\"\nsize = 1\nsha256 = \"{}\"",
                    &hex[1..]
                ),
                "digest",
                4,
            ),
            (
                format!("{bundle}url = \"https://a/b\"\nsize = -1\nsha256 = \"{hex}\""),
                "-1",
                4,
            ),
            (
                format!("{bundle}url = \"a\"\nsize = 1\nsha256 = \"{hex}\""),
                "relative",
                0,
            ),
            (
                head.replace("\"\"", "\"\\u001b[2J\"") + "source = []",
                "no source",
                0,
            ),
        ] {
            let error = Catalog::parse(&text, "x.toml").unwrap_err().to_string();
            assert!(error.contains("x.toml") && error.contains(word), "{error}");
            if line > 0 {
                assert!(error.contains("at line"), "{error}");
            }
        }
    }

    #[test]
    fn lists_and_lines_have_an_end() {
        let source = "{ type = \"debian-package\", suite = \"sid\", package = \"a\" }";
        let entry = |description: &str, sources: usize| {
            format!(
                "[[kernel]]\nname = \"a\"\ndescription = \"{description}\"\nsource = [{}]\n",
                vec![source; sources].join(", ")
            )
        };
        assert!(Catalog::parse(&entry("fine", MAX_SOURCES), "x").is_ok());
        for (text, word) in [
            (entry("fine", MAX_SOURCES + 1), "sources"),
            (entry("\\u001b[2J", 1), "description"),
            (entry(&"x".repeat(MAX_DESCRIPTION + 1), 1), "description"),
            (entry("fine", 1).repeat(MAX_ENTRIES + 1), "entries"),
        ] {
            let error = Catalog::parse(&text, "x").unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
