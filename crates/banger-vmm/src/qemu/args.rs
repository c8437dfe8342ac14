//! QEMU's command line, from typed values only.

use std::os::fd::{OwnedFd, RawFd};

use banger_model::guest::CONTROL_PORT;
use banger_sys::landlock::{Confinement, FileAccess, FileRule};
use banger_sys::launch::{LaunchSpec, Limits, SystemCalls};

use crate::engine::{
    Accelerator, Channels, ConsoleSink, LaunchPlan, MachineSpec, MachineType, Network, PlanError, TapNetwork,
};
use crate::qemu::Qemu;

/// x86's COMMAND_LINE_SIZE, with its NUL.
const MAX_CMDLINE: usize = 2047;
/// virtio-blk's VIRTIO_BLK_ID_BYTES.
const MAX_SERIAL: usize = 20;
/// The descriptors' numbers in QEMU; 1 is the console, 2 the VMM's own words.
const CONSOLE: RawFd = 1;
const STDERR: RawFd = 2;
const KERNEL: RawFd = 10;
const INITRD: RawFd = 11;
const ROOT_DISK: RawFd = 12;
const CONTROL: RawFd = 13;
const MONITOR: RawFd = 14;
const TAP: RawFd = 15;
/// QEMU itself needs about 30; the user network one per connection of the guest.
const OPEN_FILES: u64 = 4096;
/// Below the owner's programs when memory runs out.
const OOM_SCORE_ADJ: i16 = 200;
/// The least limit of file sizes: a console file below it cannot end the machine.
const FILE_BYTES: u64 = 1 << 30;

/// Every feature that is emulated, for images built for x86-64-v3. String instructions are
/// emulated one element at a time: without these two bits the guest's kernel copies words,
/// not bytes. As an AMD processor the counter would be distrusted with more than one CPU, and
/// every reading of the clock would leave the guest. Together a tenth of the boot.
const TCG_CPU: &str = "max,vendor=GenuineIntel,erms=off,fsrm=off";

/// See [`crate::engine::Engine::plan`].
pub(crate) fn plan(qemu: &Qemu, spec: MachineSpec) -> Result<LaunchPlan, PlanError> {
    check(&spec)?;
    let launch = LaunchSpec {
        program: qemu.binary.clone(),
        arguments: arguments(&spec),
        // QEMU reads locale and home directory from the environment: there is none.
        environment: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("LC_ALL".into(), "C.UTF-8".into()),
        ],
        limits: Limits {
            file_bytes: largest_file(&spec)?,
            open_files: OPEN_FILES,
            oom_score_adj: OOM_SCORE_ADJ,
        },
        confinement: confinement(qemu, &spec),
        system_calls: matches!(spec.network, Network::Tap(_)).then_some(SystemCalls { unix_sockets: false }),
        identity: None,
    };
    Ok(LaunchPlan {
        spec: launch,
        descriptors: descriptors(spec)?,
    })
}

/// The guest kernel's command line; only what makes a measured difference, or is needed.
pub(crate) fn default_cmdline(accelerator: Accelerator) -> String {
    let mut words = vec![
        "console=ttyS0",
        // Every byte of the serial port is an exit to the VMM.
        "quiet",
        "loglevel=3",
        // Restart at once: a guest that hangs after a panic tells nobody.
        "panic=-1",
        "net.ifnames=0",
    ];
    if accelerator == Accelerator::Tcg {
        // The kernel's tests of its own ciphers: 0.3 s of a boot of 2 s under emulation.
        words.push("cryptomgr.notests");
        // The counter is the host's. Under load the guest's watchdog would find it too fast
        // and change to a clock that is a device.
        words.push("tsc=reliable");
    }
    words.join(" ")
}

