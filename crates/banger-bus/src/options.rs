//! Options: dictionaries on the bus that can grow without breaking a client. An unknown key is
//! refused (`InvalidArgs`), because a misspelt limit must not become no limit.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use zbus::Type;
use zbus::as_variant::optional;

macro_rules! options {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Type)]
        #[zbus(signature = "a{sv}")]
        #[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
        pub struct $name {
            $(
                $(#[$fdoc])*
                #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>
            ),*
        }
    };
}

options!(
    /// For `CreateVm`.
    CreateOptions {
        /// An image's name; the configured default without it. It must be there: clients pull first.
        image: String,
        /// A kernel's name or alias; the image's own choice without it.
        kernel: String,
        vcpus: u32,
        /// In MiB.
        memory_mib: u64,
        /// The root disk in bytes.
        disk_bytes: u64,
        /// `auto`, `qemu` or `firecracker`.
        engine: String,
        /// `public` or `none`.
        network: String,
        /// Environment of everything that the agent runs.
        env: HashMap<String, String>,
        labels: HashMap<String, String>,
        /// Whether to start it too, and to wait until the guest is ready; true by default.
        start: bool,
        /// Fetch or build the image and the kernel when they are missing; false by default.
        pull: bool,
    }
);

options!(
    /// For `Start` and `Restart`.
    StartOptions {
        /// Seconds until the guest must have announced itself; 120 by default, 600 under emulation.
        timeout: u32,
    }
);

options!(
    /// For `Stop` and `Restart`.
    StopOptions {
        /// Seconds that the guest has to shut down before its VMM is ended; 30 by default.
        timeout: u32,
    }
);

options!(
    /// For `Delete`.
    DeleteOptions {
        /// Also when it runs: it is killed first.
        force: bool,
    }
);

options!(
    /// For `Exec`.
    ExecOptions {
        env: HashMap<String, String>,
        /// An absolute path in the guest; the image's own without it, else the user's home.
        working_directory: String,
        /// With it the command has a terminal: columns and rows.
        terminal_size: (u32, u32),
        /// The terminal's type; `xterm-256color` without it. Only with a terminal.
        term: String,
        /// Run the user's login shell instead of a command; `argv` must be empty then.
        shell: bool,
        /// As whom: a name or a number, then `:` and a group where it has one; the image's user
        /// without it.
        user: String,
        /// Run the image's entrypoint with `argv` as its arguments, or with the image's own
        /// arguments where `argv` is empty.
        entrypoint: bool,
        /// Run in the VM's workspace, through `mise exec` where the guest has mise; true by
        /// default where there is one, and nothing where there is none or where
        /// `WorkingDirectory` is given.
        workspace: bool,
    }
);

options!(
    /// For `PrepareWorkspace` and `ListWorkspace`.
    WorkspaceOptions {
        /// Where it goes in the guest, an absolute path; `/root/repo` by default, and where it is
        /// already for a VM that has one.
        guest_path: String,
        /// `shallow_overlay` (the commit as a shallow clone, the tracked files of the work tree
        /// over it) or `full_copy` (the directory as it is, `.git` and all). The first by default.
        mode: String,
        /// Also files that git does not track, but never those that it ignores.
        include_untracked: bool,
        /// Check out a new branch of this name.
        branch: String,
        /// Start that branch at this commit; what is not committed stays out then.
        from: String,
        /// Overwrite what was changed in the guest since.
        force: bool,
    }
);

options!(
    /// For `ExportWorkspace`. Without a target the guest's branches come back as
    /// `refs/banger/<vm>/<branch>`.
    WorkspaceExportOptions {
        /// Also make or forward this branch of the repository.
        to: String,
        /// Write what differs from the commit that the workspace was made from, as a patch, to
        /// this new file (an absolute path), and nothing else.
        patch: String,
        /// Write the workspace's files to this new directory (an absolute path), and nothing else.
        directory: String,
        /// Also where the guest has rewritten what was brought out before.
        force: bool,
    }
);

options!(
    /// For `CopyIn` and `CopyOut`.
    CopyOptions {
        /// Follow a symbolic link that is named itself.
        follow: bool,
    }
);

options!(
    /// For `Set`. Only what is given changes.
    SetOptions {
        vcpus: u32,
        /// In MiB.
        memory_mib: u64,
        /// The root disk in bytes; it only grows.
        disk_bytes: u64,
        /// Labels to add or to replace.
        labels: HashMap<String, String>,
        /// Keys of labels to remove.
        remove_labels: Vec<String>,
    }
);

options!(
    /// For `OpenLog`.
    LogOptions {
        /// Go on with what comes.
        follow: bool,
        /// Only the last lines.
        lines: u32,
        /// Only since this boot of the VM.
        boot: bool,
    }
);

options!(
    /// For `PullImage` and `PullKernel`.
    PullOptions {
        /// Build or fetch it again although it is there.
        force: bool,
        /// For images: a kernel's name or alias instead of the catalogue's choice.
        kernel: String,
        /// For images: list it under this name instead of its own.
        name: String,
        /// For images of a registry: plain HTTP, on this machine's own loopback addresses only.
        insecure: bool,
        /// For images of a registry: only from what was fetched before.
        offline: bool,
    }
);

options!(
    /// For `PruneImages`.
    PruneOptions {
        /// Also images that no VM uses, and all that was fetched before; false: only what was
        /// fetched for images that are no longer here, and what was broken off.
        all: bool,
        /// Say what would be removed, and remove nothing.
        dry_run: bool,
    }
);

options!(
    /// For `Export` and `Publish`.
    ExportOptions {
        /// Replace a file, or an entry of a catalogue, that is there.
        force: bool,
        /// For `Publish`: where the directory will be reached, as `https://example.org/images/`;
        /// without it the catalogue names the bundle by its file name alone.
        base_url: String,
        /// For `Publish`: the description in the catalogue.
        description: String,
    }
);

options!(
    /// For `RegisterImage`: a kernel of the store, or files of the owner's; neither means the default kernel.
    RegisterOptions {
        /// A kernel's name or alias.
        kernel: String,
        /// An absolute path of a kernel (vmlinux or bzImage) to import for this image.
        kernel_file: String,
        /// An absolute path of its modules (`…/lib/modules/VERSION`).
        modules: String,
    }
);

options!(
    /// For `ImportKernel`.
    ImportKernelOptions {
        /// An absolute path of its modules (`…/lib/modules/VERSION`).
        modules: String,
        /// An absolute path of its configuration.
        config: String,
    }
);
