//! This test program is its own unpacker, as bangerd is.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process;

use serde::{Deserialize, Serialize};

use super::*;
use crate::bundle::{self, Manifest};
use crate::error::chain;
use crate::layer::testing;

/// What a child that was taken over would try.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Misdeed {
    Open,
    Stat,
    Connect,
    Execute,
    Fork,
    Thread,
    Kill,
    Trace,
}

impl Misdeed {
    const DEADLY: [Self; 8] = [
        Self::Open,
        Self::Stat,
        Self::Connect,
        Self::Execute,
        Self::Fork,
        Self::Thread,
        Self::Kill,
        Self::Trace,
    ];

    /// Whatever it gives is thrown away: that it is tried must be the end.
    pub(super) fn commit(self) {
        match self {
            Self::Open => _ = File::open("/etc/passwd"),
            Self::Stat => _ = fs::metadata("/etc/passwd"),
            Self::Connect => _ = std::net::TcpStream::connect(("127.0.0.1", 1)),
            Self::Execute => _ = Command::new("/bin/true").exec(),
            Self::Fork => _ = Command::new("/bin/true").spawn(),
            Self::Thread => _ = std::thread::Builder::new().spawn(|| ()),
            Self::Kill => {
                _ = rustix::process::kill_process(rustix::process::Pid::INIT, rustix::process::Signal::CONT);
            }
            Self::Trace => {
                _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
            }
        }
    }
}

/// Not a test by itself: the child's `main` when the standard input is its socket.
#[test]
fn child_entry() {
    use rustix::net::sockopt::socket_type;
    if socket_type(io::stdin()) == Ok(SocketType::SEQPACKET) {
        let code = run_child();
        process::exit(i32::from(code != process::ExitCode::SUCCESS));
    }
}

fn unpacker() -> Unpacker {
    Unpacker {
        program: "/proc/self/exe".into(),
        arguments: ["unpack::tests::child_entry", "--exact", "--nocapture"]
            .map(Into::into)
            .to_vec(),
    }
}

fn start(cancel: &Cancel) -> (File, Session) {
    let target = tempfile::tempfile().unwrap();
    let session = unpacker()
        .start(target.try_clone().unwrap(), testing::seed(), cancel)
        .unwrap();
    (target, session)
}

fn layer(stored: &[u8], compression: Compression, content: &[u8]) -> Layer {
    let mut blob = tempfile::tempfile().unwrap();
    blob.write_all(stored).unwrap();
    blob.rewind().unwrap();
    Layer {
        blob,
        size: stored.len() as u64,
        compression,
        diff_id: Digest::of(content),
    }
}

fn gzip_layer(content: &[u8]) -> Layer {
    layer(&testing::gzip(content), Compression::Gzip, content)
}

/// What the kernel says about the child (proc(5), status). This test program's main thread
/// was there before the one that confined itself.
fn status(session: &Session, key: &str) -> String {
    let pid = session.group.as_ref().unwrap().child.id();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let newest = threads
        .map(|thread| {
            thread
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        })
        .max()
        .unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{newest}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line[key.len() + 1..].trim().to_owned()
}

#[test]
fn layers_make_a_file_system() {
    let (target, mut session) = start(&Cancel::new());
    let first = testing::archive(&[("etc/", b""), ("etc/motd", b"one")]);
    let second = testing::archive(&[("etc/motd", b"second"), ("new", &[7; 3 << 20])]);
    let mut seen = Vec::new();
    session.layer(&gzip_layer(&first), &mut |_| {}).unwrap();
    session
        .layer(&layer(&second, Compression::None, &second), &mut |read| {
            seen.push(read);
        })
        .unwrap();
    let summary = session.finish().unwrap();
    assert_eq!(summary.size, target.metadata().unwrap().len());
    assert!(seen.is_sorted() && *seen.last().unwrap() > 2 << 20, "{seen:?}");
    testing::check_file_system(&target);
}

#[test]
fn what_a_child_must_not_do_ends_it() {
    for misdeed in Misdeed::DEADLY {
        let (_, mut session) = start(&Cancel::new());
        let error = session
            .ask(&Request::Misbehave(misdeed), &[], &mut |_| {})
            .unwrap_err();
        assert!(
            matches!(error, Error::Unpack(UnpackError::Killed { signal: 31 })),
            "{misdeed:?}: {}",
            chain(&error)
        );
        assert!(chain(&error).contains("SIGSYS"), "{}", chain(&error));
    }
}