fn check(spec: &MachineSpec) -> Result<(), PlanError> {
    if spec.machine == MachineType::Microvm && spec.accelerator == Accelerator::Tcg {
        return Err(PlanError::MicrovmNeedsKvm);
    }
    let serial = &spec.root_serial;
    if serial.is_empty()
        || serial.len() > MAX_SERIAL
        || !serial.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        return Err(PlanError::Serial(serial.clone()));
    }
    check_network(&spec.network)?;
    let bytes = spec.cmdline.len();
    if bytes > MAX_CMDLINE || spec.cmdline.contains(['\0', '\n']) {
        let max = MAX_CMDLINE;
        return Err(PlanError::Cmdline { bytes, max });
    }
    if spec.name.is_empty() || spec.name.contains(char::is_control) {
        return Err(PlanError::Name(spec.name.clone()));
    }
    Ok(())
}

fn check_network(network: &Network) -> Result<(), PlanError> {
    match network {
        Network::User(user) => match user.guest.octets() {
            [10, 0, 2, host] if !matches!(host, 0 | 2 | 3 | 255) => Ok(()),
            _ => Err(PlanError::GuestAddress(user.guest)),
        },
        Network::Tap(tap) if tap.queue.is_none() => Err(PlanError::TapQueue(tap.name.clone())),
        Network::Tap(_) => Ok(()),
    }
}

fn arguments(spec: &MachineSpec) -> Vec<String> {
    let mut list = Arguments::default();
    list.flag("-nodefaults");
    list.flag("-no-user-config");
    list.option("-name", format!("guest={}", escape(&spec.name)));
    list.option("-uuid", uuid(&spec.uuid));
    list.option("-display", "none");
    list.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    machine(spec, &mut list);
    list.option("-kernel", format!("/proc/self/fd/{KERNEL}"));
    list.option("-initrd", format!("/proc/self/fd/{INITRD}"));
    list.option("-append", &spec.cmdline);
    disk(spec, &mut list);
    list.option("-device", "virtio-rng-pci");
    channels(&mut list);
    network(&spec.network, &mut list);
    // A panic becomes an event and then the end of the machine.
    list.option("-device", "pvpanic-pci");
    list.option("-action", "panic=shutdown");
    list.0
}

fn machine(spec: &MachineSpec, list: &mut Arguments) {
    let board = match spec.machine {
        MachineType::Q35 => "q35,usb=off,sata=off,smbus=off,vmport=off,hpet=off",
        MachineType::Microvm => "microvm,acpi=on,pcie=on,rtc=on,isa-serial=on",
    };
    list.option("-machine", board);
    match spec.accelerator {
        Accelerator::Kvm => {
            list.option("-accel", "kvm");
            list.option("-cpu", "host");
        }
        Accelerator::Tcg => {
            list.option("-accel", "tcg,thread=multi");
            list.option("-cpu", TCG_CPU);
        }
    }
    list.option("-smp", spec.vcpus.to_string());
    list.option("-m", format!("{}M", spec.memory_mib));
    list.option("-rtc", "base=utc");
}

fn disk(spec: &MachineSpec, list: &mut Arguments) {
    list.option("-add-fd", format!("fd={ROOT_DISK},set=1"));
    // No lock: the owner's daemon is the only one to start a machine on a disk, and the lock
    // would need the right to open it again.
    list.option(
        "-blockdev",
        "driver=file,node-name=root-file,filename=/dev/fdset/1,locking=off,discard=unmap",
    );
    list.option(
        "-blockdev",
        "driver=raw,node-name=root,file=root-file,discard=unmap",
    );
    list.option(
        "-device",
        format!("virtio-blk-pci,drive=root,serial={}", escape(&spec.root_serial)),
    );
}

fn channels(list: &mut Arguments) {
    // Standard input is /dev/null, standard output the console: the one backend that takes
    // an open stream for writing only. A socket backend would see the end of a stream that
    // is shut for reading, as journald's is, and close it.
    list.option("-chardev", "stdio,id=console,signal=off");
    list.option("-serial", "chardev:console");
    list.option(
        "-chardev",
        format!("socket,id=control,fd={CONTROL},server=on,wait=off"),
    );
    list.option("-device", "virtio-serial-pci");
    list.option(
        "-device",
        format!("virtserialport,chardev=control,name={CONTROL_PORT}"),
    );
    list.option(
        "-chardev",
        format!("socket,id=monitor,fd={MONITOR},server=on,wait=off"),
    );
    list.option("-mon", "chardev=monitor,mode=control");
}

