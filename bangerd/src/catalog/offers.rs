//! What can be pulled: the built-in catalogue, with the host's and the owner's fragments.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use banger_image::catalog::Catalog;
use banger_image::{Error, Result};
use banger_model::Dirs;

/// The host's fragments; the owner's come after them and win.
const SYSTEM: &str = "/etc/banger/catalog.d";
/// A fragment is never larger, in bytes.
const MAX_FRAGMENT: u64 = 1 << 20;

/// The whole catalogue. Blocks.
///
/// # Errors
/// When a fragment cannot be read or is refused.
pub(super) fn read(dirs: &Dirs) -> Result<Catalog> {
    let mut catalog = Catalog::embedded();
    for directory in [PathBuf::from(SYSTEM), dirs.config.join("catalog.d")] {
        for path in fragments(&directory)? {
            let text = read_fragment(&path)?;
            catalog.extend(Catalog::parse(&text, &path.display().to_string())?);
        }
    }
    Ok(catalog)
}

/// The `.toml` files of a directory, by name.
fn fragments(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::Io {
        what: "read",
        path: directory.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn read_fragment(path: &Path) -> Result<String> {
    let mut text = String::new();
    let length = File::open(path)
        .and_then(|file| file.take(MAX_FRAGMENT + 1).read_to_string(&mut text))
        .map_err(|source| Error::Io {
            what: "read",
            path: path.to_owned(),
            source,
        })?;
    if length as u64 > MAX_FRAGMENT {
        return Err(Error::Catalogue {
            origin: path.display().to_string(),
            reason: format!("it has more than {MAX_FRAGMENT} bytes"),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_fragments_are_read_in_their_order() {
        let home = tempfile::tempdir().unwrap();
        let text = |path: &Path| Some(path.as_os_str().to_owned());
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| text(home.path())).flatten()).unwrap();
        let fragments = dirs.config.join("catalog.d");
        std::fs::create_dir_all(&fragments).unwrap();
        let entry = |description: &str| {
            format!(
                "[[kernel]]\nname = \"mine\"\ndescription = \"{description}\"\n[[kernel.source]]\ntype = \"debian-package\"\nsuite = \"sid\"\npackage = \"linux-image-amd64\"\n"
            )
        };
        std::fs::write(fragments.join("20-b.toml"), entry("later")).unwrap();
        std::fs::write(fragments.join("10-a.toml"), entry("earlier")).unwrap();
        std::fs::write(fragments.join("note.txt"), "no catalogue").unwrap();
        let catalog = read(&dirs).unwrap();
        let kernel = catalog.kernel(&"mine".parse().unwrap()).unwrap();
        assert_eq!(kernel.description, "later");
        std::fs::write(fragments.join("30-c.toml"), "[[kernal]]").unwrap();
        assert!(read(&dirs).unwrap_err().to_string().contains("30-c.toml"));
    }
}
