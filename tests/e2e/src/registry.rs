//! A real registry: Debian's `docker-registry` on a free port of the loopback, filled by
//! `skopeo`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Blocking, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::layout::{Image, Layout};
use crate::rig::finished;

/// Who may log in where a login is asked for.
pub const USER: &str = "tester";
pub const PASSWORD: &str = "not a secret";
/// bcrypt of [`PASSWORD`], as `htpasswd -nbB` prints it.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuiitcSTbmWtinjxTMhPy6Z4ocreVFuRu";
const PUSH_LIMIT: Duration = Duration::from_secs(300);

/// A running registry; it ends with this value, and its content goes with it.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: String,
    kind: Kind,
    dir: TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Login,
    Tls,
}

/// A registry, and the layout that it was filled from.
#[derive(Debug)]
pub struct Stock {
    pub registry: Registry,
    pub layout: Layout,
    _dir: TempDir,
}

impl Stock {
    /// A registry with images, each as `test/NAME:1`. `None` where that cannot be had; why was
    /// said.
    ///
    /// # Panics
    /// When the registry does not take them.
    pub async fn of<const N: usize>(images: [(&str, Result<Image, String>); N]) -> Option<Self> {
        Self::fill(Registry::start()?, images).await
    }

    /// The same in a registry that was started already.
    ///
    /// # Panics
    /// When the registry does not take them.
    pub async fn fill<const N: usize>(
        registry: Registry,
        images: [(&str, Result<Image, String>); N],
    ) -> Option<Self> {
        let dir = tempfile::tempdir_in(crate::rig::temporary()).expect("a temporary directory can be made");
        let mut layout = Layout::create(dir.path());
        for (name, image) in images {
            match image {
                Ok(image) => layout.add(name, &image),
                Err(why) => {
                    crate::skipped("registry", &why);
                    return None;
                }
            }
            registry.push(layout.dir(), name, &format!("test/{name}:1")).await;
        }
        Some(Self {
            registry,
            layout,
            _dir: dir,
        })
    }
}

impl Registry {
    /// A registry that anybody may read and fill. `None` where the programs are missing; that
    /// was said.
    pub fn start() -> Option<Self> {
        Self::launch(Kind::Open)
    }

    /// The same, with a login: [`USER`] and [`PASSWORD`].
    pub fn with_login() -> Option<Self> {
        Self::launch(Kind::Login)
    }

    /// The same by TLS, with a certificate of [`Registry::authority`].
    pub fn with_tls() -> Option<Self> {
        if !crate::has_program("openssl") {
            crate::skipped("registry", "no openssl here");
            return None;
        }
        Self::launch(Kind::Tls)
    }

    fn launch(kind: Kind) -> Option<Self> {
        for program in ["docker-registry", "skopeo", "umoci"] {
            if !crate::has_program(program) {
                crate::skipped("registry", &format!("no {program} here"));
                return None;
            }
        }
        let dir = tempfile::Builder::new()
            .prefix("bng-registry-")
            .tempdir_in(crate::rig::temporary())
            .expect("a temporary directory can be made");
        let mut process = Blocking::new("docker-registry")
            .arg("serve")
            .arg(configuration(dir.path(), kind))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry can be started");
        let stderr = process.stderr.take().expect("standard error is a pipe");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let address = lines.find_map(|line| address_in(&line));
        // Whoever does not read what it says stops it.
        std::thread::spawn(move || lines.for_each(drop));
        let mut registry = Self {
            process,
            address: String::new(),
            kind,
            dir,
        };
        registry.address = address.expect("the registry says where it listens");
        Some(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The certificate of who vouches for a registry with TLS.
    pub fn authority(&self) -> Option<PathBuf> {
        (self.kind == Kind::Tls).then(|| self.dir.path().join("ca.crt"))
    }

    /// The reference of an image of this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Copies what a layout has under a tag, with all platforms, to `name` (`repository:tag`).
    ///
    /// # Panics
    /// When skopeo cannot.
    pub async fn push(&self, layout: &Path, tag: &str, name: &str) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ]);
        if self.kind == Kind::Login {
            skopeo.args(["--dest-creds", &format!("{USER}:{PASSWORD}")]);
        }
        skopeo
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{}", self.reference(name)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finished(&mut skopeo, PUSH_LIMIT).await.ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn configuration(dir: &Path, kind: Kind) -> PathBuf {
    let show = |name: &str| dir.join(name).display().to_string();
    let mut tls = String::new();
    if kind == Kind::Tls {
        certificates(dir);
        tls = format!(
            ", tls: {{certificate: '{}', key: '{}'}}",
            show("crt"),
            show("key")
        );
    }
    let mut text = format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
         http: {{addr: '127.0.0.1:0', secret: none{tls}}}\n",
        show("storage")
    );
    if kind == Kind::Login {
        fs::write(dir.join("htpasswd"), format!("{HTPASSWD}\n")).expect("the directory is writable");
        text += &format!(
            "auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n",
            show("htpasswd")
        );
    }
    let file = dir.join("config.yml");
    fs::write(&file, text).expect("the directory is writable");
    file
}

/// An authority (`ca.crt`), and a certificate (`crt`, `key`) of it for the loopback.
fn certificates(dir: &Path) {
    let script = "
        new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2'
        openssl req -x509 $new -keyout ca.key -out ca.crt -subj '/CN=test authority'
        openssl req $new -keyout key -out csr -subj '/CN=127.0.0.1'
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >extensions
        openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \\
            -extfile extensions -out crt";
    let out = Blocking::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .output();
    let out = out.expect("sh can be started");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The address in a line of the registry's log: `… msg="listening on 127.0.0.1:40001" …`.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest
        .find(|c: char| c == '"' || c == ',' || c.is_whitespace())
        .unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}
