//! A root file system built by `mmdebstrap` from Debian's signed archive, streamed into an
//! image: without root in a user namespace, and in neither case on a mounted image.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::Cancel;
use crate::apt::{self, ARCHITECTURE, Mirrors};
use crate::catalog::Recipe;
use crate::error::{Error, Result, full};
use crate::ext4::{self, Summary, WriteError, Writer};
use crate::process::{APT_GET, MMDEBSTRAP, NEWUIDMAP, UNSHARE};
use crate::progress::Progress;
use crate::store::{self, Build};

/// What `mmdebstrap` does at the end, in the new root, which is `$1`. What makes a machine
/// itself comes from its owner at every boot, and must not be shared by all of an image.
const HOOKS: [&str; 5] = [
    r#"rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/resolv.conf "$1"/etc/hostname"#,
    // Empty, not missing: systemd then takes the boot for none of the first ones.
    r#": > "$1"/etc/machine-id; rm -f "$1"/var/lib/dbus/machine-id"#,
    r#"echo LANG=C.UTF-8 > "$1"/etc/default/locale"#,
    r#"chroot "$1" apt-get clean"#,
    // Safe io is for disks that survive a crash; the guest's disk is one again.
    r#"sed -i /^force-unsafe-io/d "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap"#,
];
/// What a slim image is built without.
const SLIM: [&str; 6] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
];
/// Space that a build needs beside its image, and that a failure names.
const SCRATCH: u64 = 2 << 30;

/// Builds a root file system into the new file `target` in the directory of `build`.
///
/// # Errors
/// [`Error::MissingTool`], [`Error::NoSubordinateIds`], what `mmdebstrap` or apt say,
/// [`Error::NoSpace`]. The target is then of no use.
pub(crate) fn run(
    recipe: &Recipe,
    mirrors: &Mirrors,
    build: &Build,
    target: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Summary> {
    let mode = Mode::choose(cancel)?;
    let scratch = Scratch::make(mode, build)?;
    let command = command(recipe, mirrors, mode, &scratch)?;
    let mut writer = Writer::create(target).map_err(|e| write_error(target, 0, e))?;
    let stages = Mutex::new(Stages::default());
    progress.stage("Starting mmdebstrap");
    let line = |line: &str| {
        if let Ok(mut stages) = stages.lock() {
            stages.line(line, progress);
        }
    };
    let unpack = |out: &mut dyn Read| {
        let result = ext4::unpack(out, &mut writer, |_| {
            cancel.check().map_err(|_| WriteError::Cancelled)
        });
        result.map_err(|error| write_error(target, writer.written(), error))
    };
    MMDEBSTRAP
        .run(command, cancel, line, unpack)
        .map_err(|error| scratch.explain(error))?;
    scratch.remove()?;
    progress.stage("Finishing the file system");
    let written = writer.written();
    writer
        .finish()
        .map_err(|error| write_error(target, written, error))
}

/// How `mmdebstrap` gets a root of its own. Whatever it mounts there is mounted in a
/// namespace of its own, and gone with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// In a user namespace.
    User,
    /// As root, in a mount namespace.
    Root,
    /// As root without the capability to mount, as in a container.
    Bare,
}

impl Mode {
    fn choose(cancel: &Cancel) -> Result<Self> {
        MMDEBSTRAP.find()?;
        APT_GET.find()?;
        apt::keyring()?;
        if !rustix::process::geteuid().is_root() {
            NEWUIDMAP.find()?;
            check_subordinate_ids()?;
            return Ok(Self::User);
        }
        let mut probe = UNSHARE.command()?;
        probe.args(["--mount", "--propagation", "unchanged", "--", "true"]);
        match UNSHARE.output(probe, cancel, 0) {
            Ok(_) => Ok(Self::Root),
            Err(Error::Tool { .. }) => Ok(Self::Bare),
            Err(error) => Err(error),
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::User | Self::Root => "--mode=unshare",
            Self::Bare => "--mode=root",
        }
    }
}

fn command(recipe: &Recipe, mirrors: &Mirrors, mode: Mode, scratch: &Scratch) -> Result<Command> {
    let mut command = MMDEBSTRAP.command()?;
    let packages: Vec<&str> = recipe.packages.iter().map(|word| word.as_str()).collect();
    command
        .args(["--variant=minbase", "--format=tar", "--verbose"])
        .arg(mode.option())
        .arg(format!("--architectures={ARCHITECTURE}"))
        .arg(format!("--include={}", packages.join(",")))
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .arg("--dpkgopt=force-unsafe-io");
    if recipe.slim {
        command.args(SLIM.map(|option| format!("--dpkgopt={option}")));
    }
    command
        .args(HOOKS.map(|hook| format!("--customize-hook={hook}")))
        .args([recipe.suite.as_str(), "-"])
        .args(apt::sources(mirrors, &recipe.suite, &recipe.components)?)
        .env("TMPDIR", &scratch.dir)
        .current_dir("/")
        // Held by the whole build: its directory is not swept while a part of it lives.
        .stdin(
            scratch
                .lock
                .try_clone()
                .map_err(Error::io("lock", &scratch.dir))?,
        );
    Ok(command)
}

/// Where `mmdebstrap` builds the tree that it packs.
struct Scratch {
    dir: PathBuf,
    lock: File,
    /// A directory of its own, removed with this.
    _own: Option<Build>,
}

