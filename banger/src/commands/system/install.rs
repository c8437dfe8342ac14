//! `banger system install`.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{FlockOperation, flock};

use banger_model::slot::NETWORK_UNIT;

use super::files::{self, Build};
use super::layout::{Layout, Place};
use super::manifest::Manifest;
use super::units::HELPER_UNIT;
use super::{host, place, restart, status, units};
use crate::error::{Error, Result};
use crate::output;

/// Turn system mode on: the helper, its network, polkit's actions and the group `banger`
///
/// Run it as root from an unpacked build, or from an installed package, whose files it then only
/// enables. It can be run again at any time: to finish what was interrupted, or to put a newer
/// build in the place of an older one. VMs that run go on running.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Install below this directory (by default where it is installed, or /usr/local)
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// Overwrite files that somebody else wrote or changed
    #[arg(long)]
    force: bool,
    /// For packages: write all files below DIR, and enable nothing
    #[arg(long, value_name = "DIR", conflicts_with = "force")]
    destdir: Option<PathBuf>,
}

/// The machine's own root.
const ROOT: &str = "/";

impl Install {
    pub(crate) async fn run(self) -> Result<()> {
        let build = Build::own()?;
        if let Some(destdir) = &self.destdir {
            return self.stage(destdir, &build);
        }
        host::root("install")?;
        host::check().await?;
        let _lock = lock()?;
        let root = Path::new(ROOT);
        let before = Manifest::load(root)?;
        let layout = Layout::new(&self.prefix(before.as_ref(), &build)?);
        let packaged = before.as_ref().is_none_or(|manifest| manifest.packaged)
            && build.prefix.as_deref() == Some(layout.prefix())
            && layout
                .directory(Place::SystemUnit)
                .join(units::HELPER_UNIT)
                .exists();
        let before = before.unwrap_or_default();
        let mut manifest = if packaged {
            output::note("The files are a package's: only enabling them");
            let manifest = Manifest {
                prefix: layout.prefix().to_owned(),
                packaged: true,
                ..before
            };
            manifest.save(root)?;
            manifest
        } else {
            self.place(root, &layout, &build, &before)?
        };
        manifest.version = env!("CARGO_PKG_VERSION").to_owned();
        self.enable(root, &layout, manifest)
            .await
            .map_err(|error| unfinished(&error))?;
        output::note("System mode is on. Who sits at this machine needs no password for his VMs;");
        output::note("elsewhere members of the group `banger` need none: usermod -aG banger NAME");
        status::after_install().await
    }

    /// Writes the files for a package.
    fn stage(&self, destdir: &Path, build: &Build) -> Result<()> {
        let prefix = self.prefix.clone().unwrap_or_else(|| PathBuf::from("/usr"));
        let files = files::all(&Layout::new(&absolute(&prefix)?), build)?;
        let mut plan = place::plan(destdir, &files, &Manifest::default())?;
        // Whoever builds a package, or is his own packager, knows what he replaces.
        plan.write.append(&mut plan.foreign);
        place::apply(destdir, &files, &plan)
    }

    fn prefix(&self, before: Option<&Manifest>, build: &Build) -> Result<PathBuf> {
        let default = || {
            build
                .prefix
                .clone()
                .unwrap_or_else(|| PathBuf::from("/usr/local"))
        };
        match (&self.prefix, before) {
            (Some(prefix), Some(before)) if *prefix != before.prefix => Err(Error::refused(
                format!("System mode is installed below {:?} already", before.prefix),
                "Remove it first with `banger system uninstall`, or leave --prefix out",
            )),
            (Some(prefix), _) => absolute(prefix),
            (None, Some(before)) => Ok(before.prefix.clone()),
            (None, None) => Ok(default()),
        }
    }

