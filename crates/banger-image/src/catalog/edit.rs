//! A catalogue that is published: one entry is added or replaced, everything else stays as it
//! is, comments too.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use banger_model::KernelName;
use rustix::fs::{FlockOperation, OFlags, flock};

use super::fragments::{MAX_FRAGMENT, read_text};
use super::{Catalog, is_description};
use crate::bundle::sync_parent;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::PREFIX;

/// The catalogue of a directory of bundles.
const FILE: &str = "catalog.toml";
/// Whoever has it may replace the catalogue.
const LOCK: &str = ".catalog.lock";
/// Between these two an entry is ours to replace.
const BEGIN: &str = "# Published by banger:";
const END: &str = "# End of";
const HEAD: &str =
    "# What can be pulled from here. Copy or link this file into ~/.config/banger/catalog.d.\n";

/// An entry with a bundle as its source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) thing: Thing<'a>,
    pub(crate) name: &'a str,
    pub(crate) description: &'a str,
    pub(crate) url: &'a str,
    pub(crate) sha256: Digest,
    pub(crate) size: u64,
}

/// What an entry is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Thing<'a> {
    Image { kernel: &'a KernelName },
    Kernel,
}

/// Whether the catalogue of a directory has an entry of this name.
pub(crate) fn has(directory: &Path, thing: Thing<'_>, name: &str) -> Result<bool> {
    Ok(Text::read(directory)?.has(thing, name))
}

/// Adds an entry to the catalogue of a directory; the file appears whole or not at all. Waits
/// for another publisher, who has the lock only as long as this takes.
///
/// # Errors
/// [`Error::Replaceable`] unless `replace`, [`Error::Catalogue`] when the file is not a catalogue,
/// or cannot be edited so that the rest of it stays.
pub(crate) fn publish(directory: &Path, entry: &Entry<'_>, replace: bool) -> Result<()> {
    if !is_description(entry.description) {
        return Err(Error::Catalogue {
            origin: directory.join(FILE).display().to_string(),
            reason: "a description is one line of at most 512 bytes".to_owned(),
        });
    }
    let _lock = lock(directory)?;
    let before = Text::read(directory)?;
    if !replace && before.has(entry.thing, entry.name) {
        return Err(entry.thing.exists(entry.name));
    }
    before.with(entry)?.write(directory)
}

impl Thing<'_> {
    const fn word(self) -> &'static str {
        match self {
            Self::Image { .. } => "image",
            Self::Kernel => "kernel",
        }
    }

    pub(crate) fn exists(self, name: &str) -> Error {
        Error::Replaceable {
            what: match self {
                Self::Image { .. } => "The catalogue's entry for image",
                Self::Kernel => "The catalogue's entry for kernel",
            },
            name: name.to_owned(),
        }
    }
}

/// A catalogue's text, and what it says.
struct Text {
    text: String,
    catalog: Catalog,
    origin: String,
    /// Of the file that it is from.
    mode: Option<u32>,
}

