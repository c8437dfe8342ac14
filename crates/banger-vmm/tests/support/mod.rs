//! What the tests with a real QEMU share: a guest of 1 KiB, and the launcher.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use banger_sys::file::sealed_memfd;
use banger_sys::launch::{Launched, Launcher};
use banger_vmm::{
    Accelerator, Channels, ConsoleSink, Engine, LaunchPlan, MachineSpec, MachineType, Network, Qemu,
    UserNetwork,
};

/// The guest says this, then its command line and a line break; the letter is the initramfs'
/// size in bytes.
pub(crate) const GREETING: &str = "guest I ";

/// This test program is its own launcher.
pub(crate) fn launcher() -> Launcher {
    Launcher {
        program: "/proc/self/exe".into(),
        arguments: ["launcher_entry", "--exact", "--nocapture"]
            .map(Into::into)
            .to_vec(),
    }
}

/// QEMU, or `None` after saying that the test is skipped.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
pub(crate) async fn qemu() -> Option<Qemu> {
    match banger_vmm::probe::find_qemu().await {
        Ok(qemu) => Some(qemu),
        Err(e) => {
            let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|rung| rung == "qemu"), "{e}");
            println!("skipped: {e}");
            None
        }
    }
}

/// One machine's files on the host's side.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    console: BufReader<UnixStream>,
    pub(crate) stderr: File,
}

impl Host {
    pub(crate) fn monitor(&self) -> PathBuf {
        self.dir.path().join("monitor")
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// The next line of the guest.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.console.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn errors(&mut self) -> String {
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).unwrap();
        text
    }
}

/// A machine whose guest gets this command line: starting with `p` it powers off, with `r` it
/// resets, else it halts.
pub(crate) fn machine(cmdline: &str) -> (MachineSpec, Host) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap()
    };
    let kernel = file("kernel");
    std::fs::write(dir.path().join("kernel"), kernel_image()).unwrap();
    let disk = file("disk");
    disk.set_len(1 << 20).unwrap();
    let (console, console_end) = UnixStream::pair().unwrap();
    // As journald's stream is.
    console_end.shutdown(std::net::Shutdown::Read).unwrap();
    let (stderr, stderr_end) = pipe();
    let listen = |name: &str| OwnedFd::from(UnixListener::bind(dir.path().join(name)).unwrap());
    let spec = MachineSpec {
        name: "a, test".into(),
        uuid: [7; 16],
        vcpus: 2,
        memory_mib: 64,
        accelerator: Accelerator::Tcg,
        machine: MachineType::Q35,
        kernel,
        cmdline: cmdline.into(),
        initrd: sealed_memfd("initramfs", &[&[0; b'I' as usize]]).unwrap(),
        root_disk: disk.into(),
        root_serial: "banger-root".into(),
        network: Network::User(UserNetwork {
            restrict: true,
            mac: [0x02, 0xba, 0, 0, 0, 1],
            guest: [10, 0, 2, 15].into(),
            agent_port: 1022,
        }),
        console: ConsoleSink::Stream(console_end.into()),
        channels: Channels::Sockets {
            control: listen("control"),
            monitor: listen("monitor"),
        },
        stderr: stderr_end,
    };
    let host = Host {
        dir,
        console: BufReader::new(console),
        stderr,
    };
    (spec, host)
}

pub(crate) fn plan(qemu: &Qemu, spec: MachineSpec) -> LaunchPlan {
    qemu.plan(spec).unwrap()
}

pub(crate) fn launch(qemu: &Qemu, spec: MachineSpec) -> Launched {
    plan(qemu, spec).launch(&launcher()).unwrap()
}

fn pipe() -> (File, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    (File::from(OwnedFd::from(read)), write.into())
}

/// A kernel by Linux' boot protocol 2.06 whose real-mode part is the whole guest.
fn kernel_image() -> Vec<u8> {
    let mut image = vec![0; 0x404];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // one more sector of set-up code
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x3e]); // jmp 0x240
    put(0x202, b"HdrS\x06\x02");
    put(0x211, &[1]); // loaded high
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x37ff_ffff_u32.to_le_bytes()); // the highest address of the initramfs
    put(0x238, &2047_u32.to_le_bytes()); // the longest command line
    put(0x240, &CODE);
    put(0x240 + CODE.len(), b"guest \0");
    image
}

/// 16-bit code at 0x240 of the set-up segment.
const CODE: [u8; 79] = [
    0xba, 0xf8, 0x03, // mov dx, 0x3f8 (the first serial port)
    0xbe, 0x8f, 0x02, // mov si, "guest "
    0x8a, 0x04, 0x84, 0xc0, 0x74, 0x04, 0xee, 0x46, 0xeb, 0xf6, // write it
    0xa0, 0x1c, 0x02, 0xee, // write the low byte of the initramfs' size
    0xb0, 0x20, 0xee, // write ' '
    0x66, 0xa1, 0x28, 0x02, // mov eax, [the command line's address]
    0x66, 0xc1, 0xe8, 0x04, 0x8e, 0xc0, // es = eax >> 4
    0x31, 0xf6, // si = 0
    0x26, 0x8a, 0x1c, // mov bl, es:[si]
    0x26, 0x8a, 0x04, 0x84, 0xc0, 0x74, 0x04, 0xee, 0x46, 0xeb, 0xf5, // write it
    0xb0, 0x0a, 0xee, // write a line break
    0x80, 0xfb, b'p', 0x75, 0x07, // if bl == 'p':
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, // ACPI PM1a control: S5
    0x80, 0xfb, b'r', 0x75, 0x06, // if bl == 'r':
    0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, // reset control: full reset
    0xfa, 0xf4, 0xeb, 0xfc, // cli; hlt, for ever
];