    fn place(&self, root: &Path, layout: &Layout, build: &Build, before: &Manifest) -> Result<Manifest> {
        let files = files::all(layout, build)?;
        let plan = place::plan(root, &files, before)?;
        if !plan.foreign.is_empty() && !self.force {
            let names: Vec<_> = plan
                .foreign
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            return Err(Error::refused(
                format!(
                    "Not written by this installation, or changed since: {}",
                    names.join(", ")
                ),
                "Move them away and try again, or overwrite them with --force; nothing was changed",
            ));
        }
        let mut during = place::during(before, &files, &plan);
        during.prefix = layout.prefix().to_owned();
        during.packaged = false;
        during.save(root)?;
        place::apply(root, &files, &plan).map_err(|error| unfinished(&error))?;
        let (changed, errors) = place::remove(root, &plan.remove, before, self.force);
        for path in changed {
            output::note(&format!(
                "Not needed any more, but changed since: {}",
                path.display()
            ));
        }
        if let Some(error) = errors.into_iter().next() {
            return Err(unfinished(&error));
        }
        let mut after = place::after(&during, &files, &plan);
        after.save(root)?;
        after.complete = true;
        Ok(after)
    }

    async fn enable(&self, root: &Path, layout: &Layout, mut manifest: Manifest) -> Result<()> {
        if !units::group_exists().await? {
            manifest.group = true;
            manifest.save(root)?;
            let file = layout.directory(Place::Sysusers).join("banger.conf");
            units::run("systemd-sysusers", &[&file.display().to_string()]).await?;
        }
        units::reload().await?;
        units::systemctl(&["enable", NETWORK_UNIT, HELPER_UNIT]).await?;
        restart::start().await?;
        manifest.complete = true;
        manifest.save(root)
    }
}

fn absolute(prefix: &Path) -> Result<PathBuf> {
    if prefix.is_absolute() {
        // Without a slash at the end, which would make it another one.
        Ok(prefix.components().collect())
    } else {
        Err(Error::refused(
            format!("Not an absolute path: {prefix:?}"),
            "Give the directory from the root on, as in --prefix /usr/local",
        ))
    }
}

/// Says that a part was done and what to do.
fn unfinished(error: &Error) -> Error {
    let text = error.to_string();
    let (what, hint) = text.split_once('\n').unwrap_or((&text, ""));
    let source = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
    Error::refused(
        format!("The installation is not complete: {what}{source}"),
        &format!(
            "{hint}{}Run `banger system install` again to go on, or `banger system uninstall` to take it back",
            if hint.is_empty() { "" } else { "\n" }
        ),
    )
}

/// Keeps two administrators from installing at once.
pub(super) fn lock() -> Result<File> {
    // A directory that is there before and afterwards: a file would have to be left.
    let path = Path::new("/var/lib");
    let file = File::open(path).map_err(|e| Error::io(format!("Cannot open {path:?}"), e))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::refused(
            "Another `banger system` command is at work",
            "Wait for its end, then try again",
        )
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_failed_says_how_to_go_on() {
        let error = unfinished(&Error::io("Cannot write \"/a\"", std::io::Error::other("full")));
        let text = error.to_string();
        assert!(
            text.contains("Cannot write \"/a\": full") && text.contains("again to go on"),
            "{text}"
        );
        let error = unfinished(&Error::refused("No", "Look there"));
        assert!(error.to_string().contains("\nLook there\nRun"), "{error}");
    }

    #[test]
    fn another_prefix_is_refused_while_one_is_there() {
        let install = |prefix: Option<&str>| Install {
            prefix: prefix.map(PathBuf::from),
            force: false,
            destdir: None,
        };
        let build = |prefix: Option<&str>| Build::test(prefix.map(Path::new));
        let there = Manifest {
            prefix: "/usr/local".into(),
            ..Manifest::default()
        };
        assert!(
            install(Some("/opt/b"))
                .prefix(Some(&there), &build(None))
                .is_err()
        );
        assert!(install(Some("opt")).prefix(None, &build(None)).is_err());
        for (wanted, before, own, expected) in [
            (None, None, None, "/usr/local"),
            (None, None, Some("/usr"), "/usr"),
            (None, Some(&there), Some("/usr"), "/usr/local"),
            (Some("/opt/b/"), None, None, "/opt/b"),
            (Some("/usr/local"), Some(&there), None, "/usr/local"),
        ] {
            let prefix = install(wanted).prefix(before, &build(own)).unwrap();
            assert_eq!(prefix, Path::new(expected));
        }
    }
}