impl Text {
    fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let origin = path.display().to_string();
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    text: HEAD.to_owned(),
                    catalog: Catalog::default(),
                    origin,
                    mode: None,
                });
            }
            Err(error) => return Err(Error::io("look at", &path)(error)),
        };
        if !found.is_file() {
            // A link would be replaced by a file, and what it leads to would stay as it is.
            return Err(Error::NotAFile(path));
        }
        Self::parse(
            read_text(&path)?,
            origin,
            Some(found.permissions().mode() & 0o777),
        )
    }

    fn parse(text: String, origin: String, mode: Option<u32>) -> Result<Self> {
        // Where the bundles are does not matter here, only that it can be said.
        let catalog = Catalog::parse_in(&text, &origin, Some(Path::new("/")))?;
        Ok(Self {
            text,
            catalog,
            origin,
            mode,
        })
    }

    fn has(&self, thing: Thing<'_>, name: &str) -> bool {
        match thing {
            Thing::Image { .. } => self.catalog.images.iter().any(|e| e.name.as_str() == name),
            Thing::Kernel => self.catalog.kernels.iter().any(|e| e.name.as_str() == name),
        }
    }

    /// The text with an entry at its end, where it wins over one of the same name.
    fn with(&self, entry: &Entry<'_>) -> Result<Self> {
        let mut text = without(&self.text, entry);
        text.truncate(text.trim_end().len());
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&entry.block());
        if text.len() as u64 > MAX_FRAGMENT {
            return Err(Error::Catalogue {
                origin: self.origin.clone(),
                reason: format!("it would have more than {MAX_FRAGMENT} bytes"),
            });
        }
        let after = Self::parse(text, self.origin.clone(), self.mode)?;
        // Markers in a text of somebody else's could have led the edit astray.
        let others = |text: &Self| {
            let mut others = text.catalog.clone();
            match entry.thing {
                Thing::Image { .. } => others.images.retain(|e| e.name.as_str() != entry.name),
                Thing::Kernel => others.kernels.retain(|e| e.name.as_str() != entry.name),
            }
            others
        };
        if others(self) != others(&after) || !after.has(entry.thing, entry.name) {
            return Err(Error::Catalogue {
                origin: self.origin.clone(),
                reason: "its markers are not where they were written: edit it by hand".to_owned(),
            });
        }
        Ok(after)
    }

    fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let mut file = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(Error::io("write in", directory))?;
        file.write_all(self.text.as_bytes())
            .and_then(|()| match self.mode {
                Some(mode) => file.as_file().set_permissions(Permissions::from_mode(mode)),
                None => Ok(()),
            })
            .and_then(|()| file.as_file().sync_all())
            .map_err(Error::io("write", &path))?;
        file.persist(&path)
            .map_err(|error| Error::io("write", &path)(error.error))?;
        sync_parent(&path)
    }
}

impl Entry<'_> {
    fn begin(&self) -> String {
        format!("{BEGIN} {} {}", self.thing.word(), self.name)
    }

    fn end(&self) -> String {
        format!("{END} {} {}", self.thing.word(), self.name)
    }

    fn block(&self) -> String {
        let word = self.thing.word();
        let mut block = format!(
            "{}\n[[{word}]]\nname = {}\ndescription = {}\n",
            self.begin(),
            quoted(self.name),
            quoted(self.description),
        );
        if let Thing::Image { kernel } = self.thing {
            // Writing into a string cannot fail.
            _ = writeln!(block, "kernel = {}", quoted(kernel.as_str()));
        }
        _ = writeln!(
            block,
            "\n[[{word}.source]]\ntype = \"bundle\"\nurl = {}\nsha256 = \"{}\"\nsize = {}\n{}",
            quoted(self.url),
            self.sha256.hex(),
            self.size,
            self.end(),
        );
        block
    }
}

