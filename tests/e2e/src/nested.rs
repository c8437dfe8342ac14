//! A whole machine: Debian in a QEMU whose emulated processor has SVM, so that KVM works in it,
//! with a kernel of its own, every controller of cgroup v2, systemd and polkit.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rig::{Out, bin_dir, finished, temporary};
use crate::store::{self, Content};

const RUNG: &str = "nested";
const MAKE_LIMIT: Duration = Duration::from_secs(1800);
/// It takes about half a minute where nothing else is done.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(600);
/// The directory for files that tests put into the machine.
const GIVEN: &str = "given";
const PROGRAMS: [&str; 4] = ["banger", "bangerd", "banger-helper", "banger-guest"];

/// The machine; it is gone when this is dropped.
#[derive(Debug)]
pub struct Nested {
    dir: TempDir,
    qemu: Child,
    port: BufReader<UnixStream>,
}

impl Nested {
    /// Boots, with the programs under test unpacked in `/opt/banger`, and a user alice who has
    /// the bare image. `None` where that cannot be; why was said.
    ///
    /// # Panics
    /// When it should work and does not.
    pub async fn boot() -> Option<Self> {
        Self::boot_with(Content::Bare).await
    }

    /// The same with other images, which are alice's, and shared as `/mnt/store`.
    ///
    /// # Panics
    /// When it should work and does not.
    pub async fn boot_with(content: Content) -> Option<Self> {
        for program in ["qemu-system-x86_64", "mmdebstrap", "mke2fs"] {
            if !crate::has_program(program) {
                crate::skipped(RUNG, &format!("no {program} here"));
                return None;
            }
        }
        let made = store::kept("nested", async |dir| make(dir).await).await;
        let ready = async { Ok::<_, String>((made?, store::ready(content).await?)) };
        match ready.await {
            Ok((root, content)) => {
                let mut machine = Self::start(&root, &content).await;
                machine.settle().await;
                Some(machine)
            }
            Err(why) => {
                crate::skipped(RUNG, &why);
                None
            }
        }
    }

    async fn start(root: &Path, content: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bngn-")
            .tempdir_in(temporary())
            .expect("a temporary directory");
        std::fs::create_dir(dir.path().join(GIVEN)).expect("a directory in a new one");
        let socket = dir.path().join("port");
        let listener = UnixListener::bind(&socket).expect("a socket can be made");
        let log = std::fs::File::create(dir.path().join("qemu.log")).expect("a file in a new directory");
        let at = |name: &str| root.join(name).display().to_string();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-M", "q35"]);
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt"]);
        qemu.args(["-smp", "2", "-m", "3G"]);
        qemu.args(["-kernel", &at("vmlinuz"), "-initrd", &at("initrd.img"), "-append"]);
        qemu.arg("root=/dev/vda rw console=ttyS0 quiet mitigations=off cryptomgr.notests tsc=reliable");
        // Written to a file without a name, which is gone with QEMU.
        let disk = format!("file={},format=raw,if=virtio,snapshot=on", at("root.ext4"));
        qemu.args([
            "-drive",
            &disk,
            "-device",
            "virtio-rng-pci",
            "-device",
            "virtio-serial-pci",
        ]);
        qemu.args(["-chardev", &format!("socket,id=port,path={}", socket.display())]);
        qemu.args(["-device", "virtserialport,chardev=port,name=nested"]);
        qemu.args([
            "-serial",
            &format!("file:{}", dir.path().join("console").display()),
        ]);
        for (tag, path) in shares(content, dir.path()) {
            let path = path.canonicalize().unwrap_or(path);
            let fs = format!(
                "local,id={tag},path={},security_model=none,readonly=on",
                path.display()
            );
            qemu.args(["-fsdev", &fs, "-device"]);
            qemu.arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
        }
        let mut qemu = qemu
            .env("TMPDIR", temporary())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("QEMU can be started");
        let logs = || {
            let text = |name| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
            text("qemu.log") + &text("console")
        };
        let connected = async {
            let (stream, _) = listener.accept().await.expect("QEMU connects");
            let mut port = BufReader::new(stream);
            let mut line = String::new();
            port.read_line(&mut line).await.expect("the port can be read");
            assert_eq!(line, "ready\n");
            port
        };
        let port = tokio::select! {
            port = timeout(BOOT_LIMIT, connected) => port,
            status = qemu.wait() => panic!("QEMU ended ({status:?}):\n{}", logs()),
        };
        let port = port.unwrap_or_else(|_| panic!("The machine did not come up:\n{}", logs()));
        Self { dir, qemu, port }
    }

