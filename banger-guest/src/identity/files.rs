//! Writing into a root file system that may be anybody's: directories that are missing are
//! made, links are respected or replaced, and nothing is written that is there already.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Gives the file `name` below `root` this content and mode. A link to a file is followed, a
/// link to nothing is replaced; the file is replaced as a whole, so that no reader sees half.
pub(super) fn write(root: &Path, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let path = target(&root.join(name));
    let there = fs::read(&path).is_ok_and(|found| found == content);
    if there {
        return set_mode(&path, mode);
    }
    let directory = path.parent().unwrap_or(root);
    fs::create_dir_all(directory)?;
    let aside = directory.join(format!(".banger-{}", std::process::id()));
    let _ = fs::remove_file(&aside);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&aside)?;
    let result = file
        .write_all(content)
        .and_then(|()| set_mode(&aside, mode))
        .and_then(|()| fs::rename(&aside, &path));
    if result.is_err() {
        let _ = fs::remove_file(&aside);
    }
    result
}

/// The content of a text file, empty where there is none.
pub(super) fn read_text(root: &Path, name: &str) -> io::Result<String> {
    match fs::read(root.join(name)) {
        Ok(content) => Ok(String::from_utf8_lossy(&content).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Makes a directory with this mode that belongs to root, also of one that is there.
pub(super) fn directory(root: &Path, name: &str, mode: u32) -> io::Result<()> {
    let path = root.join(name);
    fs::DirBuilder::new().recursive(true).mode(mode).create(&path)?;
    if fs::metadata(&path)?.uid() != 0 {
        // Refused outside a guest, where it does not matter.
        let _ = std::os::unix::fs::chown(&path, Some(0), Some(0));
    }
    set_mode(&path, mode)
}

/// Makes `name` a link to `to`, whatever it was.
pub(super) fn link(root: &Path, name: &str, to: &str) -> io::Result<()> {
    let path = root.join(name);
    if fs::read_link(&path).is_ok_and(|found| found == Path::new(to)) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::os::unix::fs::symlink(to, path),
    }
}

/// Whether `name` is a directory below `root`.
pub(super) fn is_directory(root: &Path, name: &str) -> bool {
    root.join(name).is_dir()
}

/// The file behind a link, or the path itself.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_file_is_kept_and_one_to_nothing_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("real"), b"old").unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere/at/all", root.path().join("dangling")).unwrap();
        write(root.path(), "link", 0o644, b"new").unwrap();
        write(root.path(), "dangling", 0o600, b"new").unwrap();
        assert!(root.path().join("link").is_symlink());
        assert_eq!(fs::read(root.path().join("real")).unwrap(), b"new");
        assert!(!root.path().join("dangling").is_symlink());
    }

    #[test]
    fn a_file_without_write_permission_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a/b/file", 0o444, b"1").unwrap();
        write(root.path(), "a/b/file", 0o444, b"2").unwrap();
        let path = root.path().join("a/b/file");
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_mode_is_put_right_even_where_the_content_is() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "key", 0o644, b"1").unwrap();
        write(root.path(), "key", 0o600, b"1").unwrap();
        let mode = fs::metadata(root.path().join("key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
