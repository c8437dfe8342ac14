//! Programs that only root can change: what the root helper launches must not be somebody
//! else's to replace.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What others than root could change of a program's place: the file, a directory above it, or
/// one above where a link leads. `None`: nothing.
///
/// # Errors
/// When the program is not there.
pub(crate) fn changed_by_others(program: &Path) -> io::Result<Option<PathBuf>> {
    // A link counts by where it leads.
    let real = program.canonicalize()?;
    let mut places = [real.as_path(), program].into_iter().flat_map(Path::ancestors);
    let others = places.find(|path| {
        let meta = path.symlink_metadata();
        !meta.is_ok_and(|meta| meta.uid() == 0 && (meta.is_symlink() || meta.mode() & 0o022 == 0))
    });
    Ok(others.map(Path::to_owned))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_file_and_the_way_to_it_must_be_roots() {
        assert_eq!(changed_by_others(Path::new("/bin/sh")).unwrap(), None);
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("program");
        assert!(changed_by_others(&program).is_err(), "it is not there");
        std::fs::write(&program, "").unwrap();
        // Whoever runs the test, the directory for temporary files is everybody's.
        assert!(changed_by_others(&program).unwrap().is_some());
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let others = changed_by_others(&program).unwrap();
        assert_eq!(others.as_deref(), Some(home.path()));
        // A link to a good program, that somebody else can turn.
        let link = home.path().join("link");
        symlink("/bin/sh", &link).unwrap();
        let others = changed_by_others(&link).unwrap();
        assert_eq!(others.as_deref(), Some(home.path()));
    }
}