    async fn settle(&mut self) {
        let script = r#"
            set -eu
            for tag in bin store given; do
                mkdir -p "/mnt/$tag"
                mount -t 9p -o trans=virtio,ro,msize=262144 "$tag" "/mnt/$tag"
            done
            mkdir /opt/banger
            for program in PROGRAMS; do install "/mnt/bin/$program" /opt/banger/; done
            useradd --create-home --uid 4242 --shell /bin/bash alice
            home=/home/alice
            mkdir -p $home/.local/share $home/.cache
            cp -a --sparse=always /mnt/store/d/. $home/.local/share/
            cp -a /mnt/store/k/. $home/.cache/
            [ ! -e /mnt/store/bare.ext4 ] || cp --sparse=always /mnt/store/bare.ext4 $home/
            # The image is a file of whoever made the store: here it is the user's own.
            sed -i 's|"[^"]*/bare.ext4|"'$home'/bare.ext4|' $home/.local/share/banger/images/*/*.json
            chown -R alice: $home
            loginctl enable-linger alice
            systemctl start user@4242.service"#;
        self.sh(&script.replace("PROGRAMS", &PROGRAMS.join(" ")))
            .await
            .ok();
    }

    /// A script of root's.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn sh(&mut self, script: &str) -> Out {
        let line = STANDARD.encode(script) + "\n";
        let mut answer = String::new();
        let exchange = async {
            let port = self.port.get_mut();
            port.write_all(line.as_bytes()).await?;
            self.port.read_line(&mut answer).await
        };
        match timeout(LIMIT, exchange).await {
            Ok(Ok(1..)) => {}
            other => panic!("No answer ({other:?}) to:\n{script}"),
        }
        let decode = |text: &str| STANDARD.decode(text).expect("the agent's own base64");
        let parts: Vec<&str> = answer.trim_end().split(':').collect();
        let [status, stdout, stderr] = parts[..] else {
            panic!("Not an answer of the agent: {answer:?}");
        };
        Out {
            status: status.parse().expect("a number"),
            stdout: decode(stdout),
            stderr: String::from_utf8_lossy(&decode(stderr)).into_owned(),
            what: script.to_owned(),
        }
    }

    /// `banger` as alice, without a session at the machine's seat.
    pub async fn alice(&mut self, words: &str) -> Out {
        self.sh(&format!("exec {}", Self::as_alice(words))).await
    }

    /// The command of that, for scripts.
    pub fn as_alice(words: &str) -> String {
        format!(
            "runuser -u alice -- env -i HOME=/home/alice PATH=/usr/local/bin:/usr/bin:/bin \
             XDG_RUNTIME_DIR=/run/user/4242 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/4242/bus \
             LC_ALL=C.UTF-8 banger {words}"
        )
    }

    /// Turns system mode on and lets alice use it.
    pub async fn install(&mut self) {
        let script = "/opt/banger/banger system install && usermod -aG banger alice";
        self.sh(script).await.ok();
    }

    /// Copies a file of this host into the machine.
    ///
    /// # Panics
    /// When it cannot be read here.
    pub async fn put(&mut self, file: &Path, place: &str) {
        let given = self.dir.path().join(GIVEN).join("file");
        std::fs::copy(file, given).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.sh(&format!("install -D -m 755 /mnt/{GIVEN}/file {place}"))
            .await
            .ok();
    }

    /// Switches it off.
    pub async fn end(mut self) {
        // What is in it is thrown away.
        let _ = self.qemu.kill().await;
    }
}

fn shares(content: &Path, dir: &Path) -> [(&'static str, PathBuf); 3] {
    let given = dir.join(GIVEN);
    [("bin", bin_dir()), ("store", content.to_owned()), (GIVEN, given)]
}

async fn make(dir: &Path) -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rig/nested/make");
    let out = finished(Command::new(script).arg(dir), MAKE_LIMIT).await;
    if out.status == 0 {
        return Ok(());
    }
    let last = out.stderr.lines().last().unwrap_or_default();
    Err(format!("the nested machine cannot be made: {last}"))
}
