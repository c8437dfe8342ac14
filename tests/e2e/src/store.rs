//! Images and kernels, made once through the product itself and shared by all rigs. They stay
//! in a cache directory named by what made them; nothing depends on finding them there.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;

use crate::rig::{Rig, finished};

/// The kernel of every rig but the empty one.
pub const KERNEL: &str = "debian-6.1";
/// An image with nothing but a static busybox: no init, no ssh, no package manager.
pub const BARE: &str = "bare";
/// The same with git, make and rsync, those of this host.
pub const TOOLS: &str = "tools";
/// An image with systemd and sshd.
pub const DEBIAN: &str = "debian-minimal";

/// What a rig's user has in his store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// [`KERNEL`] and [`BARE`].
    Bare,
    /// [`TOOLS`] too.
    Tools,
    /// [`DEBIAN`] too.
    Debian,
}

/// A build of the cache that nobody has used for so long is removed.
const STALE: Duration = Duration::from_secs(3 * 24 * 3600);
const PULL_LIMIT: Duration = Duration::from_secs(1200);

/// Puts `content` into the rig's store, without copying where the file system can link.
///
/// # Errors
/// Why it cannot be had here.
pub(crate) async fn fill(rig: &Rig, content: Content) -> Result<(), String> {
    let source = ready(content).await?;
    clone(&source.join("d"), &rig.dir().join("d")).await?;
    clone(&source.join("k"), &rig.dir().join("k")).await
}

/// The directory of the cache with `content`: `d` as XDG_DATA_HOME, `k` as XDG_CACHE_HOME.
///
/// # Errors
/// Why it cannot be had here.
pub(crate) async fn ready(content: Content) -> Result<PathBuf, String> {
    // One that another machine made.
    if let Some(given) = std::env::var_os("BANGER_TEST_STORE") {
        return Ok(given.into());
    }
    match content {
        Content::Bare => bare().await,
        Content::Tools => tools().await,
        Content::Debian => debian().await,
    }
}

async fn bare() -> Result<PathBuf, String> {
    made("bare", async |dir| {
        let rootfs = bare_rootfs(dir)?;
        let rig = Rig::empty();
        pull(&rig, &["kernel", "pull", KERNEL]).await?;
        register(&rig, BARE, &rootfs).await;
        // The first boot makes what boots share: the archives of the modules and of the guest program.
        let boot = [
            "vm",
            "run",
            "--rm",
            "--quiet",
            "--image",
            BARE,
            "--memory",
            "256M",
            "--vcpu",
            "1",
            "--",
            "/bin/true",
        ];
        rig.banger(boot).await.ok();
        keep(&rig, dir).await
    })
    .await
}

async fn tools() -> Result<PathBuf, String> {
    let below = bare().await?;
    made("tools", async |dir| {
        let rootfs = tools_rootfs(dir)?;
        let rig = Rig::empty();
        clone(&below.join("d"), &rig.dir().join("d")).await?;
        clone(&below.join("k"), &rig.dir().join("k")).await?;
        register(&rig, TOOLS, &rootfs).await;
        keep(&rig, dir).await
    })
    .await
}

async fn debian() -> Result<PathBuf, String> {
    let below = bare().await?;
    made("debian", async |dir| {
        let rig = Rig::empty();
        clone(&below.join("d"), &rig.dir().join("d")).await?;
        clone(&below.join("k"), &rig.dir().join("k")).await?;
        pull(&rig, &["image", "pull", DEBIAN]).await?;
        keep(&rig, dir).await
    })
    .await
}

async fn register(rig: &Rig, name: &str, rootfs: &Path) {
    let rootfs = rootfs.to_string_lossy();
    let words = [
        "image",
        "register",
        name,
        "--rootfs",
        &rootfs,
        "--kernel-ref",
        KERNEL,
    ];
    rig.banger(words).await.ok();
}

/// Pulls; what a machine without a mirror says is a reason and not a failure.
async fn pull(rig: &Rig, args: &[&str]) -> Result<(), String> {
    let out = finished(&mut rig.command(args), PULL_LIMIT).await;
    if out.status == 0 {
        return Ok(());
    }
    let offline = ["resolve", "Could not connect", "Network is unreachable"];
    if offline.iter().any(|word| out.stderr.contains(word)) {
        let last = out.stderr.lines().last().unwrap_or_default();
        return Err(format!("no Debian mirror is reached: {last}"));
    }
    panic!("{out}");
}

/// The finished directory `name` of the cache, made by `make` when it is not there. Several
/// tests may want it at once: one makes it, the others wait for its lock.
async fn made(name: &str, make: impl AsyncFnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    made_in(cache(), name, make).await
}

/// The same for what does not depend on the code under test: it is there after a change, too.
pub(crate) async fn kept(
    name: &str,
    make: impl AsyncFnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let base = base().join("kept");
    let dir = made_in(base.clone(), name, make).await?;
    // Used, and so not stale.
    _ = File::open(&base).and_then(|dir| dir.set_modified(SystemTime::now()));
    Ok(dir)
}

async fn made_in(
    base: PathBuf,
    name: &str,
    make: impl AsyncFnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    fs::create_dir_all(&base).map_err(|e| format!("cannot make {}: {e}", base.display()))?;
    let _lock = lock(&base.join(format!("{name}.lock"))).await?;
    let dir = base.join(name);
    if !dir.join("done").exists() {
        _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        make(&dir).await?;
        fs::write(dir.join("done"), "").map_err(|e| format!("cannot write in {}: {e}", dir.display()))?;
    }
    Ok(dir)
}

