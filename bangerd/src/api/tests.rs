//! The real manager over a socket pair: images and what becomes of them, without a network and
//! without a guest.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_bus::{
    CreateOptions, ErrorKind, ExportOptions, ImageProxy, JobOutcome, ManagerProxy, PruneOptions, PullOptions,
    Result, VmProxy, path,
};
use banger_image::image::{ImageKernel, Register, promote, register};
use banger_image::{Cancel, Digest, NoProgress, ext4};
use banger_model::{Config, Dirs, ImageName, JobResult};
use banger_sys::launch::Launcher;
use futures_util::StreamExt;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath};

use super::{Manager, Publisher, Services};
use crate::bus::Bus;
use crate::bus::fake::client;
use crate::core::sources::Stores;
use crate::core::{Core, Settings};
use crate::helper::{Helper, SystemBus};

const KERNEL: &str = "6.1";

struct Rig {
    home: tempfile::TempDir,
    dirs: Dirs,
    connection: Connection,
    ends: MessageStream,
    _bus: Bus,
}

impl Rig {
    /// An owner with a kernel, and one image of a registry in each of `images`.
    async fn new(images: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        let kernel = dirs.kernels().join(KERNEL);
        fs::create_dir_all(&kernel).unwrap();
        fs::write(kernel.join("vmlinux"), "12345").unwrap();
        let about = format!(
            r#"{{"name":"{KERNEL}","version":"6.1","origin":{{"type":"files","kernel":"/k"}},
                "kernel_bytes":5,"modules_bytes":0,"created":1}}"#
        );
        fs::write(kernel.join("kernel.json"), about).unwrap();
        let rootfs = home.path().join("mine.ext4");
        ext4::Writer::create(&rootfs).unwrap().finish().unwrap();
        for name in images {
            image(&dirs, &rootfs, name);
        }
        let bus = Bus::new();
        let services = Services::open(&dirs, bus.clone());
        let settings = Settings {
            dirs: dirs.clone(),
            config: Config::default(),
            authorized_keys: Vec::new(),
            session_bus: None,
            helper: Helper::new(SystemBus::named("unix:path=/nonexistent")),
            sources: Arc::new(Stores::new(&dirs)),
            launcher: Launcher::this_program(),
        };
        let core = Core::open(settings, Arc::new(Publisher(services.clone())));
        let core = core.await.unwrap();
        bus.manage(Arc::new(Manager::new(services, core, dirs.clone())));
        let connection = client(&bus).await;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .path_namespace(path::JOBS)
            .member("Removed")
            .build()
            .unwrap();
        let ends = MessageStream::for_match_rule(rule, &connection, None)
            .await
            .unwrap();
        Self {
            home,
            dirs,
            connection,
            ends,
            _bus: bus,
        }
    }

    async fn manager(&self) -> ManagerProxy<'static> {
        ManagerProxy::new(&self.connection).await.unwrap()
    }

    async fn image(&self, name: &str) -> ImageProxy<'static> {
        let path = self.manager().await.look_up_image(name.to_owned()).await.unwrap();
        let proxy = ImageProxy::builder(&self.connection).path(path);
        proxy.build().await.unwrap()
    }

    /// Waits for the end of a job; there is only one at a time.
    async fn end(&mut self, started: Result<OwnedObjectPath>) -> JobOutcome {
        started.unwrap();
        let message = self.ends.next().await.unwrap().unwrap();
        let body = message.body();
        let (result, error, text, details): (&str, &str, &str, HashMap<String, zbus::OwnedVariant>) =
            body.deserialize().unwrap();
        JobOutcome::from_signal(result, error, text, &details)
    }

    /// A blob in the cache.
    fn blob(&self, content: &str) -> PathBuf {
        let blobs = self.dirs.cache.join("oci/blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let path = blobs.join(Digest::of(content.as_bytes()).hex());
        fs::write(&path, content).unwrap();
        path
    }
}

