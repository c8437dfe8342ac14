//! What is known about each object: plain data, the same in the daemon, in the properties on
//! the bus and in `--json`.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use zbus::{OwnedObjectPath, OwnedVariant};

/// A property that is missing or has another type than the contract says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("The daemon sent no usable property {0}: it may be of another version (see `banger daemon status`)")]
pub struct InfoError(&'static str);

macro_rules! info {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty = $property:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type),+
        }

        impl $name {
            /// Reads the properties as `GetManagedObjects` and `GetAll` give them.
            ///
            /// # Errors
            /// When a property is missing or of another type.
            pub fn from_properties(properties: &HashMap<String, OwnedVariant>) -> Result<Self, InfoError> {
                Ok(Self {
                    $($field: properties
                        .get($property)
                        .and_then(|value| value.try_clone().ok())
                        .and_then(|value| <$type as FromVariant>::from_variant(value))
                        .ok_or(InfoError($property))?),+
                })
            }
        }
    };
}

info!(
    /// A VM. Times are microseconds since 1970 (UTC), 0 when it has not happened.
    VmInfo {
        id: String = "Id",
        name: String = "Name",
        /// One of [`banger_model::VmState`]'s words.
        state: String = "State",
        /// One of [`banger_model::StopReason`]'s words, empty unless stopped.
        stop_reason: String = "StopReason",
        /// A sentence about the state for people, often empty.
        state_detail: String = "StateDetail",
        image: String = "Image",
        kernel: String = "Kernel",
        /// `qemu` or `firecracker`, empty until the first start.
        engine: String = "Engine",
        /// `kvm` or `tcg`, empty until the first start.
        accelerator: String = "Accelerator",
        vcpus: u32 = "Vcpus",
        memory_mib: u64 = "MemoryMiB",
        disk_bytes: u64 = "DiskBytes",
        /// `public` or `none`.
        network: String = "Network",
        labels: BTreeMap<String, String> = "Labels",
        /// Where the agent is reached from the host, empty while nothing runs.
        address: String = "Address",
        /// The agent's SSH port at that address, 0 while nothing runs.
        ssh_port: u32 = "SshPort",
        /// The guest's host key as a line of authorized_keys(5): what a client must pin.
        host_key: String = "HostKey",
        /// The VMM's process, 0 while none runs.
        pid: u32 = "Pid",
        /// The transient scope, empty where there is no systemd.
        unit: String = "Unit",
        directory: String = "Directory",
        /// What PID 1 of the image is, as the guest said.
        init: String = "Init",
        /// The directory of the host whose repository is in the guest; empty without one.
        workspace: String = "Workspace",
        /// Where it is in the guest.
        workspace_path: String = "WorkspacePath",
        /// The commit that it was made from, in hexadecimal digits.
        workspace_commit: String = "WorkspaceCommit",
        /// `shallow_overlay` or `full_copy`.
        workspace_mode: String = "WorkspaceMode",
        /// Ports of the guest that are reached on the host's loopback: the host's, the guest's.
        published_ports: Vec<(u16, u16)> = "PublishedPorts",
        created_us: u64 = "CreatedUSec",
        started_us: u64 = "StartedUSec",
        ready_us: u64 = "ReadyUSec",
    }
);

/// What listens in a guest: `tcp` or `udp`, the address it is bound to, its port, the process's
/// id and name, its command line, and `http`, `https` or nothing by what it answered to a probe.
/// All of it is the guest's word.
pub type ListeningPort = (String, String, u16, u32, String, String, String);

info!(
    /// An image.
    ImageInfo {
        name: String = "Name",
        /// `managed` (in the store) or `registered` (a file of the owner's).
        kind: String = "Kind",
        rootfs: String = "Rootfs",
        /// The kernel it asks for, empty for the default one.
        kernel: String = "Kernel",
        /// The file's length in bytes.
        size_bytes: u64 = "SizeBytes",
        /// What the file occupies, in bytes.
        used_bytes: u64 = "UsedBytes",
        /// Where it came from, for people.
        origin: String = "Origin",
        /// `sha256:<64 hexadecimal digits>` of what was fetched: of the manifest of an image of a
        /// registry, of a bundle; empty where nothing was.
        digest: String = "Digest",
        /// The registry's reference in its full form; empty for other images.
        reference: String = "Reference",
        /// The digests of the layers that it was made of, the lowest first.
        layers: Vec<String> = "Layers",
        /// What the image says about its processes, as OCI's image configuration has it. Its
        /// author wrote it: show it with care, and use it in guests only.
        env: BTreeMap<String, String> = "Env",
        user: String = "User",
        working_directory: String = "WorkingDirectory",
        entrypoint: Vec<String> = "Entrypoint",
        command: Vec<String> = "Command",
        labels: BTreeMap<String, String> = "Labels",
        created_us: u64 = "CreatedUSec",
    }
);

/// Where one part of a job is: its name, one of `waiting`, `fetching`, `cached`, `fetched`,
/// `unpacking` and `done`, the bytes done in that state, and the bytes in all (0: not known).
pub type JobPart = (String, String, u64, u64);

info!(
    /// A kernel.
    KernelInfo {
        name: String = "Name",
        version: String = "Version",
        /// Other names under which it is found, as `debian-6.1`.
        aliases: Vec<String> = "Aliases",
        path: String = "Path",
        origin: String = "Origin",
        /// `sha256:<64 hexadecimal digits>` of what was fetched, or of the imported file.
        digest: String = "Digest",
        /// What a guest may miss with it, a sentence each.
        warnings: Vec<String> = "Warnings",
        size_bytes: u64 = "SizeBytes",
        created_us: u64 = "CreatedUSec",
    }
);

info!(
    /// A job.
    JobInfo {
        id: u32 = "Id",
        /// `create`, `start`, `stop`, `restart`, `kill`, `delete`, `exec`, `pull-image`,
        /// `promote-image`, `prune-images`, `export-image`, `publish-image`, `pull-kernel`,
        /// `import-kernel`, `export-kernel`, `publish-kernel`, `prepare-workspace`,
        /// `list-workspace`, `export-workspace`, `copy-in`, `copy-out`.
        operation: String = "Operation",
        /// The object it works on, `/` where there is none yet.
        object: OwnedObjectPath = "Object",
        stage: String = "Stage",
        /// 0 to 1 within the stage, negative when it cannot be told.
        fraction: f64 = "Fraction",
        message: String = "Message",
        /// What goes on at once within the stage, as the layers of an image; often empty.
        parts: Vec<JobPart> = "Parts",
    }
);

/// The types that properties have. (zvariant converts maps to `HashMap` only.)
trait FromVariant: Sized {
    fn from_variant(value: OwnedVariant) -> Option<Self>;
}

macro_rules! from_variant {
    ($($type:ty),+) => {$(
        impl FromVariant for $type {
            fn from_variant(value: OwnedVariant) -> Option<Self> {
                value.try_into().ok()
            }
        }
    )+};
}

from_variant!(
    String,
    u32,
    u64,
    f64,
    Vec<String>,
    Vec<JobPart>,
    Vec<(u16, u16)>,
    OwnedObjectPath
);

impl FromVariant for BTreeMap<String, String> {
    fn from_variant(value: OwnedVariant) -> Option<Self> {
        HashMap::<String, String>::try_from(value)
            .ok()
            .map(|map| map.into_iter().collect())
    }
}
