//! The other side of a boot: the VMM started by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use banger_e2e::{DEBIAN, Rig, finished};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::LIMIT;

/// The command line of a VM as somebody would write it by hand: the same options, with files
/// where banger passes descriptors.
pub(super) struct Bare {
    dir: PathBuf,
    arguments: Vec<String>,
    image: PathBuf,
}

impl Bare {
    pub(super) async fn of(rig: &Rig) -> Self {
        finished(
            &mut rig.new_vm("create", DEBIAN, &["--disk-size", crate::DISK, "model"]),
            LIMIT,
        )
        .await
        .ok();
        let vm = rig.show("model").await;
        let proc = PathBuf::from(format!("/proc/{}", vm["pid"]));
        let dir = rig.dir().join("bare");
        fs::create_dir_all(&dir).expect("the rig is writable");
        let text = fs::read_to_string(proc.join("cmdline")).expect("the VMM runs");
        let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
        let descriptor = |option: &str| {
            let at = words
                .iter()
                .position(|word| *word == option)
                .expect("the option is there");
            proc.join("fd")
                .join(words[at + 1].trim_start_matches("/proc/self/fd/"))
        };
        fs::copy(descriptor("-kernel"), dir.join("kernel")).expect("the kernel can be copied");
        fs::copy(descriptor("-initrd"), dir.join("initrd")).expect("the initramfs can be copied");
        let image = rig.banger(["image", "show", "--json", DEBIAN]).await.ok().json();
        let image = image.get(0).unwrap_or(&image)["rootfs"]
            .as_str()
            .expect("it has a file")
            .into();
        rig.banger(["vm", "delete", "-f", "model"]).await.ok();
        Self {
            arguments: rewritten(&words, &dir),
            dir,
            image,
        }
    }

    /// Boots to the ready message: how long that took, and the guest's own time of it.
    pub(super) async fn boot(&self) -> (Duration, Duration) {
        self.make_disk().await;
        let start = Instant::now();
        let (mut child, line) = self.ready(&self.arguments).await;
        let took = start.elapsed();
        let message: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
        child.kill().await.expect("QEMU can be ended");
        let uptime = message["uptime_ms"].as_u64().unwrap_or(0);
        (took, Duration::from_millis(uptime))
    }

    /// Boots with a port for the agent and one for the image's own sshd.
    pub(super) async fn with_sshd(&self) -> (Child, u16, u16) {
        self.make_disk().await;
        let free = || std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        // Both at once, so that they differ.
        let [agent, sshd] = [free(), free()].map(|free| free.local_addr().expect("it has one").port());
        let forwarded = "hostfwd=tcp:127.0.0.1:0-10.0.2.15:";
        let both =
            format!("hostfwd=tcp:127.0.0.1:{sshd}-10.0.2.15:22,hostfwd=tcp:127.0.0.1:{agent}-10.0.2.15:");
        let arguments: Vec<String> = self
            .arguments
            .iter()
            .map(|word| word.replace(forwarded, &both))
            .collect();
        assert_ne!(arguments, self.arguments, "QEMU forwards a port");
        let (child, _) = self.ready(&arguments).await;
        (child, agent, sshd)
    }

    async fn make_disk(&self) {
        let mut cp = Command::new("cp");
        cp.args(["--reflink=auto", "--sparse=always"])
            .arg(&self.image)
            .arg(self.dir.join("disk"));
        finished(&mut cp, LIMIT).await.ok();
    }

    /// Starts QEMU and waits for the guest's ready message.
    async fn ready(&self, arguments: &[String]) -> (Child, String) {
        let control = self.dir.join("control");
        _ = fs::remove_file(&control);
        let listener = UnixListener::bind(&control).expect("a socket can be made");
        let mut qemu = Command::new(&arguments[0]);
        qemu.args(&arguments[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let child = qemu.kill_on_drop(true).spawn().expect("QEMU can be started");
        let told = timeout(LIMIT, async {
            let (stream, _) = listener.accept().await?;
            let mut lines = BufReader::new(stream).lines();
            while let Some(line) = lines.next_line().await? {
                if line.contains("\"ready\"") {
                    return Ok(line);
                }
            }
            Err(std::io::ErrorKind::UnexpectedEof.into())
        });
        let line: std::io::Result<String> = told.await.expect("the guest becomes ready in time");
        (child, line.expect("the guest says ready"))
    }
}

fn rewritten(words: &[&str], dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut result = vec![words[0].to_owned()];
    let mut pairs = words[1..].iter().peekable();
    while let Some(word) = pairs.next() {
        let value = pairs.next_if(|next| !next.starts_with('-'));
        match (*word, value) {
            ("-add-fd" | "-mon", _) => continue,
            (_, Some(value)) if value.starts_with("socket,id=monitor") => continue,
            (option, Some(value)) => {
                let value = match option {
                    "-kernel" => file("kernel"),
                    "-initrd" => file("initrd"),
                    _ if value.starts_with("socket,id=control") => {
                        format!("socket,id=control,path={}", file("control"))
                    }
                    _ => value.replace("/dev/fdset/1", &file("disk")),
                };
                result.extend([option.to_owned(), value]);
            }
            (flag, None) => result.push(flag.to_owned()),
        }
    }
    result
}
