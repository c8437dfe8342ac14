//! The files of an installation: the programs of a build, and what tells systemd, the buses and
//! polkit about them. Packages install the same ones.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::layout::{Layout, Place};
use crate::error::{Error, Result};

/// A file as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Absolute, below no other root.
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

const PROGRAMS: [(&str, Place); 4] = [
    ("banger", Place::Bin),
    ("bangerd", Place::Libexec),
    ("banger-helper", Place::Libexec),
    ("banger-guest", Place::Libexec),
];

macro_rules! texts {
    ($($place:ident $folder:literal $name:literal $(as $source:literal)?;)+) => {
        /// Each text with where it goes, under which name.
        const TEXTS: &[(Place, &str, &str)] = &[$(
            (Place::$place, $name, texts!(@ $folder $name $($source)?)),
        )+];
    };
    (@ $folder:literal $name:literal) => {
        include_str!(concat!("../../../../", $folder, "/", $name))
    };
    (@ $folder:literal $name:literal $source:literal) => {
        include_str!(concat!("../../../../", $folder, "/", $source))
    };
}

texts! {
    UserUnit "systemd" "bangerd.service" as "bangerd.service.in";
    SessionService "dbus" "org.banger.Manager.service" as "org.banger.Manager.service.in";
    SystemUnit "systemd" "banger-network.service" as "banger-network.service.in";
    SystemUnit "systemd" "banger-helper.service" as "banger-helper.service.in";
    SystemService "dbus" "org.banger.Helper.service" as "org.banger.Helper.service.in";
    BusPolicy "dbus" "org.banger.Helper.conf";
    PolkitActions "polkit" "org.banger.helper.policy";
    PolkitRules "polkit" "50-banger.rules";
    Sysusers "systemd" "banger.conf" as "banger.sysusers";
    Network "systemd" "10-banger.network";
    NetworkManager "systemd" "10-banger.conf" as "10-banger.NetworkManager.conf";
    Catalog "systemd" "banger.catalog";
    Interfaces "dbus" "org.banger.Helper.xml";
    Interfaces "dbus" "org.banger.Image.xml";
    Interfaces "dbus" "org.banger.Job.xml";
    Interfaces "dbus" "org.banger.Kernel.xml";
    Interfaces "dbus" "org.banger.Manager.xml";
    Interfaces "dbus" "org.banger.Process.xml";
    Interfaces "dbus" "org.banger.VM.xml";
    Documents "." "LICENSE";
}

/// All files, the programs last: what starts them is in place before somebody can call it.
///
/// # Errors
/// When a program cannot be read.
pub(super) fn all(layout: &Layout, build: &Build) -> Result<Vec<File>> {
    let mut files: Vec<_> = TEXTS
        .iter()
        .map(|(place, name, text)| File {
            path: layout.directory(*place).join(name),
            mode: 0o644,
            content: filled(text, layout).into_bytes(),
        })
        .collect();
    for (name, place) in PROGRAMS {
        let source = build.program(name);
        files.push(File {
            path: layout.directory(place).join(name),
            mode: 0o755,
            content: fs::read(source).map_err(|e| Error::io(format!("Cannot read {source:?}"), e))?,
        });
    }
    Ok(files)
}

fn filled(text: &str, layout: &Layout) -> String {
    let path = |place| layout.directory(place).display().to_string();
    text.replace("@libexecdir@", &path(Place::Libexec))
        .replace("@bindir@", &path(Place::Bin))
}

/// The programs that belong to this one: beside it, as a build leaves them, or in the prefix in
/// which it is installed.
#[derive(Debug)]
pub(super) struct Build {
    programs: Vec<(&'static str, PathBuf)>,
    /// Where the build is installed, if it is.
    pub(super) prefix: Option<PathBuf>,
}

impl Build {
    /// # Errors
    /// When a program is missing.
    pub(super) fn own() -> Result<Self> {
        let exe = env::current_exe().map_err(|e| Error::io("Cannot tell where this program is", e))?;
        Self::of(exe.parent().unwrap_or(Path::new("/")))
    }

    fn of(directory: &Path) -> Result<Self> {
        let prefix = directory
            .parent()
            .filter(|prefix| directory.ends_with("bin") && prefix.join("lib/banger/bangerd").is_file());
        let mut programs = Vec::new();
        for (name, place) in PROGRAMS {
            let path = match (prefix, place) {
                (Some(prefix), Place::Libexec) => prefix.join("lib/banger").join(name),
                _ => directory.join(name),
            };
            if !path.is_file() {
                return Err(Error::refused(
                    format!("Cannot find the program `{name}` at {path:?}"),
                    "Run `banger system install` from a whole build (make release) or from an installation",
                ));
            }
            programs.push((name, path));
        }
        Ok(Self {
            programs,
            prefix: prefix.map(Path::to_owned),
        })
    }

    #[cfg(test)]
    pub(super) fn test(prefix: Option<&Path>) -> Self {
        Self {
            programs: Vec::new(),
            prefix: prefix.map(Path::to_owned),
        }
    }

    fn program(&self, name: &str) -> &Path {
        let found = self.programs.iter().find(|(own, _)| *own == name);
        found.map_or(Path::new(""), |(_, path)| path)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn build(programs: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for program in programs {
            let path = dir.path().join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, program).unwrap();
        }
        dir
    }

    #[test]
    fn programs_are_found_beside_this_one_and_in_a_prefix() {
        let flat = build(&["banger", "bangerd", "banger-helper", "banger-guest"]);
        let found = Build::of(flat.path()).unwrap();
        assert_eq!(found.prefix, None);
        assert_eq!(found.program("banger-helper"), flat.path().join("banger-helper"));

        let lib = [
            "lib/banger/bangerd",
            "lib/banger/banger-helper",
            "lib/banger/banger-guest",
        ];
        let prefix = build(&[&["bin/banger"], &lib[..]].concat());
        let found = Build::of(&prefix.path().join("bin")).unwrap();
        assert_eq!(found.prefix.as_deref(), Some(prefix.path()));

        let part = build(&["banger", "bangerd"]);
        let error = Build::of(part.path()).unwrap_err().to_string();
        assert!(error.contains("banger-helper") && error.contains('\n'), "{error}");
    }

    #[test]
    fn every_file_has_a_place_of_its_own_and_nothing_is_left_open() {
        let flat = build(&["banger", "bangerd", "banger-helper", "banger-guest"]);
        let build = Build::of(flat.path()).unwrap();
        for prefix in ["/usr", "/usr/local", "/opt/banger"] {
            let layout = Layout::new(Path::new(prefix));
            let files = all(&layout, &build).unwrap();
            let mut seen = HashSet::new();
            for file in &files {
                assert!(
                    file.path.is_absolute() && seen.insert(&file.path),
                    "{:?}",
                    file.path
                );
                let text = String::from_utf8_lossy(&file.content);
                let open = text.find('@').filter(|at| {
                    text[at + 1..].starts_with(|c: char| c.is_ascii_lowercase())
                        && text[at + 1..].contains("dir@")
                });
                assert!(open.is_none(), "{:?}: {text}", file.path);
            }
        }
    }
}
