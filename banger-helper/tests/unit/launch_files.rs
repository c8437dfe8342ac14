use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use banger_sys::file::sealed_memfd;
use rustix::fs::{MemfdFlags, memfd_create};

use super::*;

/// The caller, who is not root where the test is.
const ALICE: u32 = 1234;
const BOB: u32 = 1235;

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whose files the test can make: its own; as root anybody's.
fn alice() -> u32 {
    if own_uid() == 0 { ALICE } else { own_uid() }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// A new file of Alice's with this many bytes.
    fn file(&self, name: &str, bytes: u64) -> std::path::PathBuf {
        let path = self.path(name);
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        give(&path, alice());
        path
    }

    /// All that QEMU takes, as it should be.
    fn good(&self) -> HashMap<u8, OwnedFd> {
        let listener = |name: &str| alices(|| UnixListener::bind(self.path(name)).unwrap().into());
        let log = self.file("log", 0);
        HashMap::from(
            [
                (FileRole::Kernel, read(&self.file("kernel", 4096))),
                (
                    FileRole::Initrd,
                    alices(|| sealed_memfd("initrd", &[b"x"]).unwrap()),
                ),
                (FileRole::RootDisk, read_write(&self.file("disk", 1 << 20))),
                (FileRole::Console, stream()),
                (FileRole::Log, append(&log)),
                (FileRole::Control, listener("control")),
                (FileRole::Monitor, listener("monitor")),
            ]
            .map(|(role, fd)| (role.number(), fd)),
        )
    }

    /// The refusal when one of them is another.
    fn with(&self, role: FileRole, fd: OwnedFd) -> String {
        let place = Place::new();
        let mut files = place.good();
        files.insert(role.number(), fd);
        refusal(Files::check(files, LaunchEngine::Qemu, alice()))
    }
}

/// Something without a name, as if Alice had made it.
fn alices(make: impl FnOnce() -> OwnedFd) -> OwnedFd {
    let fd = make();
    if own_uid() == 0 {
        let alice = rustix::process::Uid::from_raw(ALICE);
        rustix::fs::fchown(&fd, Some(alice), None).unwrap();
    }
    fd
}

fn give(path: &Path, uid: u32) {
    if own_uid() == 0 {
        std::os::unix::fs::chown(path, Some(uid), None).unwrap();
    }
}

fn open(path: &Path, options: &mut OpenOptions) -> OwnedFd {
    options.open(path).unwrap().into()
}

fn read(path: &Path) -> OwnedFd {
    open(path, OpenOptions::new().read(true))
}

fn read_write(path: &Path) -> OwnedFd {
    open(path, OpenOptions::new().read(true).write(true))
}

fn write(path: &Path) -> OwnedFd {
    open(path, OpenOptions::new().write(true))
}

fn append(path: &Path) -> OwnedFd {
    open(path, OpenOptions::new().append(true))
}

fn named_only(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH, rustix::fs::Mode::empty()).unwrap()
}

fn stream() -> OwnedFd {
    let (ours, peer) = UnixStream::pair().unwrap();
    drop(ours);
    peer.into()
}

