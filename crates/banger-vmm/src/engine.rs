//! A machine as data, and the trait of what runs it.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{OwnedFd, RawFd};

use banger_sys::launch::{LaunchError, LaunchSpec, Launched, Launcher};

use crate::firecracker::Firecracker;
use crate::qemu::Qemu;

/// Turns a machine into a process to launch.
pub trait Engine {
    /// The program, its arguments and everything that it may touch. Pure apart from asking
    /// the descriptors for their sizes; nothing is started or opened.
    ///
    /// # Errors
    /// When the engine cannot run such a machine.
    fn plan(&self, spec: MachineSpec) -> Result<LaunchPlan, PlanError>;

    /// The kernel's command line for a guest of this engine, to which the caller may append.
    fn default_cmdline(&self, accelerator: Accelerator) -> String;
}

/// The engines that there are: one arm each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineKind {
    Qemu(Qemu),
    Firecracker(Firecracker),
}

/// A machine. Every file is a descriptor: the VMM opens nothing by a name of ours.
#[derive(Debug)]
pub struct MachineSpec {
    /// Shown in the process list.
    pub name: String,
    /// 128 bits as in RFC 9562: the machine's SMBIOS UUID.
    pub uuid: [u8; 16],
    pub vcpus: u32,
    pub memory_mib: u64,
    pub accelerator: Accelerator,
    pub machine: MachineType,
    /// A bzImage or an uncompressed kernel with a PVH note, open for reading.
    pub kernel: File,
    pub cmdline: String,
    /// A memfd.
    pub initrd: OwnedFd,
    /// Raw, open for reading and writing.
    pub root_disk: OwnedFd,
    /// At most 20 bytes (virtio's limit), letters, digits and '-'.
    pub root_serial: String,
    pub network: Network,
    pub console: ConsoleSink,
    pub channels: Channels,
    /// Takes the VMM's own words.
    pub stderr: OwnedFd,
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// Software emulation.
    Tcg,
}

/// The board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineType {
    Q35,
    /// Under KVM only: under emulation its timers cannot be calibrated.
    Microvm,
}

/// How the guest's one interface is connected.
#[derive(Debug)]
pub enum Network {
    User(UserNetwork),
    Tap(TapNetwork),
}

/// An interface of the host's, made and filtered by somebody else.
#[derive(Debug)]
pub struct TapNetwork {
    /// Its name in the VMM's network namespace.
    pub name: String,
    /// A queue of it, attached; an engine that opens its tap by name needs none.
    pub queue: Option<OwnedFd>,
    pub mac: [u8; 6],
}

/// User-mode networking: no privilege, no interface on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNetwork {
    /// The guest reaches nothing; the host still reaches the agent.
    pub restrict: bool,
    pub mac: [u8; 6],
    /// In 10.0.2.0/24, not .0, .2 (gateway), .3 (resolver) or .255.
    pub guest: Ipv4Addr,
    /// The guest's TCP port that the host reaches through a port of its own on 127.0.0.1;
    /// ask the monitor for its number.
    pub agent_port: u16,
}

/// Where the guest's serial console goes. The VMM only writes to it; while it takes nothing,
/// the guest finds its serial port busy, and nobody else waits.
#[derive(Debug)]
pub enum ConsoleSink {
    /// A connected stream, as to journald.
    Stream(OwnedFd),
    /// A file open with O_APPEND, so that its owner can truncate it at any time.
    File(OwnedFd),
}

/// How the host talks to the VMM and, through it, to the guest's control channel.
#[derive(Debug)]
pub enum Channels {
    /// Listening unix sockets: the VMM makes none. For QEMU.
    Sockets {
        /// The host's end of the guest's control channel.
        control: OwnedFd,
        /// The VMM's monitor.
        monitor: OwnedFd,
    },
    /// A directory in which the VMM makes its sockets. For Firecracker.
    Directory(OwnedFd),
}

/// What to launch, and the descriptors with the numbers that it expects.
#[derive(Debug)]
pub struct LaunchPlan {
    pub spec: LaunchSpec,
    pub descriptors: Vec<(OwnedFd, RawFd)>,
}

/// Why a machine cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("The microvm machine needs KVM: under emulation use q35")]
    MicrovmNeedsKvm,
    #[error("Not a serial number for a disk: {0:?} (1 to 20 letters, digits or '-')")]
    Serial(String),
    #[error("Not a guest address of the user network 10.0.2.0/24: {0}")]
    GuestAddress(Ipv4Addr),
    #[error("The kernel's command line has {bytes} bytes (at most {max}, and no NUL)")]
    Cmdline { bytes: usize, max: usize },
    #[error("Not a name for a machine: {0:?}")]
    Name(String),
    #[error("{engine} takes {wanted} for its channels, and got something else")]
    Channels {
        engine: &'static str,
        wanted: &'static str,
    },
    #[error("The tap {0:?} was not opened")]
    TapQueue(String),
    #[error("Firecracker needs KVM")]
    NeedsKvm,
    #[error("Firecracker needs a tap: it has no network of user mode")]
    NeedsTap,
    #[error("Not a number of processors for Firecracker: {vcpus} (1 to {max})")]
    Vcpus { vcpus: u32, max: u32 },
    #[error("Cannot examine the {what}")]
    Descriptor {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl Engine for EngineKind {
    fn plan(&self, spec: MachineSpec) -> Result<LaunchPlan, PlanError> {
        match self {
            Self::Qemu(qemu) => qemu.plan(spec),
            Self::Firecracker(firecracker) => firecracker.plan(spec),
        }
    }

    fn default_cmdline(&self, accelerator: Accelerator) -> String {
        match self {
            Self::Qemu(qemu) => qemu.default_cmdline(accelerator),
            Self::Firecracker(firecracker) => firecracker.default_cmdline(accelerator),
        }
    }
}

impl LaunchPlan {
    /// Starts the process up to its barrier. Needs a tokio runtime.
    ///
    /// # Errors
    /// As [`banger_sys::launch::spawn`].
    pub fn launch(self, launcher: &Launcher) -> Result<Launched, LaunchError> {
        banger_sys::launch::spawn(launcher, &self.spec, self.descriptors)
    }
}
