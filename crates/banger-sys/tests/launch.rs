//! The launcher end to end: this test program is its own launcher, as bangerd is.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};

use banger_sys::landlock::{Confinement, Enforcement, FileAccess, FileRule};
use banger_sys::launch::{
    LAUNCH_FAILED, LaunchError, LaunchSpec, Launched, Launcher, Limits, run_launcher, spawn,
};
use banger_sys::pidfd::{Exit, Pidfd};
use rustix::process::Signal;

/// Tells the program that it is the parent in the middle.
const MIDDLE: &str = "BANGER_TEST_MIDDLE";

fn launcher() -> Launcher {
    Launcher {
        program: "/proc/self/exe".into(),
        arguments: ["launcher_entry", "--exact", "--nocapture"]
            .map(Into::into)
            .to_vec(),
    }
}

/// Not a test by itself: the launcher's `main` when the standard input is its socket.
#[test]
fn launcher_entry() {
    if rustix::net::sockopt::socket_type(std::io::stdin())
        .is_ok_and(|kind| kind == rustix::net::SocketType::SEQPACKET)
    {
        let _ = run_launcher();
        std::process::exit(LAUNCH_FAILED.into());
    }
}

fn shell(script: &str) -> LaunchSpec {
    LaunchSpec {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        limits: Limits {
            file_bytes: 4096,
            open_files: 64,
            oom_score_adj: 300,
        },
        confinement: Confinement {
            files: vec![
                FileRule::path("/usr", FileAccess::ReadExecute),
                FileRule::path("/bin", FileAccess::ReadExecute),
                FileRule::path("/lib", FileAccess::ReadExecute),
                FileRule::path("/lib64", FileAccess::ReadExecute),
                FileRule::path("/etc/ld.so.cache", FileAccess::Read),
                FileRule::path("/proc", FileAccess::Read),
                FileRule::path("/dev/null", FileAccess::Write),
                FileRule::path("/no/such/thing", FileAccess::Write),
            ],
            tcp_bind: Some(vec![]),
            tcp_connect: Some(vec![]),
            scoped: true,
        },
        system_calls: None,
        identity: None,
    }
}

/// A pipe as standard output and error; what the program said, when it has ended.
fn output() -> (File, Vec<(OwnedFd, RawFd)>) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let copy = write.try_clone().unwrap();
    (File::from(read), vec![(write, 1), (copy, 2)])
}

async fn run(spec: &LaunchSpec, extra: Vec<(OwnedFd, RawFd)>) -> (String, Exit) {
    let (mut output, mut fds) = output();
    fds.extend(extra);
    let mut launched = spawn(&launcher(), spec, fds).unwrap();
    let enforcement = launched.barrier.ready().await.unwrap();
    if enforcement != Enforcement::Full {
        println!("Landlock is not enforced in full here: {enforcement:?}");
    }
    launched.barrier.release().await.unwrap();
    let said = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let text = said.await.unwrap().unwrap();
    (text, launched.pidfd.exited().await.unwrap())
}

#[tokio::test]
async fn the_program_is_confined_in_every_way() {
    let script = "
        grep -E '^(NoNewPrivs|CapEff|CapPrm|CapInh|CapBnd|CapAmb|SigIgn|SigBlk):' /proc/self/status
        echo umask $(umask)
        echo files $(ulimit -n) core $(ulimit -c)
        echo oom $(cat /proc/self/oom_score_adj)
        echo cwd $(pwd)
        read -r pid name state parent group session rest < /proc/self/stat
        echo own-session $((pid - session))
        env | sort | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=
        exit 7";
    let (text, exit) = run(&shell(script), vec![]).await;
    assert_eq!(exit, Exit::Code(7), "{text}");
    let words = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let zero = "0000000000000000";
    for expected in [
        "NoNewPrivs: 1".to_owned(),
        format!("CapInh: {zero} CapPrm: {zero} CapEff: {zero}"),
        format!("CapAmb: {zero}"),
        format!("SigBlk: {zero}"),
        "umask 0077 files 64 core 0 oom 300 cwd / own-session 0 PATH=/usr/bin:/bin".to_owned(),
    ] {
        assert!(words.contains(&expected), "{expected} in {words}");
    }
    // Rust's runtime ignores SIGPIPE (13); the program must not.
    let (_, ignored) = words.split_once("SigIgn: ").unwrap();
    let ignored = u64::from_str_radix(&ignored[..16], 16).unwrap();
    assert_eq!(ignored & (1 << 12), 0, "{words}");
    if rustix::process::geteuid().is_root() {
        assert!(words.contains(&format!("CapBnd: {zero}")), "{words}");
    }
}

#[tokio::test]
async fn exactly_the_listed_descriptors_are_open() {
    // The parent has others, and one that close-on-exec does not protect.
    let leaky = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let (first, second) = (temporary("first"), temporary("second"));
    let extra = vec![(first, 20), (second, 5)];
    let mut spec = shell("ls /proc/$$/fd; cat /proc/self/fd/20 /proc/self/fd/5; exit 0");
    for number in [5, 20] {
        let rule = FileRule::descriptor(number, FileAccess::Read);
        spec.confinement.files.push(rule);
    }
    let (text, exit) = run(&spec, extra).await;
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert_eq!(
        text.split_ascii_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "20", "5", "first", "second"]
    );
}

