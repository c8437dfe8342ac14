//! What can be pulled: the built-in catalogue, with the host's and the owner's fragments.

use std::path::Path;

use banger_image::catalog::{Catalog, Fragments};
use banger_image::{Error, Result};
use banger_model::Dirs;

/// The host's fragments; the owner's come after them and win.
const SYSTEM: &str = "/etc/banger/catalog.d";

/// The whole catalogue. A bad fragment of the host stops nobody who cannot repair it. Blocks.
///
/// # Errors
/// When a fragment of the owner's is refused, or the fragments cannot be read.
pub(super) fn read(dirs: &Dirs) -> Result<Catalog> {
    let (mut catalog, refused) = host()?;
    for error in &refused {
        tracing::warn!(%error, "A fragment of the host's catalogue is not used");
    }
    let own = Fragments::read(&dirs.config.join("catalog.d"))?;
    if let Some(error) = own.refused.into_iter().next() {
        return Err(error);
    }
    catalog.extend(own.catalog);
    Ok(catalog)
}

/// The catalogue that is everybody's on this host, and why fragments of it are not used. Blocks.
///
/// # Errors
/// When the fragments cannot be read.
pub(crate) fn host() -> Result<(Catalog, Vec<Error>)> {
    let mut catalog = Catalog::embedded();
    let host = Fragments::read(Path::new(SYSTEM))?;
    catalog.extend(host.catalog);
    Ok((catalog, host.refused))
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