fn network(network: &Network, list: &mut Arguments) {
    let (backend, mac) = match network {
        Network::User(user) => {
            let restrict = if user.restrict { "on" } else { "off" };
            let (guest, port) = (user.guest, user.agent_port);
            let forward = format!("hostfwd=tcp:127.0.0.1:0-{guest}:{port}");
            (
                format!("user,id=net,restrict={restrict},ipv6=off,{forward}"),
                user.mac,
            )
        }
        Network::Tap(tap) => (format!("tap,id=net,fd={TAP}"), tap.mac),
    };
    list.option("-netdev", backend);
    let [a, b, c, d, e, f] = mac;
    // Without its boot ROM: nothing is booted from the network.
    list.option(
        "-device",
        format!("virtio-net-pci,netdev=net,romfile=,mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
    );
}

/// The limit of file sizes: QEMU writes the disk and the console.
fn largest_file(spec: &MachineSpec) -> Result<u64, PlanError> {
    let what = "root disk";
    let known = banger_sys::file::known(&spec.root_disk);
    let known = known.map_err(|source| PlanError::Descriptor { what, source })?;
    Ok(known.stx_size.max(FILE_BYTES))
}

fn confinement(qemu: &Qemu, spec: &MachineSpec) -> Confinement {
    let mut files = vec![
        FileRule::path(&qemu.binary, FileAccess::ReadExecute),
        FileRule::descriptor(KERNEL, FileAccess::Read),
        FileRule::path("/dev/null", FileAccess::Write),
        FileRule::path("/dev/urandom", FileAccess::Read),
        // To open the kernel and the initramfs by their numbers.
        FileRule::path("/proc/self", FileAccess::Read),
    ];
    // Programs, libraries and firmware; on most systems the others are links into /usr.
    for path in ["/usr", "/lib", "/lib64", "/nix/store"] {
        files.push(FileRule::path(path, FileAccess::ReadExecute));
    }
    for path in ["/etc/ld.so.cache", "/etc/localtime", "/etc/qemu"] {
        files.push(FileRule::path(path, FileAccess::Read));
    }
    let user = match &spec.network {
        Network::User(user) => Some(user),
        Network::Tap(_) => None,
    };
    if user.is_some_and(|user| !user.restrict) {
        // The user network asks the host's resolvers; the directories because resolv.conf is
        // a link into them and is replaced, not rewritten.
        for path in [
            "/etc/resolv.conf",
            "/etc/hosts",
            "/run/systemd/resolve",
            "/run/NetworkManager",
            "/run/resolvconf",
        ] {
            files.push(FileRule::path(path, FileAccess::Read));
        }
    }
    if spec.accelerator == Accelerator::Kvm {
        files.push(FileRule::path("/dev/kvm", FileAccess::Device));
    }
    Confinement {
        files,
        // The forwarded port is the kernel's choice, and the only one.
        tcp_bind: Some(user.map(|_| 0).into_iter().collect()),
        tcp_connect: user.is_none_or(|user| user.restrict).then(Vec::new),
        scoped: true,
    }
}

fn descriptors(spec: MachineSpec) -> Result<Vec<(OwnedFd, RawFd)>, PlanError> {
    let Channels::Sockets { control, monitor } = spec.channels else {
        return Err(PlanError::Channels {
            engine: "QEMU",
            wanted: "two listening sockets",
        });
    };
    let console = match spec.console {
        ConsoleSink::Stream(fd) | ConsoleSink::File(fd) => fd,
    };
    let mut descriptors = vec![
        (console, CONSOLE),
        (spec.stderr, STDERR),
        (spec.kernel.into(), KERNEL),
        (spec.initrd, INITRD),
        (spec.root_disk, ROOT_DISK),
        (control, CONTROL),
        (monitor, MONITOR),
    ];
    if let Network::Tap(TapNetwork {
        queue: Some(queue), ..
    }) = spec.network
    {
        descriptors.push((queue, TAP));
    }
    Ok(descriptors)
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn option(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }
}

/// QEMU's option syntax: a comma in a value is written twice.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::engine::UserNetwork;
    use crate::qemu::Version;

    fn spec() -> MachineSpec {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        MachineSpec {
            name: "web".into(),
            uuid: std::array::from_fn(|i| u8::try_from(i).unwrap()),
            vcpus: 2,
            memory_mib: 1024,
            accelerator: Accelerator::Tcg,
            machine: MachineType::Q35,
            kernel: File::open("/dev/null").unwrap(),
            cmdline: "console=ttyS0 a,b".into(),
            initrd: null(),
            root_disk: null(),
            root_serial: "banger-root".into(),
            network: user_network(false, [10, 0, 2, 15]),
            console: ConsoleSink::File(null()),
            channels: Channels::Sockets {
                control: null(),
                monitor: null(),
            },
            stderr: null(),
        }
    }

    fn user_network(restrict: bool, guest: [u8; 4]) -> Network {
        Network::User(UserNetwork {
            restrict,
            mac: [0x02, 0xba, 0xff, 0, 1, 0x2c],
            guest: guest.into(),
            agent_port: 1022,
        })
    }

    fn qemu() -> Qemu {
        let (major, minor, micro) = (7, 2, 22);
        Qemu {
            binary: "/usr/bin/qemu-system-x86_64".into(),
            version: Version { major, minor, micro },
        }
    }

    #[test]
    fn the_whole_command_line_under_emulation() {
        let plan = plan(&qemu(), spec()).unwrap();
        let lines: Vec<String> = plan
            .spec
            .arguments
            .chunk_by(|_, next| !next.starts_with('-'))
            .map(|words| words.join(" "))
            .collect();
        assert_eq!(lines, EXPECTED.trim().lines().collect::<Vec<_>>());
        let numbers: Vec<RawFd> = plan.descriptors.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, [1, 2, 10, 11, 12, 13, 14]);
    }

    #[test]
    fn under_kvm_the_device_and_the_host_s_processor_are_used() {
        let mut kvm = spec();
        kvm.accelerator = Accelerator::Kvm;
        kvm.machine = MachineType::Microvm;
        let plan = plan(&qemu(), kvm).unwrap();
        let words = plan.spec.arguments.join(" ");
        assert!(words.contains("-machine microvm,acpi=on,pcie=on"), "{words}");
        assert!(words.contains("-accel kvm -cpu host"), "{words}");
        let device = FileRule::path("/dev/kvm", FileAccess::Device);
        assert!(plan.spec.confinement.files.contains(&device));
    }

    #[test]
    fn only_descriptors_and_the_system_are_reached_and_nothing_is_written() {
        let mut closed = spec();
        closed.network = user_network(true, [10, 0, 2, 15]);
        let plan = plan(&qemu(), closed).unwrap();
        let confinement = &plan.spec.confinement;
        for rule in &confinement.files {
            let is_null = rule.object == banger_sys::landlock::Object::Path("/dev/null".into());
            assert!(is_null || rule.access != FileAccess::Write, "{rule:?}");
            assert_ne!(rule.access, FileAccess::Device);
        }
        // No resolver, no connection, and no port but one of the kernel's choice.
        assert!(!format!("{confinement:?}").contains("resolv"));
        assert_eq!(confinement.tcp_connect, Some(vec![]));
        assert_eq!(confinement.tcp_bind, Some(vec![0]));
        assert!(confinement.scoped);
    }

    #[test]
    fn a_tap_is_passed_open_and_the_vmm_gets_no_network_of_its_own() {
        let mut tap = spec();
        tap.network = Network::Tap(TapNetwork {
            name: "bt7".into(),
            queue: Some(File::open("/dev/null").unwrap().into()),
            mac: [2, 0x62, 0x6e, 0x67, 0, 7],
        });
        let plan = plan(&qemu(), tap).unwrap();
        let words = plan.spec.arguments.join(" ");
        assert!(words.contains("-netdev tap,id=net,fd=15"), "{words}");
        assert!(words.contains("mac=02:62:6e:67:00:07"), "{words}");
        assert!(plan.descriptors.iter().any(|(_, number)| *number == TAP));
        assert_eq!(plan.spec.confinement.tcp_bind, Some(vec![]));
        assert_eq!(plan.spec.confinement.tcp_connect, Some(vec![]));
        assert!(!format!("{:?}", plan.spec.confinement).contains("resolv"));
        let unix_sockets = false;
        assert_eq!(plan.spec.system_calls, Some(SystemCalls { unix_sockets }));
    }

    #[test]
    fn text_cannot_become_an_option() {
        let mut odd = spec();
        odd.name = "x,debug-threads=on".into();
        odd.cmdline = "-monitor stdio".into();
        let words = plan(&qemu(), odd).unwrap().spec.arguments;
        assert!(words.contains(&"guest=x,,debug-threads=on".to_owned()));
        let at = words.iter().position(|word| word == "-append").unwrap();
        assert_eq!(words[at + 1], "-monitor stdio");
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let refusal = |change: &dyn Fn(&mut MachineSpec)| {
            let mut spec = spec();
            change(&mut spec);
            plan(&qemu(), spec).unwrap_err().to_string()
        };
        let serial = refusal(&|s| s.root_serial = "a,b".into());
        assert!(serial.starts_with("Not a serial number"), "{serial}");
        let serial = refusal(&|s| s.root_serial = "x".repeat(21));
        assert!(serial.starts_with("Not a serial number"), "{serial}");
        let machine = refusal(&|s| s.machine = MachineType::Microvm);
        assert!(machine.contains("needs KVM"), "{machine}");
        for host in [0, 2, 3, 255] {
            let address = refusal(&|s| s.network = user_network(false, [10, 0, 2, host]));
            assert!(address.contains("10.0.2.0/24"), "{address}");
        }
        let cmdline = refusal(&|s| s.cmdline = "x".repeat(2048));
        assert!(cmdline.contains("2048 bytes (at most 2047"), "{cmdline}");
        let channels = refusal(&|s| s.channels = Channels::Directory(File::open("/").unwrap().into()));
        assert!(
            channels.starts_with("QEMU takes two listening sockets"),
            "{channels}"
        );
        let name = refusal(&|s| s.name = "a\nb".into());
        assert!(name.starts_with("Not a name"), "{name}");
    }

    const EXPECTED: &str = "