fn temporary(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    writeln!(file, "{text}").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file.into()
}

#[tokio::test]
async fn descriptors_may_swap_their_numbers() {
    let (first, second) = (temporary("first"), temporary("second"));
    let (a, b) = (
        std::os::fd::AsRawFd::as_raw_fd(&first),
        std::os::fd::AsRawFd::as_raw_fd(&second),
    );
    let script = format!("cat /proc/self/fd/{a} /proc/self/fd/{b}");
    let mut spec = shell(&script);
    for number in [a, b] {
        let rule = FileRule::descriptor(number, FileAccess::Read);
        spec.confinement.files.push(rule);
    }
    let (text, _) = run(&spec, vec![(first, b), (second, a)]).await;
    assert_eq!(text, "second\nfirst\n");
}

#[tokio::test]
async fn nothing_but_the_listed_files_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret\n").unwrap();
    let path = secret.display();
    let script = format!(
        "cat {path}; echo x >> {path}; echo x > {path}.new; ls {}; rm {path}; kill -0 {}; exit 0",
        dir.path().display(),
        std::process::id()
    );
    let (mut output, fds) = output();
    let mut launched = spawn(&launcher(), &shell(&script), fds).unwrap();
    if launched.barrier.ready().await.unwrap() == Enforcement::None {
        let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|rung| rung == "landlock"));
        println!("skipped: no Landlock in this kernel");
        launched.pidfd.send_signal(Signal::KILL).unwrap();
        launched.pidfd.exited().await.unwrap();
        return;
    }
    launched.barrier.release().await.unwrap();
    launched.pidfd.exited().await.unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert!(text.matches("ermission denied").count() >= 4, "{text}");
    assert!(!text.contains("secret\n"), "{text}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn without_the_barrier_nothing_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("echo ran");
    spec.confinement = Confinement::default();
    let (mut output, fds) = output();
    let Launched { pidfd, barrier, .. } = spawn(&launcher(), &spec, fds).unwrap();
    drop(barrier);
    assert_eq!(pidfd.exited().await.unwrap(), Exit::Code(LAUNCH_FAILED.into()));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert!(text.contains("The parent ended"), "{text}");
    assert!(!text.contains("ran"), "{text}");
    drop(dir);
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_told() {
    let mut spec = shell("");
    spec.program = "/usr/bin/no-such-program".into();
    let (_output, fds) = output();
    let launched = spawn(&launcher(), &spec, fds).unwrap();
    let failure = launched.barrier.release().await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "The launcher failed: Cannot execute /usr/bin/no-such-program: No such file or directory (os error 2)"
    );
    let exit = launched.pidfd.exited().await.unwrap();
    assert_eq!(exit, Exit::Code(LAUNCH_FAILED.into()));
}

#[tokio::test]
async fn what_cannot_be_passed_is_refused() {
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let spec = shell("");
    let refused = |fds| spawn(&launcher(), &spec, fds).unwrap_err();
    assert!(matches!(refused(vec![]), LaunchError::Descriptors { count: 0 }));
    assert!(matches!(refused(vec![(null(), -1)]), LaunchError::Target(-1)));
    assert!(matches!(refused(vec![(null(), 5000)]), LaunchError::Target(5000)));
    assert!(matches!(
        refused(vec![(null(), 4), (null(), 4)]),
        LaunchError::Target(4)
    ));
    let huge = shell(&"x".repeat(200_000));
    let refusal = spawn(&launcher(), &huge, vec![(null(), 4)]).unwrap_err();
    assert!(matches!(refusal, LaunchError::TooLarge { .. }));
    let missing = Launcher {
        program: "/no/such/launcher".into(),
        arguments: vec![],
    };
    let refusal = spawn(&missing, &spec, vec![(null(), 4)]).unwrap_err();
    assert!(matches!(refusal, LaunchError::Start { .. }));
}

/// Not a test by itself: a parent that launches `cat` between its own streams and ends.
#[test]
fn middle_entry() {
    if std::env::var_os(MIDDLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut spec = shell("cat");
        spec.program = "/bin/cat".into();
        spec.arguments = vec![];
        let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let fds = vec![
            (copy(std::io::stdin().as_fd()), 0),
            (copy(std::io::stderr().as_fd()), 1),
        ];
        let launched = spawn(&launcher(), &spec, fds).unwrap();
        launched.barrier.release().await.unwrap();
        eprintln!("pid {}", launched.pid);
    });
    // Dies as a daemon that is killed does.
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, Signal::KILL).unwrap();
}

#[tokio::test]
async fn the_program_survives_its_parent() {
    let mut middle = Command::new("/proc/self/exe")
        .args(["middle_entry", "--exact", "--nocapture"])
        .env(MIDDLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = middle.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(middle.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let pid: u32 = line.trim().strip_prefix("pid ").unwrap().parse().unwrap();
    let pidfd = Pidfd::open(pid).unwrap();
    assert!(!middle.wait().unwrap().success());

    stdin.write_all(b"still here\n").unwrap();
    line.clear();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "still here\n");
    assert!(pidfd.is_alive());
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(stdin);
    let exit = pidfd.exited().await.unwrap();
    assert!([Exit::Code(0), Exit::Unknown].contains(&exit), "{exit:?}");
}