#[test]
fn a_child_has_nothing_that_it_does_not_need() {
    let (_, session) = start(&Cancel::new());
    for (key, value) in [
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        ("CapEff:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapInh:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("Umask:", "0777"),
    ] {
        assert_eq!(status(&session, key.trim_end_matches(':')), value, "{key}");
    }
    let pid = session.group.as_ref().unwrap().child.id();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert_eq!(limit("Max address space"), ADDRESS_SPACE.to_string());
    assert_eq!(limit("Max cpu time"), CPU_SECONDS.to_string());
    assert_eq!(limit("Max open files"), "16");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(environment.is_empty(), "{}", environment.escape_ascii());
    // Where this may be looked at: the streams, the target, and its copy.
    if let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) {
        assert!(open.count() <= 5);
    }
}

#[test]
fn what_is_refused_names_the_layer() {
    let (_, mut session) = start(&Cancel::new());
    let content = testing::archive(&[("../escape", b"x")]);
    let bad = gzip_layer(&content);
    let error = session.layer(&bad, &mut |_| {}).unwrap_err();
    let text = chain(&error);
    assert!(matches!(error, Error::Layer { .. }), "{text}");
    assert!(
        text.contains(&bad.diff_id.to_string()) && text.contains("leads upwards"),
        "{text}"
    );
    // The child is gone; what comes after says so instead of waiting.
    assert!(session.layer(&bad, &mut |_| {}).is_err());
}

