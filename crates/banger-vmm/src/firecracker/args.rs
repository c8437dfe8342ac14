//! Firecracker's command line and what it may touch. Everything about the machine itself goes
//! through the API, see [`super::config`].

use std::os::fd::{OwnedFd, RawFd};

use banger_model::guest::RESET_ENDS;
use banger_sys::landlock::{Confinement, FileAccess, FileRule};
use banger_sys::launch::{LaunchSpec, Limits, SystemCalls};

use super::{API_SOCKET, Firecracker, MAX_VCPUS};
use crate::engine::{Accelerator, Channels, ConsoleSink, LaunchPlan, MachineSpec, Network, PlanError};

/// x86's COMMAND_LINE_SIZE with its NUL, less what Firecracker appends: `pci=off`, and for each
/// of five devices where it is.
pub const MAX_CMDLINE: usize = 2047 - 512;
/// The descriptors' numbers in Firecracker; 1 is the console, 2 the VMM's own words.
const CONSOLE: RawFd = 1;
const STDERR: RawFd = 2;
pub(super) const KERNEL: RawFd = 10;
pub(super) const INITRD: RawFd = 11;
pub(super) const ROOT_DISK: RawFd = 12;
pub(super) const DIRECTORY: RawFd = 13;
/// One per connection over vsock, of which there are at most 1023.
const OPEN_FILES: u64 = 2048;
/// Below the owner's programs when memory runs out.
const OOM_SCORE_ADJ: i16 = 200;
/// The least limit of file sizes: a console file below it cannot end the machine.
const FILE_BYTES: u64 = 1 << 30;
/// The longest name that Firecracker takes for an instance.
const MAX_ID: usize = 64;

/// The path of a descriptor in Firecracker.
pub(super) fn descriptor(number: RawFd) -> String {
    format!("/proc/self/fd/{number}")
}

/// See [`crate::engine::Engine::plan`].
pub(super) fn plan(firecracker: &Firecracker, spec: MachineSpec) -> Result<LaunchPlan, PlanError> {
    check(&spec)?;
    let launch = LaunchSpec {
        program: firecracker.binary.clone(),
        arguments: arguments(&spec),
        environment: Vec::new(),
        limits: Limits {
            file_bytes: largest_file(&spec)?,
            open_files: OPEN_FILES,
            oom_score_adj: OOM_SCORE_ADJ,
        },
        confinement: confinement(firecracker),
        // It makes and connects its unix sockets by itself.
        system_calls: Some(SystemCalls { unix_sockets: true }),
        identity: None,
    };
    Ok(LaunchPlan {
        spec: launch,
        descriptors: descriptors(spec)?,
    })
}

/// The guest kernel's command line; only what makes a measured difference, or is needed.
pub fn default_cmdline() -> String {
    [
        "console=ttyS0",
        // Every byte of the serial port is an exit to the VMM.
        "quiet",
        "loglevel=3",
        // Firecracker ends when its keyboard controller is told to reset, and in no other way.
        "reboot=k",
        "panic=-1",
        RESET_ENDS,
        // There is a keyboard controller and no keyboard: its driver would wait for one.
        "i8042.noaux",
        "i8042.nomux",
        "i8042.dumbkbd",
        "net.ifnames=0",
    ]
    .join(" ")
}

/// What can be told without starting it; the API refuses the rest in its own words.
fn check(spec: &MachineSpec) -> Result<(), PlanError> {
    if spec.accelerator != Accelerator::Kvm {
        return Err(PlanError::NeedsKvm);
    }
    if !(1..=MAX_VCPUS).contains(&spec.vcpus) {
        let max = MAX_VCPUS;
        return Err(PlanError::Vcpus {
            vcpus: spec.vcpus,
            max,
        });
    }
    if !matches!(spec.network, Network::Tap(_)) {
        return Err(PlanError::NeedsTap);
    }
    if spec.name.is_empty() || spec.name.contains(char::is_control) {
        return Err(PlanError::Name(spec.name.clone()));
    }
    Ok(())
}