/// A text without the entry that was published under a name before.
fn without(text: &str, entry: &Entry<'_>) -> String {
    let (begin, end) = (entry.begin(), entry.end());
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == begin {
            // To its end, which a hand may have removed: then to the end of the file, and the
            // comparison refuses it when something else stood there.
            _ = lines.by_ref().find(|line| *line == end);
            // One empty line on each side would become two.
            kept.truncate(kept.trim_end().len());
            if !kept.is_empty() {
                kept.push('\n');
            }
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// A basic string of TOML, of a text without control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(Error::io("open", &path))?;
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::os("lock", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{ImageSource, KernelSource};

    fn entry<'a>(kernel: &'a KernelName, name: &'a str, description: &'a str) -> Entry<'a> {
        Entry {
            thing: Thing::Image { kernel },
            name,
            description,
            url: "x.tar.zst",
            sha256: Digest::of(name.as_bytes()),
            size: 7,
        }
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join(FILE)).unwrap()
    }

    #[test]
    fn what_others_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let kernel: KernelName = "debian-6.1".parse().unwrap();
        let mine = "# My own.\n[[kernel]] # odd\nname = 'k'\ndescription = '''x'''\nsource = [{type='debian-package', suite='sid', package='a'}]";
        fs::write(dir.path().join(FILE), mine).unwrap();
        fs::set_permissions(dir.path().join(FILE), Permissions::from_mode(0o640)).unwrap();
        publish(dir.path(), &entry(&kernel, "a/b:1", "say \"hi\" \\ it"), false).unwrap();
        publish(dir.path(), &entry(&kernel, "a/b:2", "second"), false).unwrap();
        assert!(matches!(
            publish(dir.path(), &entry(&kernel, "a/b:1", "again"), false),
            Err(Error::Replaceable { .. })
        ));
        let before = text(dir.path());
        assert!(before.starts_with(mine), "{before}");
        publish(dir.path(), &entry(&kernel, "a/b:1", "again"), true).unwrap();
        let after = text(dir.path());
        assert!(after.starts_with(mine), "{after}");
        assert_eq!(after.matches("[[image]]").count(), 2);
        assert!(!after.contains("\n\n\n"), "{after}");
        let catalog = Catalog::read(&dir.path().join(FILE)).unwrap();
        let image = catalog.image(&"a/b:1".parse().unwrap()).unwrap();
        assert_eq!(image.description, "again");
        let ImageSource::Bundle(bundle) = &image.sources[0] else {
            panic!("another source");
        };
        assert_eq!((bundle.sha256, bundle.size), (Digest::of(b"a/b:1"), 7));
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_entry_by_hand_is_overridden_by_choice() {
        let dir = tempfile::tempdir().unwrap();
        let kernel: KernelName = "k".parse().unwrap();
        let mine = "[[image]]\nname = 'a'\ndescription = 'mine'\nkernel = 'k'\n[[image.source]]\ntype = 'recipe'\nsuite = 'sid'\npackages = []\n";
        fs::write(dir.path().join(FILE), mine).unwrap();
        assert!(has(dir.path(), Thing::Image { kernel: &kernel }, "a").unwrap());
        assert!(!has(dir.path(), Thing::Kernel, "a").unwrap());
        assert!(publish(dir.path(), &entry(&kernel, "a", "theirs"), false).is_err());
        publish(dir.path(), &entry(&kernel, "a", "theirs"), true).unwrap();
        let catalog = Catalog::read(&dir.path().join(FILE)).unwrap();
        assert_eq!(
            catalog.image(&"a".parse().unwrap()).unwrap().description,
            "theirs"
        );
        assert!(text(dir.path()).starts_with(mine));
    }

    #[test]
    fn a_kernel_has_no_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let none: KernelName = "none".parse().unwrap();
        let kernel = Entry {
            thing: Thing::Kernel,
            ..entry(&none, "6.1.0-9", "Linux")
        };
        publish(dir.path(), &kernel, false).unwrap();
        let catalog = Catalog::read(&dir.path().join(FILE)).unwrap();
        let found = catalog.kernel(&"6.1.0-9".parse().unwrap()).unwrap();
        assert!(matches!(&found.sources[..], [KernelSource::Bundle(_)]));
        assert!(text(dir.path()).starts_with(HEAD));
    }

    #[test]
    fn what_cannot_be_edited_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let kernel: KernelName = "k".parse().unwrap();
        let other = entry(&kernel, "b", "other").block();
        let a = entry(&kernel, "a", "");
        for (bad, word) in [
            ("[[image".to_owned(), "line 1"),
            ("image = []\n".to_owned(), "line"),
            // Without its end the entry after it would go, too.
            (format!("{}\n{other}", a.block().replace(&a.end(), "")), "by hand"),
            ("# x\n".repeat(MAX_FRAGMENT as usize / 4), "more than"),
        ] {
            fs::write(dir.path().join(FILE), &bad).unwrap();
            let error = publish(dir.path(), &a, true).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(text(dir.path()) == bad);
        }
        assert!(matches!(
            publish(dir.path(), &entry(&kernel, "a", "two\nlines"), true),
            Err(Error::Catalogue { .. })
        ));
        fs::remove_file(dir.path().join(FILE)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(FILE)).unwrap();
        assert!(matches!(publish(dir.path(), &a, true), Err(Error::NotAFile(_))));
    }

    #[test]
    fn publishers_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let kernel: KernelName = "k".parse().unwrap();
        std::thread::scope(|scope| {
            for i in 0..8 {
                let (dir, kernel) = (dir.path(), &kernel);
                scope.spawn(move || publish(dir, &entry(kernel, &format!("a{i}"), ""), false).unwrap());
            }
        });
        let catalog = Catalog::read(&dir.path().join(FILE)).unwrap();
        assert_eq!(catalog.images().count(), 8);
    }

    #[test]
    fn a_taken_name_names_the_way_to_replace_it() {
        let dir = tempfile::tempdir().unwrap();
        let kernel: KernelName = "debian-6.1".parse().unwrap();
        publish(dir.path(), &entry(&kernel, "a:1", "x"), false).unwrap();
        let error = publish(dir.path(), &entry(&kernel, "a:1", "x"), false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The catalogue's entry for image a:1 exists: choose another name, or replace it with --force"
        );
    }
}