/// The refusal's text; empty when there is none.
fn refusal(result: HelperResult<Files>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(HelperError::Refused(error)) => {
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            error.message
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_is_as_it_should_be_is_taken() {
    let place = Place::new();
    let files = Files::check(place.good(), LaunchEngine::Qemu, alice()).unwrap();
    assert!(matches!(files.channels, Channels::Sockets { .. }));
    assert!(matches!(files.console, ConsoleSink::Stream(_)));

    // Also: an initramfs and a console that are files, and a log that is a pipe.
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let console = place.file("console", 10);
    let more = Place::new();
    let mut files = more.good();
    files.insert(FileRole::Initrd.number(), read(&place.file("initrd", 512)));
    files.insert(FileRole::Console.number(), append(&console));
    files.insert(FileRole::Log.number(), writer);
    // A disk with holes, the largest there can be, if this file system can hold one.
    let disk = place.file("large", 1 << 40);
    files.insert(FileRole::RootDisk.number(), read_write(&disk));
    let files = Files::check(files, LaunchEngine::Qemu, alice()).unwrap();
    assert!(matches!(files.console, ConsoleSink::File(_)));
    // A kernel of the system's.
    if own_uid() == 0 {
        let kernel = place.file("systems", 100);
        give(&kernel, 0);
        assert_eq!(place.with(FileRole::Kernel, read(&kernel)), "");
    }
}

#[test]
fn every_wrong_descriptor_is_refused_by_what_is_wrong_with_it() {
    use FileRole::{Console, Control, Initrd, Kernel, Log, Monitor, RootDisk};
    let place = Place::new();
    let number = std::cell::Cell::new(0);
    let file = |bytes| {
        number.set(number.get() + 1);
        place.file(&format!("file{}", number.get()), bytes)
    };
    let fifo = || {
        let path = place.path("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = FileType::Fifo;
        let _ = rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0);
        path
    };
    let linked = || {
        let path = place.file("linked", 4096);
        let _ = std::fs::hard_link(&path, place.path("link"));
        path
    };
    let unsealed = || {
        alices(|| {
            let fd = memfd_create("initrd", MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::io::write(&fd, b"x").unwrap();
            fd
        })
    };
    let tcp = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
    let datagrams = || std::os::unix::net::UnixDatagram::unbound().unwrap().into();
    let listener = || alices(|| UnixListener::bind(place.path("l")).unwrap().into());
    let cases: Vec<(FileRole, OwnedFd, &str)> = vec![
        (Kernel, read(Path::new("/dev/zero")), "is no regular file"),
        (Kernel, read_write(&fifo()), "is no regular file"),
        (Kernel, read(place.0.path()), "is no regular file"),
        (Kernel, named_only(&file(4096)), "is not open (O_PATH)"),
        (Kernel, stream(), "is no regular file"),
        (Kernel, write(&file(4096)), "must be open for reading only"),
        (Kernel, read_write(&file(4096)), "must be open for reading only"),
        (Kernel, read(&file(0)), "is too small"),
        (Kernel, read(&file(1 << 40)), "is too large"),
        (Kernel, read(&linked()), "has more than one name"),
        (Initrd, unsealed(), "can still be changed"),
        (Initrd, read_write(&file(4096)), "must be open for reading only"),
        (Initrd, read(&file(MAX_INITRD_BYTES + 1)), "is too large"),
        (
            RootDisk,
            read(&file(4096)),
            "must be open for reading and writing",
        ),
        (
            RootDisk,
            write(&file(4096)),
            "must be open for reading and writing",
        ),
        (RootDisk, read_write(&file(511)), "is too small"),
        (RootDisk, read_write(&linked()), "has more than one name"),
        (
            RootDisk,
            open(&file(4096), OpenOptions::new().read(true).append(true)),
            "is open for appending",
        ),
        (RootDisk, read_write(Path::new("/dev/null")), "is no regular file"),
        (Console, read(&file(10)), "must be open for writing only"),
        (Console, write(&file(10)), "is not open for appending"),
        (Console, append(&file(MAX_OUTPUT_BYTES + 1)), "is too large"),
        (
            Console,
            write(Path::new("/dev/null")),
            "is no file, pipe or socket",
        ),
        (Console, listener(), "is a listening socket"),
        (Console, datagrams(), "is no unix stream socket"),
        (
            Log,
            rustix::pipe::pipe().unwrap().0,
            "must be open for writing only",
        ),
        (Log, read_write(&fifo()), "must be open for writing only"),
        (Control, stream(), "does not listen"),
        (Control, tcp(), "is no unix stream socket"),
        (Control, read(&file(10)), "is no unix stream socket"),
        (Monitor, datagrams(), "is no unix stream socket"),
    ];
    for (role, fd, expected) in cases {
        let fd = match role {
            Control | Monitor => alices(|| fd),
            _ => fd,
        };
        let refusal = place.with(role, fd);
        assert!(
            refusal.starts_with(&format!("The file {role:?} ")),
            "{refusal:?}, not {expected:?}"
        );
        assert!(refusal.contains(expected), "{refusal:?}, not {expected:?}");
    }
}

#[test]
fn files_of_others_are_refused() {
    if own_uid() != 0 {
        // Another's files cannot be made.
        return;
    }
    let place = Place::new();
    let bobs = |name: &str| {
        let path = place.file(name, 4096);
        give(&path, BOB);
        path
    };
    let listener: OwnedFd = UnixListener::bind(place.path("bobs")).unwrap().into();
    for (role, fd) in [
        (FileRole::Kernel, read(&bobs("kernel"))),
        (FileRole::Initrd, read(&bobs("initrd"))),
        (FileRole::RootDisk, read_write(&bobs("disk"))),
        (FileRole::Console, append(&bobs("console"))),
        (FileRole::Log, append(&bobs("log"))),
        (FileRole::Control, listener),
    ] {
        let refusal = place.with(role, fd);
        assert_eq!(refusal, format!("The file {role:?} is another user's"));
    }
    // Root's kernel may be booted, root's disk may not be written.
    let roots = place.file("roots", 4096);
    give(&roots, 0);
    let refusal = place.with(FileRole::RootDisk, read_write(&roots));
    assert_eq!(refusal, "The file RootDisk is another user's");
}

#[test]
fn exactly_the_engines_files_are_taken() {
    let check = |engine, change: &dyn Fn(&Place, &mut HashMap<u8, OwnedFd>)| {
        let place = Place::new();
        let mut files = place.good();
        change(&place, &mut files);
        refusal(Files::check(files, engine, alice()))
    };
    for role in roles(LaunchEngine::Qemu) {
        let missing = check(LaunchEngine::Qemu, &|_, files| drop(files.remove(&role.number())));
        assert_eq!(missing, format!("The file {role:?} is missing"));
    }
    for number in [FileRole::Directory.number(), 8, u8::MAX] {
        let extra = check(LaunchEngine::Qemu, &|_, files| {
            drop(files.insert(number, stream()));
        });
        assert_eq!(extra, format!("Qemu takes no file {number}"));
    }
    // Firecracker takes a directory in place of the sockets.
    let firecracker = |mode: u32| {
        check(LaunchEngine::Firecracker, &|place, files| {
            let sockets = [FileRole::Control, FileRole::Monitor];
            files.retain(|number, _| !sockets.iter().any(|role| role.number() == *number));
            let path = place.path("sockets");
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            give(&path, alice());
            files.insert(FileRole::Directory.number(), read(&path));
        })
    };
    assert_eq!(firecracker(0o700), "");
    assert_eq!(firecracker(0o770), "", "as with an access list");
    for mode in [0o701, 0o707, 0o2700, 0o1700] {
        let refusal = firecracker(mode);
        assert_eq!(
            refusal, "The file Directory is a directory that others can use",
            "{mode:o}"
        );
    }
    let qemus = check(LaunchEngine::Firecracker, &|_, _| {});
    assert!(qemus.starts_with("Firecracker takes no file"), "{qemus}");
}

#[test]
fn a_log_is_written_to_pipes_alone() {
    let place = Place::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    assert!(check_reader(&writer).is_ok());
    let file = place.file("file", 10);
    for (fd, expected) in [
        (reader, "must be open for writing only"),
        (append(&file), "is no pipe"),
        (write(Path::new("/dev/null")), "is no pipe"),
        (named_only(&file), "is not open (O_PATH)"),
        // It may be one of journald's, to whom root would seem to speak.
        (stream(), "is no pipe"),
    ] {
        assert_eq!(check_reader(&fd), Err(expected));
    }
}
