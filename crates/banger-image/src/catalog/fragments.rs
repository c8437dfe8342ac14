//! Catalogues as files.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Catalog;
use crate::error::{Error, Result};

/// A catalogue's file is never larger, in bytes.
pub(super) const MAX_FRAGMENT: u64 = 1 << 20;

/// What a directory of fragments has.
#[derive(Debug, Default)]
pub struct Fragments {
    /// The good ones, in the order of their names.
    pub catalog: Catalog,
    /// Why each of the others is none. Whether one bad file stops everything is the caller's
    /// to say: it should where its owner reads the error, and should not for everybody on a
    /// host.
    pub refused: Vec<Error>,
}

impl Fragments {
    /// Reads the `.toml` files of a directory; without the directory there are none.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut fragments = Self::default();
        for path in files(directory)? {
            match Catalog::read(&path) {
                Ok(catalog) => fragments.catalog.extend(catalog),
                Err(error) => fragments.refused.push(error),
            }
        }
        Ok(fragments)
    }
}

impl Catalog {
    /// Reads a file. Bundles with a relative url lie where the file is, or where the file that
    /// a link leads to is.
    ///
    /// # Errors
    /// [`Error::Catalogue`] with the file, the line and what is wrong there.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let real = fs::canonicalize(path).map_err(Error::io("open", path))?;
        Self::parse_in(&text, &path.display().to_string(), real.parent())
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", directory)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", directory))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    // A pipe in its place would be waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(Error::io("open", path))?;
    if !file.metadata().map_err(Error::io("look at", path))?.is_file() {
        return Err(Error::NotAFile(path.to_owned()));
    }
    let refused = |reason: String| Error::Catalogue {
        origin: path.display().to_string(),
        reason,
    };
    let mut text = Vec::new();
    let length = file.take(MAX_FRAGMENT + 1).read_to_end(&mut text);
    if length.map_err(Error::io("read", path))? as u64 > MAX_FRAGMENT {
        return Err(refused(format!("it has more than {MAX_FRAGMENT} bytes")));
    }
    String::from_utf8(text).map_err(|error| {
        let lines = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|&b| b == b'\n');
        refused(format!("line {} is not UTF-8", lines.count()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::KernelSource;

    const KERNEL: &str = "[[kernel]]\nname = \"NAME\"\ndescription = \"\"\n[[kernel.source]]\ntype = \"debian-package\"\nsuite = \"sid\"\npackage = \"linux-image-amd64\"\n";

    #[test]
    fn a_bad_fragment_is_told_and_the_others_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
        write("10-a.toml", KERNEL.replace("NAME", "a").as_bytes());
        write("20-b.toml", b"[[kernel]]\nname = \"b\"\nkind = 1\n");
        write("30-c.toml", KERNEL.replace("NAME", "c").as_bytes());
        write("40-d.toml", b"# good\n# \xff\n");
        write("50-e.toml", "#".repeat(1 + MAX_FRAGMENT as usize).as_bytes());
        write("note.txt", b"no catalogue");
        fs::create_dir(dir.path().join("60-f.toml")).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            dir.path().join("70-g.toml"),
            rustix::fs::Mode::RUSR,
        )
        .unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("80-h.toml")).unwrap();
        let fragments = Fragments::read(dir.path()).unwrap();
        let names: Vec<_> = fragments.catalog.kernels().map(|k| k.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        let refused: Vec<String> = fragments.refused.iter().map(ToString::to_string).collect();
        assert_eq!(refused.len(), 6, "{refused:?}");
        assert!(
            refused[0].contains("20-b.toml") && refused[0].contains("line 3"),
            "{}",
            refused[0]
        );
        assert!(refused[1].contains("line 2"), "{}", refused[1]);
        assert!(refused[2].contains("50-e.toml"), "{}", refused[2]);
        assert!(
            Fragments::read(&dir.path().join("none"))
                .unwrap()
                .refused
                .is_empty()
        );
    }

    #[test]
    fn a_relative_bundle_is_beside_the_real_file() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir(dir.path().join("published")).unwrap();
        let text = KERNEL.replace("NAME", "a").replace("debian-package", "bundle");
        let text = text.replace("suite = \"sid\"", "url = \"x.tar.zst\"\nsize = 1");
        let text = text.replace(
            "package = \"linux-image-amd64\"",
            &format!("sha256 = \"{}\"", "0".repeat(64)),
        );
        fs::write(dir.path().join("published/catalog.toml"), text).unwrap();
        let link = dir.path().join("mine.toml");
        std::os::unix::fs::symlink("published/catalog.toml", &link).unwrap();
        let catalog = Catalog::read(&link).unwrap();
        let KernelSource::Bundle(bundle) = &catalog.kernels().next().unwrap().sources[0] else {
            panic!("another source");
        };
        assert_eq!(
            bundle.url.to_string(),
            format!("file://{}/published/x.tar.zst", real.display())
        );
    }
}
