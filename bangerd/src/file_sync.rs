//! The owner's files for every guest, as `[[file_sync]]` of the configuration lists them. They
//! lie in a file system of the guest in memory, and symbolic links lead there: no disk image
//! ever has them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_bus::{Error, ErrorKind, Result};
use banger_files::Meta;
use banger_model::Size;
use banger_model::config::FileSyncs;
use banger_model::limits::MAX_FILE_SYNC_BYTES;

use crate::core::capability::blocking;
use crate::core::progress::JobContext;
use crate::guest::Agent;
use crate::guest::files::{self, Put};

/// Where they lie in the guest: in memory, and root's alone.
const PLACE: &str = "/run/banger";
const DIRECTORY: &str = "sync";
/// Where the links are.
const HOME: &str = "/root";
/// Files and directories of all entries.
const MAX_FILES: usize = 10_000;
/// Directories one in the other.
const MAX_DEPTH: usize = 32;

/// What goes into a guest. Names are relative to root's home.
#[derive(Default)]
struct Gathered {
    files: Vec<(PathBuf, Meta, Vec<u8>)>,
    directories: Vec<(PathBuf, Meta)>,
    bytes: u64,
    warnings: Vec<String>,
}

/// Puts all of it into a guest that has just come up.
///
/// # Errors
/// When a file that is there cannot be read or is none, or the guest does not take it.
pub(crate) async fn apply(agent: &Arc<Agent>, entries: FileSyncs, ctx: &JobContext) -> Result<()> {
    if entries.entries().is_empty() {
        return Ok(());
    }
    ctx.stage("Bringing your files");
    let home = std::env::home_dir().unwrap_or_default();
    let gathered = blocking(move || gather(&entries, &home)).await?;
    for warning in &gathered.warnings {
        ctx.message(warning);
        tracing::warn!("{warning}");
    }
    let gathered = Arc::new(gathered);
    let whole = gathered.clone();
    let contents = Put {
        // What was there before goes: a file that is no longer listed too.
        remove: vec![DIRECTORY.into()],
        ..put(PLACE)
    };
    files::put(agent, contents, ctx, move |packer| {
        let top = Meta {
            mode: 0o700,
            mtime_ns: 0,
        };
        packer.directory(Path::new(DIRECTORY), top)?;
        for (name, meta, bytes) in &whole.files {
            packer.bytes(&Path::new(DIRECTORY).join(name), *meta, bytes)?;
        }
        Ok(())
    })
    .await?;
    files::put(agent, put(HOME), ctx, move |packer| {
        for (name, meta) in &gathered.directories {
            packer.directory(name, *meta)?;
        }
        for (name, meta, _) in &gathered.files {
            let target = Path::new(PLACE).join(DIRECTORY).join(name);
            packer.symlink(name, &target, meta.mtime_ns)?;
        }
        Ok(())
    })
    .await?;
    Ok(())
}

fn put(root: &str) -> Put {
    Put {
        root: root.to_owned(),
        make_root: true,
        replace: true,
        owner: Some((0, 0)),
        remove: Vec::new(),
    }
}

/// Reads everything. Blocks.
fn gather(entries: &FileSyncs, home: &Path) -> Result<Gathered> {
    let mut gathered = Gathered::default();
    for entry in entries.entries() {
        let host = entry.host.resolve(home);
        let name = Path::new(entry.guest.below_home());
        // What is named may be a symbolic link; what is below it is not followed.
        match fs::metadata(&host) {
            Ok(about) if about.is_dir() => gathered.directory(&host, name, 0)?,
            Ok(about) if about.is_file() => gathered.file(&host, name, Some(entry.mode.bits()), false)?,
            Ok(_) => return Err(unusable(&host, "it is neither a file nor a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => gathered.warnings.push(format!(
                "[[file_sync]]: {} is not there and was left out",
                host.display()
            )),
            Err(error) => return Err(unusable(&host, &error.to_string())),
        }
    }
    Ok(gathered)
}

