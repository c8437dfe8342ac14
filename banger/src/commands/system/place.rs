//! Puts files in their places and takes them away.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::files::File;
use super::manifest::{Manifest, digest};
use crate::error::{Error, Result};

/// What is at a path now.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Exactly what is wanted, whoever wrote it.
    Same,
    /// Ours, of another version.
    Ours,
    /// Somebody else's, or ours and changed since.
    Foreign,
}

/// What placing the files changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Those to write.
    pub(super) write: Vec<PathBuf>,
    /// Those of an earlier installation that this one does not have.
    pub(super) remove: Vec<PathBuf>,
    /// Those that may not be overwritten.
    pub(super) foreign: Vec<PathBuf>,
    /// Directories to make, each after the one that it is in.
    pub(super) directories: Vec<PathBuf>,
    /// Those that were there as they should be without our having written them.
    pub(super) kept: Vec<PathBuf>,
}

/// Compares what is to be with what is. Changes nothing.
///
/// # Errors
/// When a file cannot be looked at.
pub(super) fn plan(root: &Path, files: &[File], before: &Manifest) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut directories = BTreeSet::new();
    for file in files {
        match look(root, file, before)? {
            Found::Nothing | Found::Ours => plan.write.push(file.path.clone()),
            Found::Same if !before.files.contains_key(&file.path) => plan.kept.push(file.path.clone()),
            Found::Same => {}
            Found::Foreign => plan.foreign.push(file.path.clone()),
        }
        let above = file.path.ancestors().skip(1);
        directories.extend(
            above
                .take_while(|dir| !below(root, dir).exists())
                .map(Path::to_owned),
        );
    }
    plan.directories.extend(directories);
    plan.remove.extend(
        before
            .files
            .keys()
            .filter(|path| !files.iter().any(|file| file.path == **path))
            .cloned(),
    );
    Ok(plan)
}

/// Writes the planned files, each under its name only when it is whole.
///
/// # Errors
/// At the first that cannot be written.
pub(super) fn apply(root: &Path, files: &[File], plan: &Plan) -> Result<()> {
    for directory in &plan.directories {
        let directory = below(root, directory);
        match fs::create_dir(&directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io(format!("Cannot make {directory:?}"), e));
            }
            _ => fs::set_permissions(&directory, Permissions::from_mode(0o755))
                .map_err(|e| Error::io(format!("Cannot change the mode of {directory:?}"), e))?,
        }
    }
    for file in files {
        if plan.write.contains(&file.path) || plan.foreign.contains(&file.path) {
            write(&below(root, &file.path), file.mode, &file.content)?;
        }
    }
    Ok(())
}

/// Writes a file beside its place and renames it: who runs or reads the old one keeps it.
pub(super) fn write(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let failed = |e| Error::io(format!("Cannot write {path:?}"), e);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.banger-new"));
    gone(fs::remove_file(&new), &new)?;
    let writing = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(content)?;
        // Whatever the umask was.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    writing().map_err(|e| {
        _ = fs::remove_file(&new);
        failed(e)
    })
}

/// Takes back what a manifest names, as far as it still is what was written. Returns the files
/// that were changed since, which stay.
///
/// # Errors
/// All failures, each as a line, when everything else was done.
pub(super) fn remove(
    root: &Path,
    paths: impl IntoIterator<Item = impl AsRef<Path>>,
    manifest: &Manifest,
    force: bool,
) -> (Vec<PathBuf>, Vec<Error>) {
    let (mut changed, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        let path = path.as_ref();
        let real = below(root, path);
        match fs::read(&real) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(content) if !force && !manifest.wrote(path, &content) => changed.push(path.to_owned()),
            _ => errors.extend(gone(fs::remove_file(&real), &real).err()),
        }
    }
    (changed, errors)
}

/// Removes the directories that an installation made and that are empty now.
pub(super) fn remove_directories(root: &Path, manifest: &Manifest) -> Vec<Error> {
    let mut errors = Vec::new();
    for directory in manifest.directories.iter().rev() {
        let real = below(root, directory);
        match fs::remove_dir(&real) {
            // Somebody else's files are in it now.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            other => errors.extend(gone(other, &real).err()),
        }
    }
    errors
}

/// That something is not there is what removing is for.
pub(super) fn gone(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(format!("Cannot remove {path:?}"), e)),
        _ => Ok(()),
    }
}

pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn look(root: &Path, file: &File, before: &Manifest) -> Result<Found> {
    let real = below(root, &file.path);
    let cannot = |e| Error::io(format!("Cannot look at {real:?}"), e);
    let metadata = match fs::symlink_metadata(&real) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(cannot(e)),
    };
    if !metadata.is_file() {
        return Ok(Found::Foreign);
    }
    let content = fs::read(&real).map_err(cannot)?;
    let mode = metadata.permissions().mode() & 0o7777;
    Ok(if content == file.content && mode == file.mode {
        Found::Same
    } else if content == file.content || before.wrote(&file.path, &content) {
        Found::Ours
    } else {
        Found::Foreign
    })
}

/// The manifest for the time in which `plan` is carried out: it knows the old files and the new.
pub(super) fn during(before: &Manifest, files: &[File], plan: &Plan) -> Manifest {
    let mut manifest = before.clone();
    manifest.complete = false;
    for file in files.iter().filter(|file| !plan.kept.contains(&file.path)) {
        manifest
            .files
            .entry(file.path.clone())
            .or_default()
            .insert(digest(&file.content));
    }
    manifest.directories.extend(plan.directories.iter().cloned());
    manifest
}

/// The manifest when `plan` was carried out: only the new files.
pub(super) fn after(during: &Manifest, files: &[File], plan: &Plan) -> Manifest {
    let mut manifest = during.clone();
    manifest.files = files
        .iter()
        .filter(|file| !plan.kept.contains(&file.path))
        .map(|file| (file.path.clone(), BTreeSet::from([digest(&file.content)])))
        .collect();
    manifest
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