-nodefaults
-no-user-config
-name guest=web
-uuid 00010203-0405-0607-0809-0a0b0c0d0e0f
-display none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-machine q35,usb=off,sata=off,smbus=off,vmport=off,hpet=off
-accel tcg,thread=multi
-cpu max,vendor=GenuineIntel,erms=off,fsrm=off
-smp 2
-m 1024M
-rtc base=utc
-kernel /proc/self/fd/10
-initrd /proc/self/fd/11
-append console=ttyS0 a,b
-add-fd fd=12,set=1
-blockdev driver=file,node-name=root-file,filename=/dev/fdset/1,locking=off,discard=unmap
-blockdev driver=raw,node-name=root,file=root-file,discard=unmap
-device virtio-blk-pci,drive=root,serial=banger-root
-device virtio-rng-pci
-chardev stdio,id=console,signal=off
-serial chardev:console
-chardev socket,id=control,fd=13,server=on,wait=off
-device virtio-serial-pci
-device virtserialport,chardev=control,name=org.banger.control.0
-chardev socket,id=monitor,fd=14,server=on,wait=off
-mon chardev=monitor,mode=control
-netdev user,id=net,restrict=off,ipv6=off,hostfwd=tcp:127.0.0.1:0-10.0.2.15:1022
-device virtio-net-pci,netdev=net,romfile=,mac=02:ba:ff:00:01:2c
-device pvpanic-pci
-action panic=shutdown
";
}