impl Scratch {
    /// In a user namespace root is one of the user's subordinate ids, which gets through no
    /// private directory: then it is in `/var/tmp`, under a name that nobody can guess.
    fn make(mode: Mode, build: &Build) -> Result<Self> {
        let own = if mode == Mode::User {
            let parent = Path::new("/var/tmp");
            store::sweep(parent)?;
            Some(Build::begin(parent)?)
        } else {
            None
        };
        let holder = own.as_ref().unwrap_or(build);
        let dir = holder.dir().join("root");
        store::make_dir(&dir)?;
        for dir in [holder.dir(), &dir] {
            fs::set_permissions(dir, Permissions::from_mode(0o711)).map_err(Error::io("open up", dir))?;
        }
        Ok(Self {
            lock: holder.lock()?,
            dir,
            _own: own,
        })
    }

    /// Empties it, so that nothing of it is published.
    fn remove(self) -> Result<()> {
        store::remove_tree(&self.dir).map_err(Error::io("remove", &self.dir))
    }

    /// A tool's own full disk is this one; the writer's has its figures already.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::Tool { .. } => apt::no_space(error, &self.dir, SCRATCH),
            other => other,
        }
    }
}

/// Gives an error of the writer its object. Of the file `written` bytes are there; at least
/// half as much again will be needed.
pub(crate) fn write_error(target: &Path, written: u64, error: WriteError) -> Error {
    match error {
        WriteError::Cancelled => Error::Cancelled,
        WriteError::Write(error) if full(&error).is_some() => {
            Error::io_needing("write", target, written / 2 + (64 << 20), error)
        }
        WriteError::Write(error) => Error::io("write", target)(error),
        source => Error::Ext4 {
            path: target.to_owned(),
            source,
        },
    }
}

/// A user namespace with more than one id needs a range for this user.
fn check_subordinate_ids() -> Result<()> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?))
        })
        .find(|&(_, id)| id == uid)
        .map_or_else(|| uid.clone(), |(name, _)| name.to_owned());
    for file in ["/etc/subuid", "/etc/subgid"] {
        let ranges = fs::read_to_string(PathBuf::from(file)).unwrap_or_default();
        let mine = |line: &str| {
            let owner = line.split(':').next();
            owner == Some(&user) || owner == Some(&uid)
        };
        if !ranges.lines().any(mine) {
            return Err(Error::NoSubordinateIds { user });
        }
    }
    Ok(())
}

/// Reads where `mmdebstrap` is from what it and its children print.
#[derive(Default)]
struct Stages {
    /// Packages to be handled in this stage, and steps done: each is unpacked and set up.
    packages: u32,
    steps: u32,
}

/// What `mmdebstrap` says when a stage begins, and what we call it.
const STAGES: [(&str, &str); 6] = [
    ("running apt-get update", "Reading the package lists"),
    ("downloading packages", "Downloading the base system"),
    ("extracting archives", "Unpacking the base system"),
    ("installing essential packages", "Configuring the base system"),
    ("installing remaining packages", "Installing packages"),
    ("creating tarball", "Writing the image"),
];

impl Stages {
    fn line(&mut self, line: &str, progress: &dyn Progress) {
        if let Some(text) = line.strip_prefix("I: ") {
            if let Some((_, stage)) = STAGES.iter().find(|(says, _)| text.starts_with(says)) {
                *self = Self::default();
                progress.stage(stage);
            }
        } else if let Some(count) = newly_installed(line) {
            self.packages = count;
        } else if ["Unpacking ", "Setting up "]
            .iter()
            .any(|says| line.starts_with(says))
        {
            self.steps += 1;
            if self.packages > 0 {
                progress.fraction((f64::from(self.steps) / f64::from(2 * self.packages)).min(1.0));
            }
            progress.message(line);
        } else if line.starts_with("Get:") {
            progress.message(line);
        }
    }
}

/// The number in apt's "0 upgraded, 12 newly installed, 0 to remove …".
fn newly_installed(line: &str) -> Option<u32> {
    let (before, _) = line.split_once(" newly installed")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Record(Mutex<Vec<String>>);

    impl Progress for Record {
        fn stage(&self, stage: &str) {
            self.0.lock().unwrap().push(stage.to_owned());
        }
        fn fraction(&self, done: f64) {
            self.0.lock().unwrap().push(format!("{done:.2}"));
        }
        fn message(&self, _: &str) {}
    }

    #[test]
    fn stages_and_fractions_are_read() {
        let record = Record::default();
        let mut stages = Stages::default();
        for line in [
            "I: automatically chosen format: tar",
            "I: installing remaining packages inside the chroot...",
            "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
            "Unpacking a (1) ...",
            "Unpacking b (1) ...",
            "Setting up a (1) ...",
            "Setting up b (1) ...",
            "Setting up again (1) ...",
            "I: creating tarball...",
        ] {
            stages.line(line, &record);
        }
        assert_eq!(
            *record.0.lock().unwrap(),
            [
                "Installing packages",
                "0.25",
                "0.50",
                "0.75",
                "1.00",
                "1.00",
                "Writing the image"
            ]
        );
    }

    #[test]
    fn errors_of_the_writer_get_their_object() {
        let target = Path::new("/images/.tmp/rootfs.ext4");
        let full = WriteError::Write(std::io::ErrorKind::StorageFull.into());
        assert!(matches!(
            write_error(target, 1 << 30, full),
            Error::NoSpace { needed, .. } if needed > 1 << 29
        ));
        assert!(matches!(
            write_error(target, 0, WriteError::Cancelled),
            Error::Cancelled
        ));
        assert!(matches!(
            write_error(target, 0, WriteError::TooLarge),
            Error::Ext4 { .. }
        ));
    }
}