/// An image that was made of the layer "layer of <name>".
fn image(dirs: &Dirs, rootfs: &Path, name: &str) {
    let images = dirs.images();
    let name: ImageName = name.parse().unwrap();
    register(&Register {
        images: &images,
        name: name.clone(),
        rootfs,
        kernel: ImageKernel::Reference(KERNEL.parse().unwrap()),
    })
    .unwrap();
    let made = promote(&images, &name, &NoProgress, &Cancel::new()).unwrap();
    let file = made.dir.join("image.json");
    let mut about: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    about["origin"] = serde_json::json!({
        "type": "oci",
        "reference": format!("docker.io/library/{name}"),
        "manifest": Digest::of(b"manifest").to_string(),
        "layers": [Digest::of(format!("layer of {name}").as_bytes()).to_string()],
    });
    about["config"] = serde_json::json!({ "env": { "A": "image" }, "process": { "user": "app" } });
    fs::write(&file, about.to_string()).unwrap();
}

#[tokio::test]
async fn each_form_of_a_reference_is_the_same_image() {
    let mut rig = Rig::new(&["alpine:latest"]).await;
    let manager = rig.manager().await;
    for form in [
        "alpine",
        "alpine:latest",
        "docker.io/library/alpine",
        "index.docker.io/library/alpine:latest",
    ] {
        let found = manager.look_up_image(form.to_owned()).await.unwrap();
        assert_eq!(found, path::image("alpine:latest"), "{form}");
    }
    for (other, kind) in [
        ("alpine:3", ErrorKind::NoSuchImage),
        ("ghcr.io/library/alpine", ErrorKind::NoSuchImage),
        ("../alpine", ErrorKind::InvalidArgument),
    ] {
        let error = manager.look_up_image(other.to_owned()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{other}");
    }
    let image = rig.image("alpine").await;
    assert_eq!(
        image.reference().await.unwrap(),
        "docker.io/library/alpine:latest"
    );
    assert_eq!(image.digest().await.unwrap(), Digest::of(b"manifest").to_string());
    assert_eq!(image.user().await.unwrap(), "app");

    let options = CreateOptions {
        image: Some("docker.io/library/alpine".to_owned()),
        start: Some(false),
        pull: Some(true),
        ..CreateOptions::default()
    };
    let created = manager.create_vm("a".to_owned(), options).await;
    let outcome = rig.end(created).await;
    assert_eq!(outcome.error, None);
    let vm = VmProxy::builder(&rig.connection).path(outcome.object.unwrap());
    let vm = vm.build().await.unwrap();
    assert_eq!(vm.image().await.unwrap(), "alpine:latest");
    let error = rig.image("alpine").await.delete().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ImageInUse);
}

#[tokio::test]
async fn an_image_has_as_many_names_as_one_likes() {
    let mut rig = Rig::new(&["alpine:latest"]).await;
    let image = rig.image("alpine").await;
    for (new, name) in [("mine", "mine"), ("docker.io/team/mine:2", "team/mine:2")] {
        let tagged = image.tag(new.to_owned()).await.unwrap();
        assert_eq!(tagged, path::image(name));
    }
    for (new, kind) in [
        ("mine", ErrorKind::ImageExists),
        ("alpine:latest", ErrorKind::ImageExists),
        ("a b", ErrorKind::InvalidArgument),
    ] {
        assert_eq!(image.tag(new.to_owned()).await.unwrap_err().kind, kind, "{new}");
    }
    image.delete().await.unwrap();
    let digest = rig.image("mine").await.digest().await.unwrap();
    assert_eq!(digest, Digest::of(b"manifest").to_string());
    // What is called so, and did not come from there, is not replaced unasked.
    let tagged = rig.image("mine").await.tag("alpine:3".to_owned()).await;
    tagged.unwrap();
    let offline = || PullOptions {
        offline: Some(true),
        ..PullOptions::default()
    };
    let pulled = rig
        .manager()
        .await
        .pull_image("alpine:3".to_owned(), offline())
        .await;
    let error = rig.end(pulled).await.error.unwrap();
    assert_eq!(error.kind, ErrorKind::ImageExists);
}

