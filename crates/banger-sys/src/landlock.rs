//! What a launched program may reach, as data, and the Landlock rules made of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};
use serde::{Deserialize, Serialize};

/// The newest interface whose rights are asked for; older kernels give what they have.
/// Later ones would need rules for sockets that are connected by path.
const TARGET: ABI = ABI::V6;

/// The first version of the interface with everything that [`Confinement`] asks for.
pub const WHOLE: u32 = 6;

/// The version of this kernel's interface; `None` where Landlock is not there or is off.
pub fn version() -> Option<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION` of linux/landlock.h.
    const VERSION: libc::c_ulong = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call takes no attributes, makes nothing and answers a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Everything not listed is refused: every file right, TCP where it is `Some`, and with
/// `scoped` also signals to processes outside and abstract unix sockets of others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    pub files: Vec<FileRule>,
    /// The TCP ports that may be bound (0: whichever the kernel picks); `None`: all.
    pub tcp_bind: Option<Vec<u16>>,
    /// The TCP ports that may be connected to; `None`: all.
    pub tcp_connect: Option<Vec<u16>>,
    pub scoped: bool,
}

/// One thing that may be reached, and everything below it when it is a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    pub object: Object,
    pub access: FileAccess,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// Skipped when it does not exist.
    Path(PathBuf),
    /// A descriptor of the launched program, to be opened again by `/proc/self/fd/N`.
    Descriptor(RawFd),
}

/// What may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAccess {
    Read,
    ReadExecute,
    /// Read, write and truncate files; neither create nor delete.
    Write,
    /// Read, write, and the device's own ioctls.
    Device,
    /// Make unix sockets in a directory, and neither remove nor replace anything.
    Sockets,
    /// Read, write, make, rename and delete files in a directory.
    Own,
}

/// How much of it the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    Full,
    /// An older Landlock: some rights are not restricted.
    Partial,
    /// No Landlock.
    None,
}

impl FileRule {
    pub fn path(path: impl Into<PathBuf>, access: FileAccess) -> Self {
        let object = Object::Path(path.into());
        Self { object, access }
    }

    pub fn descriptor(fd: RawFd, access: FileAccess) -> Self {
        let object = Object::Descriptor(fd);
        Self { object, access }
    }
}

/// Restricts this process and what it starts, forever, and sets no-new-privileges for it. To be
/// called while there is one thread: only the calling one is restricted, and those that it makes.
/// Objects must be paths.
///
/// # Errors
/// When the kernel has Landlock and refuses.
pub fn restrict_self(confinement: &Confinement) -> io::Result<Enforcement> {
    rustix::thread::set_no_new_privs(true)?;
    restrict(confinement, |_| None)
}

/// As [`restrict_self`], for a thread that launches programs with confinements of their own:
/// executing, making, deleting and a device's ioctls are restricted; reading, writing and sockets
/// are left to the program's own rules, which know its descriptors.
///
/// # Errors
/// As there.
pub fn restrict_launching(confinement: &Confinement) -> io::Result<Enforcement> {
    let left = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeSock;
    restrict_rights(confinement, AccessFs::from_all(TARGET) & !left, |_| None)
}

/// Restricts the calling thread and what it starts or becomes, forever. `descriptors` finds
/// the open file of an [`Object::Descriptor`].
pub(crate) fn restrict<'fd>(
    confinement: &Confinement,
    descriptors: impl Fn(RawFd) -> Option<BorrowedFd<'fd>>,
) -> io::Result<Enforcement> {
    restrict_rights(confinement, AccessFs::from_all(TARGET), descriptors)
}

fn restrict_rights<'fd>(
    confinement: &Confinement,
    handled: BitFlags<AccessFs>,
    descriptors: impl Fn(RawFd) -> Option<BorrowedFd<'fd>>,
) -> io::Result<Enforcement> {
    let mut rules = ruleset(confinement, handled).map_err(io::Error::other)?;
    for rule in &confinement.files {
        rules = match &rule.object {
            Object::Path(path) => match PathFd::new(path) {
                Ok(fd) => add(rules, fd, rights(rule.access) & handled)?,
                Err(_) => rules,
            },
            Object::Descriptor(number) => {
                let fd = descriptors(*number)
                    .ok_or_else(|| io::Error::other(format!("No descriptor {number} for a Landlock rule")))?;
                add(rules, fd, rights(rule.access) & handled)?
            }
        };
    }
    let status = rules.restrict_self().map_err(io::Error::other)?;
    Ok(enforcement(&status))
}

fn ruleset(confinement: &Confinement, handled: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?;
    if confinement.tcp_bind.is_some() {
        ruleset = ruleset.handle_access(AccessNet::BindTcp)?;
    }
    if confinement.tcp_connect.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    if confinement.scoped {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    }
    let mut created = ruleset.create()?;
    for (ports, access) in [
        (&confinement.tcp_bind, AccessNet::BindTcp),
        (&confinement.tcp_connect, AccessNet::ConnectTcp),
    ] {
        for port in ports.iter().flatten() {
            created = created.add_rule(NetPort::new(*port, access))?;
        }
    }
    Ok(created)
}

fn add(rules: RulesetCreated, fd: impl AsFd, mut rights: BitFlags<AccessFs>) -> io::Result<RulesetCreated> {
    // A file system that somebody implements must not hold up who is not in its scope yet.
    let known = crate::file::known(&fd)?;
    let is_directory = rustix::fs::FileType::from_raw_mode(known.stx_mode.into()).is_dir();
    if !is_directory {
        rights &= AccessFs::from_file(TARGET);
    }
    if rights.is_empty() {
        return Ok(rules);
    }
    rules
        .add_rule(PathBeneath::new(fd, rights))
        .map_err(io::Error::other)
}

fn rights(access: FileAccess) -> BitFlags<AccessFs> {
    match access {
        FileAccess::Read => AccessFs::ReadFile | AccessFs::ReadDir,
        FileAccess::ReadExecute => AccessFs::from_read(TARGET),
        FileAccess::Write => {
            AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::Truncate
        }
        FileAccess::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
        FileAccess::Sockets => AccessFs::MakeSock.into(),
        FileAccess::Own => {
            rights(FileAccess::Write)
                | AccessFs::MakeReg
                | AccessFs::MakeDir
                | AccessFs::RemoveFile
                | AccessFs::RemoveDir
                | AccessFs::Refer
        }
    }
}

fn enforcement(status: &RestrictionStatus) -> Enforcement {
    match status.ruleset {
        RulesetStatus::FullyEnforced => Enforcement::Full,
        RulesetStatus::PartiallyEnforced => Enforcement::Partial,
        RulesetStatus::NotEnforced => Enforcement::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_access_class_can_delete_and_one_can_create_sockets() {
        let making =
            AccessFs::from_write(TARGET) & !(AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev);
        for access in [
            FileAccess::Read,
            FileAccess::ReadExecute,
            FileAccess::Write,
            FileAccess::Device,
        ] {
            assert!(!rights(access).intersects(making), "{access:?}");
        }
        assert_eq!(rights(FileAccess::Sockets), AccessFs::MakeSock);
        let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSym | AccessFs::Execute;
        assert!(!rights(FileAccess::Own).intersects(devices));
        assert!(!rights(FileAccess::Read).contains(AccessFs::Execute));
        assert!(!rights(FileAccess::Write).contains(AccessFs::Execute));
    }

    #[test]
    fn the_version_is_that_of_a_kernel_that_enforces() {
        let created = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::Execute)
            .and_then(Ruleset::create);
        assert_eq!(version().is_some(), created.is_ok());
    }

    #[test]
    fn a_rule_without_its_descriptor_is_an_error() {
        let confinement = Confinement {
            files: vec![FileRule::descriptor(77, FileAccess::Read)],
            ..Confinement::default()
        };
        // Fails before the thread is restricted.
        assert!(restrict(&confinement, |_| None).is_err());
    }
}