#[test]
fn cancelling_leaves_no_process() {
    let cancel = Cancel::new();
    let (_, mut session) = start(&cancel);
    let pid = session.group.as_ref().unwrap().child.id();
    let other = cancel.clone();
    // The content is larger than what may wait in the socket and the child.
    let content = testing::archive(&[("big", &vec![7; 32 << 20])]);
    let error = session
        .layer(&layer(&content, Compression::None, &content), &mut |_| {
            other.cancel();
        })
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{}", chain(&error));
    drop(session);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_cancelled_operation_starts_none() {
    let cancel = Cancel::new();
    cancel.cancel();
    let target = tempfile::tempfile().unwrap();
    let error = unpacker().start(target, testing::seed(), &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{}", chain(&error));
}

#[test]
fn a_program_that_is_no_unpacker_is_an_error() {
    let unpacker = Unpacker {
        program: "/bin/true".into(),
        arguments: Vec::new(),
    };
    let target = tempfile::tempfile().unwrap();
    let error = unpacker
        .start(target, testing::seed(), &Cancel::new())
        .unwrap_err();
    assert!(
        matches!(error, Error::Unpack(UnpackError::Ended(_))),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_child_that_falls_silent_and_stays_is_ended() {
    for (script, words) in [
        ("exec <&-; exec sleep 1000", "does not keep to its protocol"),
        ("exec sleep 1000", "said nothing"),
    ] {
        let unpacker = Unpacker {
            program: "/bin/sh".into(),
            arguments: ["-c", script].map(Into::into).to_vec(),
        };
        let target = tempfile::tempfile().unwrap();
        let mut session = unpacker.spawn(target, &Cancel::new()).unwrap();
        session.ending = Duration::from_millis(50);
        if words == "said nothing" {
            session.silence = Duration::from_millis(50);
        }
        let pid = session.group.as_ref().unwrap().child.id();
        let error = session.ask(&Request::Finish, &[], &mut |_| {}).unwrap_err();
        assert!(chain(&error).contains(words), "{}", chain(&error));
        drop(session);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[test]
fn a_layer_that_lies_is_refused() {
    let content = testing::archive(&[("a", b"x")]);
    let other = Layer {
        diff_id: Digest::of(b"other"),
        ..gzip_layer(&content)
    };
    let zstd = layer(&testing::zstd(&content), Compression::Gzip, &content);
    for (bad, words) in [(other, "configuration says"), (zstd, "media type says gzip")] {
        let (_, mut session) = start(&Cancel::new());
        let text = chain(&session.layer(&bad, &mut |_| {}).unwrap_err());
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_bundle_comes_through() {
    let size = 3 << 20;
    let rootfs = tempfile::tempfile().unwrap();
    rootfs.set_len(size).unwrap();
    rootfs.write_all_at(&[5; 9000], 1 << 20).unwrap();
    let manifest = format!(
        r#"{{"kind":"image","version":1,"name":"a:1","size":{size},"content":1,"created":5,"origin":"{}"}}"#,
        "é".repeat(100)
    );
    let manifest = Manifest::parse(manifest.as_bytes()).unwrap();
    let content = bundle::Content::Image {
        rootfs: &rootfs,
        size,
    };
    let mut stored = Vec::new();
    bundle::write(&manifest, content, &mut stored, |_| Ok(())).unwrap();
    let unpack = |stored: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(stored).unwrap();
        file.rewind().unwrap();
        let target = tempfile::tempfile().unwrap();
        let copy = target.try_clone().unwrap();
        let json = unpacker().bundle(&file, copy, &mut |_| {}, &Cancel::new())?;
        Ok::<_, Error>((json, target))
    };
    let (json, target) = unpack(&stored).unwrap();
    assert_eq!(json, manifest.to_json().unwrap());
    assert_eq!(target.metadata().unwrap().len(), size);
    let mut bytes = [0; 9001];
    target.read_exact_at(&mut bytes, 1 << 20).unwrap();
    assert!(bytes[..9000].iter().all(|&byte| byte == 5) && bytes[9000] == 0);
    let error = unpack(&stored[..stored.len() - 9]).unwrap_err();
    assert!(
        matches!(error, Error::Unpack(UnpackError::Refused(_))),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_disk_that_is_nearly_full_stays_so() {
    let cancel = Cancel::new();
    let target = tempfile::tempfile().unwrap();
    let mut session = unpacker().spawn(target.try_clone().unwrap(), &cancel).unwrap();
    // No file system has so much left.
    session.reserve = u64::MAX;
    let request = Request::Start {
        seed: testing::seed(),
        reserve: session.reserve,
    };
    session.ask(&request, &[target.as_fd()], &mut |_| {}).unwrap();
    let content = testing::archive(&[("big", &vec![7; 8 << 20])]);
    let error = session.layer(&gzip_layer(&content), &mut |_| {}).unwrap_err();
    assert!(
        matches!(error, Error::NoSpace { quota: false, .. }),
        "{}",
        chain(&error)
    );
    assert!(target.metadata().unwrap().len() < 8 << 20);
}

/// A quarter of the entries that there may be, with the largest window of zstd beside them:
/// the others take what is left up to 256 MiB.
#[test]
fn memory_has_a_bound() {
    const ENTRIES: u32 = 250_000;
    const PEAK_MIB: u64 = 128 + (256 - 128) / 4 + 16;
    let cancel = Cancel::new();
    let (_, mut session) = start(&cancel);
    let mut blob = tempfile::tempfile().unwrap();
    let mut hasher = crate::Hasher::default();
    let mut zstd = zstd::Encoder::new(&mut blob, 1).unwrap();
    zstd.window_log(27).unwrap();
    let mut write = |bytes: &[u8]| {
        hasher.update(bytes);
        zstd.write_all(bytes).unwrap();
    };
    for number in 0..ENTRIES {
        // Names and times that a compressor cannot foresee: this is no bomb.
        let mixed = number.wrapping_mul(0x9e37_79b1);
        let name = format!("d{:03}/{mixed:08x}", number % 991);
        write(&testing::header(&name, mixed));
    }
    write(&[0; 1024]);
    zstd.finish().unwrap();
    let size = blob.stream_position().unwrap();
    blob.rewind().unwrap();
    let layer = Layer {
        blob,
        size,
        compression: Compression::Zstd,
        diff_id: hasher.finish(),
    };
    session.layer(&layer, &mut |_| {}).unwrap();
    assert!(matches!(
        session.ask(&Request::Finish, &[], &mut |_| {}).unwrap(),
        Reply::Finished { files, .. } if files > ENTRIES
    ));
    let peak: u64 = status(&session, "VmHWM").trim_end_matches(" kB").parse().unwrap();
    assert!(peak <= PEAK_MIB << 10, "{peak} KiB");
}

#[test]
fn a_sparse_file_of_1_pib_is_refused() {
    let (_, mut session) = start(&Cancel::new());
    let mut header = tar::Header::new_gnu();
    header.set_path("sparse").unwrap();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::GNUSparse);
    // Base 256 of 2^50 (GNU tar, tar.h).
    header.as_gnu_mut().unwrap().realsize = [0x80, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0];
    header.set_cksum();
    let content = [&header.as_bytes()[..], &[0; 1024]].concat();
    let error = session.layer(&gzip_layer(&content), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Layer { .. }), "{}", chain(&error));
}
