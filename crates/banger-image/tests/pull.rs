//! Pulls from Debian's archive. Those that need the network take minutes: they run when
//! `BANGER_TEST_REQUIRE` names the rung `image`, and by hand as
//! `BANGER_PULL="image debian-minimal /tmp/data" cargo test -p banger-image --test pull by_hand -- --nocapture`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use banger_image::catalog::Catalog;
use banger_image::oci::{self, Registry, RetryPolicy};
use banger_image::unpack::Unpacker;
use banger_image::{Cancel, Error, Mirrors, NoProgress, Progress, image, kernel};

fn required() -> bool {
    let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
    required.split(',').any(|rung| rung == "image")
}

fn network() -> bool {
    let run = required();
    if !run {
        say("skipped: it takes minutes and the network; BANGER_TEST_REQUIRE=image runs it");
    }
    run
}

#[expect(clippy::print_stdout, reason = "how a test says what it does")]
fn say(text: &str) {
    println!("{text}");
}

/// None of these sources is a registry.
fn registry(data: &Path) -> Registry<'_> {
    Registry {
        cache: data,
        cache_bytes: oci::cache::DEFAULT_BYTES,
        insecure: false,
        offline: true,
        retry: RetryPolicy::default(),
    }
}

fn pull_kernel(data: &Path, name: &str, mirrors: &Mirrors) -> Result<kernel::Kernel, Error> {
    let catalog = Catalog::embedded();
    let pull = kernel::Pull {
        kernels: &data.join("kernels"),
        cache: &data.join("cache"),
        entry: catalog.kernel(&name.parse().unwrap()).unwrap(),
        mirrors,
        registry: registry(data),
        unpacker: &Unpacker::this_program(),
    };
    kernel::pull(&pull, &Print, &Cancel::new())
}

fn pull_image(
    data: &Path,
    name: &str,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<image::Image, Error> {
    let catalog = Catalog::embedded();
    let pull = image::Pull {
        images: &data.join("images"),
        entry: catalog.image(&name.parse().unwrap()).unwrap(),
        kernel: None,
        mirrors: &Mirrors::default(),
        registry: registry(data),
        unpacker: &Unpacker::this_program(),
        force: false,
    };
    image::pull(&pull, progress, cancel)
}

#[test]
fn by_hand() {
    let Ok(request) = std::env::var("BANGER_PULL") else {
        return say("skipped: BANGER_PULL is not set");
    };
    let words: Vec<&str> = request.split(' ').collect();
    let [kind, name, data] = words[..] else {
        panic!("BANGER_PULL is \"image|kernel NAME DIRECTORY\"");
    };
    let data = Path::new(data);
    let started = Instant::now();
    if kind == "image" {
        let pulled = pull_image(data, name, &Print, &Cancel::new());
        say(&format!("{pulled:#?}"));
    } else {
        let pulled = pull_kernel(data, name, &Mirrors::default());
        say(&format!("{pulled:#?}"));
    }
    say(&format!("{:.1} s", started.elapsed().as_secs_f64()));
}

struct Print;

impl Progress for Print {
    fn stage(&self, stage: &str) {
        say(&format!("== {stage}"));
    }
    fn fraction(&self, done: f64) {
        say(&format!("{:.0} %", done * 100.0));
    }
    fn message(&self, text: &str) {
        say(&format!("   {text}"));
    }
}

#[test]
fn both_kernels_are_pulled_once() {
    if !network() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    for name in ["debian-6.1", "debian-6.12"] {
        let pulled = pull_kernel(data.path(), name, &Mirrors::default()).unwrap();
        assert!(pulled.warnings.is_empty(), "{:?}", pulled.warnings);
        assert!(pulled.config().is_some() && pulled.modules().is_some());
        let kernels = data.path().join("kernels");
        let found = kernel::find(&kernels, &name.parse().unwrap()).unwrap();
        assert_eq!(found, pulled);
        let again = pull_kernel(data.path(), name, &Mirrors::default()).unwrap();
        assert_eq!(again, pulled);
    }
    let left = fs::read_dir(data.path().join("kernels")).unwrap().count();
    assert_eq!(left, 2);
}

#[test]
fn an_unsigned_archive_is_refused() {
    let data = tempfile::tempdir().unwrap();
    for suite in ["trixie", "trixie-updates", "trixie-security"] {
        let dists = data.path().join("mirror/dists").join(suite);
        fs::create_dir_all(&dists).unwrap();
        fs::write(
            dists.join("Release"),
            format!("Suite: {suite}\nCodename: {suite}\n"),
        )
        .unwrap();
    }
    let mirror = format!("file:{}", data.path().join("mirror").display());
    let mirrors = Mirrors {
        debian: mirror.clone(),
        security: mirror,
    };
    match pull_kernel(data.path(), "debian-6.12", &mirrors) {
        Err(Error::MissingTool { tool, .. }) if !required() => say(&format!("skipped: no {tool}")),
        Err(Error::Tool { message, .. }) => assert!(message.contains("not signed"), "{message}"),
        other => panic!("{other:?}"),
    }
    let left = fs::read_dir(data.path().join("kernels")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn an_image_is_built_and_clean() {
    if !network() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let built = pull_image(data.path(), "debian-minimal", &NoProgress, &Cancel::new()).unwrap();
    let output = Command::new("/usr/sbin/e2fsck")
        .arg("-fn")
        .arg(&built.rootfs)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = Command::new("/usr/sbin/debugfs")
        .args(["-R", "ea_get -x /usr/bin/ping security.capability"])
        .arg(&built.rootfs)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("01 00 00 02 00 20"), "{text}");
    let images = data.path().join("images");
    assert_eq!(image::list(&images).unwrap(), [built]);
    assert_eq!(fs::read_dir(images).unwrap().count(), 1);
}

/// Cancels as soon as a stage begins.
struct CancelAt {
    stage: &'static str,
    cancel: Cancel,
    reached: Mutex<Option<Instant>>,
}

impl Progress for CancelAt {
    fn stage(&self, stage: &str) {
        if stage == self.stage {
            *self.reached.lock().unwrap() = Some(Instant::now());
            self.cancel.cancel();
        }
    }
    fn fraction(&self, _: f64) {}
    fn message(&self, _: &str) {}
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    if !network() {
        return;
    }
    for stage in [
        "Reading the package lists",
        "Configuring the base system",
        "Writing the image",
    ] {
        let data = tempfile::tempdir().unwrap();
        let cancel = Cancel::new();
        let progress = CancelAt {
            stage,
            cancel: cancel.clone(),
            reached: Mutex::default(),
        };
        let result = pull_image(data.path(), "debian-minimal", &progress, &cancel);
        let took = progress.reached.lock().unwrap().unwrap().elapsed();
        assert!(matches!(result, Err(Error::Cancelled)), "{stage}: {result:?}");
        say(&format!("{stage}: cancelled in {took:?}"));
        let left = fs::read_dir(data.path().join("images")).unwrap().count();
        assert_eq!(left, 0, "{stage}");
    }
}