#[tokio::test]
async fn what_cannot_be_had_is_said_in_full() {
    let mut rig = Rig::new(&[]).await;
    let manager = rig.manager().await;
    let offline = PullOptions {
        offline: Some(true),
        ..PullOptions::default()
    };
    let pulled = manager.pull_image("debian-bookwurm".to_owned(), offline.clone());
    let outcome = rig.end(pulled.await).await;
    assert_eq!(outcome.result, JobResult::Failed);
    let error = outcome.error.unwrap();
    assert_eq!(error.kind, ErrorKind::FetchFailed);
    for word in ["catalogue", "docker.io/library/debian-bookwurm:latest"] {
        assert!(error.message.contains(word), "{error}");
    }
    let insecure = PullOptions {
        insecure: Some(true),
        ..PullOptions::default()
    };
    let pulled = manager.pull_image("registry.example/x:1".to_owned(), insecure);
    let error = rig.end(pulled.await).await.error.unwrap();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    for (name, options) in [
        ("https://a.example/x", PullOptions::default()),
        ("debian-minimal", offline.clone()),
    ] {
        let error = manager.pull_image(name.to_owned(), options).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    }
    let error = manager.pull_kernel(KERNEL.to_owned(), offline).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn bundles_are_written_where_one_says() {
    let mut rig = Rig::new(&["alpine:latest"]).await;
    let image = rig.image("alpine").await;
    let file = rig.home.path().join("a.tar.zst");
    let named = file.display().to_string();
    let relative = image.export("a.tar.zst".to_owned(), ExportOptions::default());
    assert_eq!(relative.await.unwrap_err().kind, ErrorKind::InvalidArgument);
    let exported = image.export(named.clone(), ExportOptions::default()).await;
    let outcome = rig.end(exported).await;
    assert_eq!(outcome.error, None);
    assert_eq!(outcome.object, Some(path::image("alpine:latest")));
    let bundle = fs::read(&file).unwrap();
    assert_eq!(outcome.names, std::slice::from_ref(&named));
    assert_eq!(outcome.bytes, Some(bundle.len() as u64));
    assert_eq!(outcome.digest, Some(Digest::of(&bundle).to_string()));
    let again = image.export(named, ExportOptions::default()).await;
    assert_eq!(rig.end(again).await.result, JobResult::Failed);

    let directory = rig.home.path().join("public");
    let options = ExportOptions {
        description: Some("Small".to_owned()),
        ..ExportOptions::default()
    };
    let published = image.publish(directory.display().to_string(), options).await;
    let outcome = rig.end(published).await;
    assert_eq!(outcome.error, None);
    assert!(PathBuf::from(&outcome.names[0]).starts_with(&directory));
    let catalogue = fs::read_to_string(directory.join("catalog.toml")).unwrap();
    assert!(catalogue.contains("Small"), "{catalogue}");
}

#[tokio::test]
async fn what_is_needed_is_not_pruned() {
    let mut rig = Rig::new(&["alpine:latest", "busybox:1"]).await;
    let options = CreateOptions {
        image: Some("alpine".to_owned()),
        start: Some(false),
        ..CreateOptions::default()
    };
    let created = rig.manager().await.create_vm("a".to_owned(), options).await;
    assert_eq!(rig.end(created).await.error, None);
    let mine = rig.home.path().join("mine.ext4").display().to_string();
    let registered = rig.manager().await;
    let registered =
        registered.register_image("mine".to_owned(), mine, banger_bus::RegisterOptions::default());
    let registered = registered.await;
    assert_eq!(rig.end(registered).await.error, None);

    let needed = rig.blob("layer of alpine:latest");
    let other = rig.blob("a layer of an image that was deleted");
    let name = |text: &str| Digest::of(text.as_bytes()).to_string();
    let gone = name("a layer of an image that was deleted");
    let prune = async |rig: &mut Rig, all, dry_run| {
        let options = PruneOptions {
            all: Some(all),
            dry_run: Some(dry_run),
        };
        let started = rig.manager().await.prune_images(options).await;
        let outcome = rig.end(started).await;
        assert_eq!(outcome.error, None);
        (outcome.names, outcome.bytes.unwrap())
    };
    let bytes = fs::metadata(&other).unwrap().len();
    for dry_run in [true, false] {
        assert_eq!(prune(&mut rig, false, dry_run).await, (vec![gone.clone()], bytes));
        assert_eq!((needed.exists(), other.exists()), (true, dry_run));
    }
    assert_eq!(prune(&mut rig, false, false).await, (Vec::new(), 0));
    for dry_run in [true, false] {
        let (names, bytes) = prune(&mut rig, true, dry_run).await;
        assert_eq!(names, ["busybox:1".to_owned(), name("layer of alpine:latest")]);
        assert!(bytes > 4096);
        assert_eq!(needed.exists(), dry_run);
    }
    let manager = rig.manager().await;
    for (image, here) in [("alpine", true), ("mine", true), ("busybox:1", false)] {
        let found = manager.look_up_image(image.to_owned()).await;
        assert_eq!(found.is_ok(), here, "{image}");
    }
}