impl Gathered {
    fn directory(&mut self, host: &Path, name: &Path, depth: usize) -> Result<()> {
        let failed = |error: io::Error| unusable(host, &error.to_string());
        if depth >= MAX_DEPTH {
            return Err(unusable(
                host,
                &format!("it is more than {MAX_DEPTH} directories deep"),
            ));
        }
        let about = fs::metadata(host).map_err(failed)?;
        self.directories.push((name.to_owned(), meta(&about, None)));
        self.check_number(host)?;
        let mut entries = fs::read_dir(host)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (host, name) = (entry.path(), name.join(entry.file_name()));
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                self.directory(&host, &name, depth + 1)?;
            } else if kind.is_file() {
                self.file(&host, &name, None, true)?;
            } else {
                let what = if kind.is_symlink() {
                    "a symbolic link"
                } else {
                    "no file"
                };
                self.warnings.push(format!(
                    "[[file_sync]]: {} is {what} and was left out",
                    host.display()
                ));
            }
        }
        Ok(())
    }

    fn file(&mut self, host: &Path, name: &Path, mode: Option<u32>, in_tree: bool) -> Result<()> {
        let failed = |error: io::Error| unusable(host, &error.to_string());
        // What became a FIFO or a link meanwhile does not hold us up.
        let mut flags = rustix::fs::OFlags::NONBLOCK;
        flags.set(rustix::fs::OFlags::NOFOLLOW, in_tree);
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(host)
            .map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(unusable(host, "it is no file any more"));
        }
        let room = MAX_FILE_SYNC_BYTES - self.bytes;
        let mut bytes = Vec::new();
        file.take(room + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > room {
            let most = Size::from_bytes(MAX_FILE_SYNC_BYTES);
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "Cannot bring {} into the guest: all [[file_sync]] files together may have {most}",
                    host.display()
                ),
            )
            .hint("Leave it out of [[file_sync]], and copy it with `banger vm cp`."));
        }
        self.bytes += bytes.len() as u64;
        self.files.push((name.to_owned(), meta(&about, mode), bytes));
        self.check_number(host)
    }

    fn check_number(&self, host: &Path) -> Result<()> {
        if self.files.len() + self.directories.len() > MAX_FILES {
            return Err(unusable(
                host,
                &format!("all entries together have more than {MAX_FILES} files"),
            ));
        }
        Ok(())
    }
}

fn meta(about: &fs::Metadata, mode: Option<u32>) -> Meta {
    Meta {
        mode: mode.unwrap_or(about.mode() & 0o777),
        mtime_ns: about
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(about.mtime_nsec()),
    }
}

fn unusable(host: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::BadConfig,
        format!("Cannot bring {} into the guest: {why}", host.display()),
    )
    .hint("Correct its [[file_sync]] entry, or leave it out.")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use banger_model::Config;

    use super::*;

    fn read(home: &Path, host: &str) -> Result<Gathered> {
        let text = format!("[[file_sync]]\nhost = \"~/{host}\"\nguest = \"~/x/{host}\"\n");
        gather(&Config::parse(&text).unwrap().file_sync, home)
    }

    #[test]
    fn files_have_the_entrys_mode_and_trees_their_own() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("tree/deep")).unwrap();
        fs::write(at("tree/deep/key"), "k").unwrap();
        fs::set_permissions(at("tree/deep/key"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", at("tree/link")).unwrap();
        symlink(at("tree/deep/key"), at("named")).unwrap();
        let tree = read(home.path(), "tree").unwrap();
        let names: Vec<_> = tree
            .files
            .iter()
            .map(|(name, meta, _)| (name.clone(), meta.mode))
            .collect();
        assert_eq!(names, [("x/tree/deep/key".into(), 0o640)]);
        assert_eq!(tree.directories.len(), 2);
        assert!(tree.warnings[0].contains("tree/link"), "{:?}", tree.warnings);
        let named = read(home.path(), "named").unwrap();
        let (name, meta, bytes) = &named.files[0];
        assert_eq!(
            (name.as_path(), meta.mode, &bytes[..]),
            (Path::new("x/named"), 0o600, &b"k"[..])
        );
    }

    #[test]
    fn what_is_missing_is_a_warning_and_all_else_an_error() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let missing = read(home.path(), "missing").unwrap();
        assert!(missing.files.is_empty() && missing.warnings[0].contains("missing"));
        let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::write(at("file"), "").unwrap();
        File::create(at("large"))
            .unwrap()
            .set_len(MAX_FILE_SYNC_BYTES + 1)
            .unwrap();
        for (host, kind) in [
            ("socket", ErrorKind::BadConfig),
            ("loop", ErrorKind::BadConfig),
            ("file/below", ErrorKind::BadConfig),
            ("large", ErrorKind::LimitExceeded),
        ] {
            let error = read(home.path(), host).err().unwrap();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.contains(host), "{error}");
        }
        drop(socket);
    }
}