async fn lock(path: &Path) -> Result<File, String> {
    let told = |e: &dyn std::fmt::Display| format!("cannot lock {}: {e}", path.display());
    let file = File::create(path).map_err(|e| told(&e))?;
    let waiting =
        tokio::task::spawn_blocking(move || flock(&file, FlockOperation::LockExclusive).map(|()| file));
    waiting.await.map_err(|e| told(&e))?.map_err(|e| told(&e))
}

/// Moves a rig's store into the cache, after its daemon has gone.
async fn keep(rig: &Rig, dir: &Path) -> Result<(), String> {
    crate::processes::kill_all(rig.dir());
    for part in ["d", "k"] {
        // Moved, not copied: archives of the cache are named by their source's inode.
        let mut mv = Command::new("mv");
        let out = finished(
            mv.arg("--").arg(rig.dir().join(part)).arg(dir),
            Duration::from_secs(120),
        )
        .await;
        if out.status != 0 {
            return Err(out.stderr);
        }
    }
    Ok(())
}

async fn clone(from: &Path, to: &Path) -> Result<(), String> {
    // Links where both are on one file system: objects of the store are never changed in place.
    if copy(&["-a", "--link", "-T"], from, to).await.is_ok() {
        return Ok(());
    }
    copy(&["-a", "--reflink=auto", "--sparse=always", "-T"], from, to).await
}

async fn copy(how: &[&str], from: &Path, to: &Path) -> Result<(), String> {
    let mut cp = Command::new("cp");
    let out = finished(cp.args(how).arg("--").arg(from).arg(to), Duration::from_secs(120)).await;
    (out.status == 0).then_some(()).ok_or(out.stderr)
}

/// Names of busybox that the bare image goes without: it has no init.
const OTHER_PROGRAMS: [&str; 3] = ["busybox", "init", "linuxrc"];

/// An ext4 file with busybox under its many names.
fn bare_rootfs(dir: &Path) -> Result<PathBuf, String> {
    let root = dir.join("root");
    busybox(&root)?;
    let rootfs = dir.join("bare.ext4");
    mke2fs(&root, &rootfs, "48M")?;
    Ok(rootfs)
}

/// The same with what a developer's guest has, and the libraries of that.
fn tools_rootfs(dir: &Path) -> Result<PathBuf, String> {
    let root = dir.join("root");
    busybox(&root)?;
    for name in ["git", "make", "rsync"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
            .ok_or(format!("no {name} here: install it"))?;
        install(&program, &root.join("bin").join(name))?;
        let out = Blocking::new("ldd").arg(&program).output();
        let list = out.map_err(|e| format!("cannot run ldd: {e}"))?;
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            let library = Path::new(library);
            install(library, &root.join(library.strip_prefix("/").unwrap_or(library)))?;
        }
    }
    let rootfs = dir.join("tools.ext4");
    mke2fs(&root, &rootfs, "96M")?;
    Ok(rootfs)
}

fn install(from: &Path, to: &Path) -> Result<(), String> {
    let told = |e: std::io::Error| format!("cannot copy {}: {e}", from.display());
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(told)?;
    // Never through an applet's link, into busybox.
    _ = fs::remove_file(to);
    fs::copy(from, to).map_err(told).map(drop)
}

/// A root directory with nothing but busybox.
fn busybox(root: &Path) -> Result<(), String> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
        .ok_or("no busybox here: install busybox-static")?;
    for name in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).map_err(|e| e.to_string())?;
    }
    fs::copy(busybox, root.join("bin/busybox")).map_err(|e| e.to_string())?;
    let list = Blocking::new(busybox)
        .arg("--list")
        .output()
        .map_err(|e| e.to_string())?;
    for applet in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|name| !OTHER_PROGRAMS.contains(name))
    {
        symlink("busybox", root.join("bin").join(applet)).map_err(|e| e.to_string())?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").map_err(|e| e.to_string())?;
    fs::write(root.join("etc/group"), "root:x:0:\n").map_err(|e| e.to_string())
}

/// Makes an ext4 file of a directory's content, owned by root.
///
/// # Errors
/// What mke2fs said.
pub fn mke2fs(root: &Path, file: &Path, size: &str) -> Result<(), String> {
    let program = ["/usr/sbin/mke2fs", "/sbin/mke2fs"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let out = Blocking::new(program.unwrap_or("mke2fs"))
        .args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
        .arg(root)
        .arg(file)
        .arg(size)
        .output()
        .map_err(|e| format!("cannot run mke2fs: {e}"))?;
    out.status
        .success()
        .then_some(())
        .ok_or_else(|| String::from_utf8_lossy(&out.stderr).into_owned())
}

/// The cache of this version of the catalogue and of the code that builds from it.
fn cache() -> PathBuf {
    let base = base();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut hash = DefaultHasher::new();
    for part in [
        "packaging/recipes",
        "crates/banger-image/src",
        "tests/e2e/src/store.rs",
    ] {
        hash_files(&workspace.join(part), &mut hash);
    }
    let dir = base.join(format!("{:016x}", hash.finish()));
    remove_stale(&base, &dir);
    dir
}

fn base() -> PathBuf {
    std::env::var_os("BANGER_TEST_CACHE").map_or_else(
        || {
            let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
            home.join(".cache/banger-test")
        },
        PathBuf::from,
    )
}

fn hash_files(path: &Path, hash: &mut DefaultHasher) {
    if let Ok(text) = fs::read(path) {
        text.hash(hash);
    }
    let mut below: Vec<_> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    below.sort();
    for path in below {
        hash_files(&path, hash);
    }
}

fn remove_stale(base: &Path, current: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .is_ok_and(|age| age > STALE)
            });
        if old && entry.path() != current {
            _ = fs::remove_dir_all(entry.path());
        }
    }
}