/// Its system call filters, and virtio over memory-mapped registers, are what it has when nothing
/// is said about them.
fn arguments(spec: &MachineSpec) -> Vec<String> {
    [
        "--api-sock",
        &format!("{}/{API_SOCKET}", descriptor(DIRECTORY)),
        "--id",
        &instance_id(spec),
        // Its log goes where the console goes, and there are no lines but those of faults.
        "--level",
        "Error",
        "--show-level",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The name where it is one for Firecracker too, for the process list.
fn instance_id(spec: &MachineSpec) -> String {
    let name = &spec.name;
    let fits = name.len() <= MAX_ID && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    // Its arguments know no end of options.
    if fits && !name.starts_with('-') {
        return name.clone();
    }
    spec.uuid.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The limit of file sizes: Firecracker writes the disk and the console.
fn largest_file(spec: &MachineSpec) -> Result<u64, PlanError> {
    let what = "root disk";
    let known = banger_sys::file::known(&spec.root_disk);
    let known = known.map_err(|source| PlanError::Descriptor { what, source })?;
    Ok(known.stx_size.max(FILE_BYTES))
}

fn confinement(firecracker: &Firecracker) -> Confinement {
    let mut files = vec![
        FileRule::path(&firecracker.binary, FileAccess::ReadExecute),
        FileRule::descriptor(KERNEL, FileAccess::Read),
        FileRule::descriptor(ROOT_DISK, FileAccess::Write),
        FileRule::descriptor(DIRECTORY, FileAccess::Sockets),
        FileRule::path("/dev/kvm", FileAccess::Device),
        FileRule::path("/dev/net/tun", FileAccess::Device),
        // To open the descriptors by their numbers.
        FileRule::path("/proc/self", FileAccess::Read),
    ];
    // Only for one that is not linked statically, as the official one is.
    for path in ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/nix/store"] {
        files.push(FileRule::path(path, FileAccess::ReadExecute));
    }
    files.push(FileRule::path("/etc/ld.so.cache", FileAccess::Read));
    Confinement {
        files,
        tcp_bind: Some(Vec::new()),
        tcp_connect: Some(Vec::new()),
        scoped: true,
    }
}

fn descriptors(spec: MachineSpec) -> Result<Vec<(OwnedFd, RawFd)>, PlanError> {
    let Channels::Directory(directory) = spec.channels else {
        return Err(PlanError::Channels {
            engine: "Firecracker",
            wanted: "a directory",
        });
    };
    let console = match spec.console {
        ConsoleSink::Stream(fd) | ConsoleSink::File(fd) => fd,
    };
    // The tap is opened by its name.
    Ok(vec![
        (console, CONSOLE),
        (spec.stderr, STDERR),
        (spec.kernel.into(), KERNEL),
        (spec.initrd, INITRD),
        (spec.root_disk, ROOT_DISK),
        (directory, DIRECTORY),
    ])
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::engine::{MachineType, TapNetwork, UserNetwork};
    use crate::qemu::Version;

    fn spec() -> MachineSpec {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        MachineSpec {
            name: "web".into(),
            uuid: std::array::from_fn(|i| u8::try_from(i).unwrap()),
            vcpus: 2,
            memory_mib: 1024,
            accelerator: Accelerator::Kvm,
            machine: MachineType::Q35,
            kernel: File::open("/dev/null").unwrap(),
            cmdline: default_cmdline(),
            initrd: null(),
            root_disk: null(),
            root_serial: "banger-root".into(),
            network: Network::Tap(TapNetwork {
                name: "bt7".into(),
                queue: None,
                mac: [2, 0x62, 0x6e, 0x67, 0, 7],
            }),
            console: ConsoleSink::File(null()),
            channels: Channels::Directory(File::open("/").unwrap().into()),
            stderr: null(),
        }
    }

    fn planned(change: impl FnOnce(&mut MachineSpec)) -> Result<LaunchPlan, PlanError> {
        let (major, minor, micro) = (1, 15, 1);
        let firecracker = Firecracker {
            binary: "/usr/local/lib/banger/firecracker".into(),
            version: Version { major, minor, micro },
        };
        let mut spec = spec();
        change(&mut spec);
        plan(&firecracker, spec)
    }

    #[test]
    fn the_whole_command_line() {
        let plan = planned(|_| {}).unwrap();
        assert_eq!(
            plan.spec.arguments.join(" "),
            "--api-sock /proc/self/fd/13/api.sock --id web --level Error --show-level"
        );
        assert_eq!(plan.spec.environment, []);
        let numbers: Vec<RawFd> = plan.descriptors.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, [1, 2, 10, 11, 12, 13]);
    }

    #[test]
    fn filters_stay_on_and_pci_off_whatever_the_name_says() {
        for name in ["--no-seccomp", "a --enable-pci", "x\u{202e}", &"x".repeat(65)] {
            let words = planned(|spec| name.clone_into(&mut spec.name))
                .unwrap()
                .spec
                .arguments;
            assert_eq!(words.len(), 7, "{words:?}");
            assert_eq!(words[3], "000102030405060708090a0b0c0d0e0f");
            for never in ["seccomp", "pci", "config-file"] {
                assert!(!words.iter().any(|word| word.contains(never)), "{words:?}");
            }
        }
    }

    #[test]
    fn one_disk_is_written_one_directory_gets_sockets_and_two_devices_are_used() {
        let confinement = planned(|_| {}).unwrap().spec.confinement;
        let of = |access| -> Vec<_> {
            confinement
                .files
                .iter()
                .filter(|rule| rule.access == access)
                .collect()
        };
        assert_eq!(
            of(FileAccess::Write),
            [&FileRule::descriptor(12, FileAccess::Write)]
        );
        assert_eq!(
            of(FileAccess::Sockets),
            [&FileRule::descriptor(13, FileAccess::Sockets)]
        );
        assert_eq!(
            of(FileAccess::Device),
            [
                &FileRule::path("/dev/kvm", FileAccess::Device),
                &FileRule::path("/dev/net/tun", FileAccess::Device)
            ]
        );
        assert_eq!(confinement.tcp_bind, Some(vec![]));
        assert_eq!(confinement.tcp_connect, Some(vec![]));
        assert!(confinement.scoped);
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let refusal = |change: &dyn Fn(&mut MachineSpec)| planned(change).unwrap_err().to_string();
        let emulated = refusal(&|s| s.accelerator = Accelerator::Tcg);
        assert!(emulated.contains("KVM"), "{emulated}");
        for vcpus in [0, 33, u32::MAX] {
            let many = refusal(&|s| s.vcpus = vcpus);
            assert!(many.contains("1 to 32"), "{many}");
        }
        let user = refusal(&|s| {
            s.network = Network::User(UserNetwork {
                restrict: true,
                mac: [2; 6],
                guest: [10, 0, 2, 15].into(),
                agent_port: 1022,
            });
        });
        assert!(user.contains("tap"), "{user}");
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let sockets = refusal(&|s| {
            s.channels = Channels::Sockets {
                control: null(),
                monitor: null(),
            };
        });
        assert!(sockets.contains("a directory"), "{sockets}");
        assert!(refusal(&|s| s.name = "a\nb".into()).starts_with("Not a name"));
    }
}
