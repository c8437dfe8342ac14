//! Images out of one store and into another.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use banger_image::bundle::Manifest;
use banger_image::catalog::{Catalog, Fragments, ImageSource};
use banger_image::image::{ImageKernel, Origin, Publish, Register};
use banger_image::{Cancel, Error, NoProgress, Progress, image};

use crate::fixture::{Machine, catalog_of, same, write};

fn export(machine: &Machine, name: &str, file: &str, force: bool) -> Result<image::Exported, Error> {
    image::export(
        &machine.images(),
        &name.parse().unwrap(),
        &machine.path(file),
        force,
        &NoProgress,
        &Cancel::new(),
    )
}

#[test]
fn an_image_travels_whole() {
    let here = Machine::new();
    let image = here.image("team/app:1");
    let exported = export(&here, "team/app:1", "app.tar.zst", false).unwrap();
    assert_eq!(exported.bytes, fs::metadata(&exported.file).unwrap().len());
    assert!(exported.bytes < 400_000, "{}", exported.bytes);

    let there = Machine::new();
    let catalog = catalog_of("image", "team/app:1", &exported.file);
    let pulled = there.pull_image(&catalog, "team/app:1").unwrap();
    assert!(same(&image.rootfs, &pulled.rootfs));
    let blocks = |image: &image::Image| fs::metadata(&image.rootfs).unwrap().blocks();
    assert!(
        blocks(&pulled) <= blocks(&image) + 256,
        "{} {}",
        blocks(&pulled),
        blocks(&image)
    );
    assert_eq!(pulled.config, image.config);
    assert_eq!(
        pulled.kernel,
        ImageKernel::Reference("debian-6.1".parse().unwrap())
    );
    assert_eq!((pulled.size, pulled.content), (image.size, image.content));
    assert_eq!(
        pulled.origin,
        Origin::Bundle {
            url: format!("file://{}", exported.file.display()),
            sha256: exported.digest,
        }
    );
    assert_eq!(
        fs::metadata(&pulled.rootfs).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(there.entries("images"), ["team+app:1"]);
    // What is a file already is not kept twice.
    assert!(there.entries("cache").is_empty());
    // Again, over what is there.
    let again = there.pull_image(&catalog, "team/app:1").unwrap();
    assert!(same(&image.rootfs, &again.rootfs));
}

#[test]
fn the_same_image_gives_the_same_bundle() {
    let machine = Machine::new();
    machine.image("a");
    let first = export(&machine, "a", "1", false).unwrap();
    let second = export(&machine, "a", "2", false).unwrap();
    assert_eq!(first.digest, second.digest);
    assert!(same(&first.file, &second.file));
    // In a directory it has the name of its content, however often.
    fs::create_dir(machine.path("bundles")).unwrap();
    for _ in 0..2 {
        let named = export(&machine, "a", "bundles", false).unwrap();
        assert_eq!(named.digest, first.digest);
        assert_eq!(
            named.file,
            machine.path(&format!("bundles/{}.tar.zst", first.digest.hex()))
        );
    }
    assert_eq!(machine.entries("bundles").len(), 1);
}

#[test]
fn gnu_tar_lists_and_unpacks_it() {
    let machine = Machine::new();
    let image = machine.image("a");
    export(&machine, "a", "a.tar.zst", false).unwrap();
    let tar = |args: &[&str]| {
        Command::new("tar")
            .args(args)
            .current_dir(machine.dir.path())
            .output()
    };
    if Command::new("zstd").arg("--version").output().is_err() {
        return crate::sources::say("skipped: no zstd");
    }
    let listed = tar(&["--zstd", "-tvf", "a.tar.zst"]).unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].ends_with(" manifest.json"), "{text}");
    // With its whole size, and not that of its pieces.
    assert!(lines[1].contains(&format!(" {} ", image.size)), "{text}");
    assert!(tar(&["--zstd", "-xf", "a.tar.zst"]).unwrap().status.success());
    assert!(same(&image.rootfs, &machine.path("rootfs.ext4")));
    let manifest = Manifest::parse(&fs::read(machine.path("manifest.json")).unwrap()).unwrap();
    let Manifest::Image(manifest) = manifest else {
        panic!("not an image");
    };
    // Nothing in it tells where its file was on this machine.
    assert_eq!(manifest.origin, "a file");
}

#[test]
fn what_exists_is_replaced_by_choice_alone() {
    let machine = Machine::new();
    machine.image("a");
    write(&machine.path("taken"), b"mine");
    assert!(matches!(
        export(&machine, "a", "taken", false),
        Err(Error::Replaceable { what: "File", .. })
    ));
    assert_eq!(fs::read(machine.path("taken")).unwrap(), b"mine");
    export(&machine, "a", "taken", true).unwrap();
    assert!(fs::metadata(machine.path("taken")).unwrap().len() > 100);
    assert!(matches!(
        export(&machine, "none", "x", false),
        Err(Error::NoSuchImage(_))
    ));
    assert!(matches!(
        export(&machine, "a", "no/such/directory/x", false),
        Err(Error::Io { .. })
    ));
    assert_eq!(machine.entries("."), ["images", "taken"]);
}

/// Stops as soon as something is done.
struct Stop(Cancel);

impl Progress for Stop {
    fn stage(&self, _: &str) {}
    fn fraction(&self, _: f64) {
        self.0.cancel();
    }
    fn message(&self, _: &str) {}
}

#[test]
fn a_cancelled_export_leaves_nothing() {
    let machine = Machine::new();
    let image = machine.image("a");
    let cancel = Cancel::new();
    let target = machine.path("x");
    let stopped = image::export(
        &machine.images(),
        &image.name,
        &target,
        false,
        &Stop(cancel.clone()),
        &cancel,
    );
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(machine.entries("."), ["images"]);
}

fn publish(machine: &Machine, name: &str, publish: &Publish<'_>) -> Result<image::Exported, Error> {
    image::publish(
        &machine.images(),
        &name.parse().unwrap(),
        publish,
        &NoProgress,
        &Cancel::new(),
    )
}

#[test]
fn a_published_directory_is_pulled_from_by_a_link() {
    let here = Machine::new();
    let image = here.image("app:1");
    let directory = here.path("published");
    let options = Publish {
        directory: &directory,
        base_url: None,
        description: Some("an \"app\""),
        force: false,
    };
    let published = publish(&here, "app:1", &options).unwrap();
    let bundle = format!("{}.tar.zst", published.digest.hex());
    let mut expected = [".catalog.lock", "catalog.toml", &bundle];
    expected.sort_unstable();
    assert_eq!(here.entries("published"), expected);
    // As other users may read it.
    let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode();
    assert_eq!(
        mode("catalog.toml") & 0o044,
        mode(&format!("{}.tar.zst", published.digest.hex())) & 0o044
    );
    assert_ne!(mode("catalog.toml") & 0o400, 0);

    let there = Machine::new();
    let fragments = there.path("catalog.d");
    fs::create_dir(&fragments).unwrap();
    symlink(directory.join("catalog.toml"), fragments.join("team.toml")).unwrap();
    let read = Fragments::read(&fragments).unwrap();
    assert!(read.refused.is_empty(), "{:?}", read.refused);
    assert_eq!(read.catalog.image(&image.name).unwrap().description, "an \"app\"");
    let pulled = there.pull_image(&read.catalog, "app:1").unwrap();
    assert!(same(&image.rootfs, &pulled.rootfs));

    assert!(matches!(
        publish(&here, "app:1", &options),
        Err(Error::Replaceable { .. })
    ));
    let again = publish(
        &here,
        "app:1",
        &Publish {
            force: true,
            ..options
        },
    )
    .unwrap();
    assert_eq!(again.digest, published.digest);
    assert_eq!(here.entries("published").len(), 3);
}

#[test]
fn a_base_url_stands_before_the_name() {
    let machine = Machine::new();
    machine.image("app:1");
    let directory = machine.path("published");
    let options = |base_url| Publish {
        directory: &directory,
        base_url: Some(base_url),
        description: None,
        force: false,
    };
    for bad in [
        "http://example.org/",
        "images",
        "ftp://example.org",
        "https://me:pw@example.org",
        "https://example.org/#a",
        "",
    ] {
        let refused = publish(&machine, "app:1", &options(bad));
        assert!(
            matches!(refused, Err(Error::Catalogue { .. })),
            "{bad}: {refused:?}"
        );
    }
    assert!(
        machine
            .entries("published")
            .iter()
            .all(|name| name.starts_with('.')),
        "{:?}",
        machine.entries("published")
    );
    let published = publish(&machine, "app:1", &options("https://example.org/images/")).unwrap();
    let catalog = Catalog::read(&directory.join("catalog.toml")).unwrap();
    let ImageSource::Bundle(bundle) = &catalog.image(&"app:1".parse().unwrap()).unwrap().sources[0] else {
        panic!("another source");
    };
    assert_eq!(
        bundle.url.to_string(),
        format!("https://example.org/images/{}.tar.zst", published.digest.hex())
    );
    assert_eq!((bundle.sha256, bundle.size), (published.digest, published.bytes));
}

#[test]
fn an_image_with_a_kernel_of_its_own_is_exported_and_not_published() {
    let machine = Machine::new();
    crate::fixture::file_system(&machine.path("mine.ext4"));
    write(&machine.path("vmlinuz"), b"kernel");
    let image = image::register(&Register {
        images: &machine.images(),
        name: "mine".parse().unwrap(),
        rootfs: &machine.path("mine.ext4"),
        kernel: ImageKernel::Files {
            kernel: machine.path("vmlinuz"),
            initrd: None,
            modules: None,
        },
    })
    .unwrap();
    let exported = export(&machine, "mine", "mine.tar.zst", false).unwrap();
    let there = Machine::new();
    let pulled = there
        .pull_image(&catalog_of("image", "mine", &exported.file), "mine")
        .unwrap();
    assert!(same(&image.rootfs, &pulled.rootfs));
    let options = Publish {
        directory: &machine.path("published"),
        base_url: None,
        description: None,
        force: false,
    };
    assert!(matches!(
        publish(&machine, "mine", &options),
        Err(Error::OwnKernel(_))
    ));
    assert!(machine.entries("published").is_empty());
}

/// What export, pull and tag take: `BANGER_ROOTFS=FILE cargo test --release … -- --nocapture`.
#[test]
fn measured_by_hand() {
    let Some(rootfs) = std::env::var_os("BANGER_ROOTFS") else {
        return crate::sources::say("skipped: BANGER_ROOTFS is not set");
    };
    let here = Machine::new();
    let registered = image::register(&Register {
        images: &here.images(),
        name: "a".parse().unwrap(),
        rootfs: rootfs.as_ref(),
        kernel: ImageKernel::Reference("debian-6.1".parse().unwrap()),
    })
    .unwrap();
    let start = std::time::Instant::now();
    let exported = export(&here, "a", "a.tar.zst", false).unwrap();
    crate::sources::say(&format!(
        "exported {} bytes in {:?}",
        exported.bytes,
        start.elapsed()
    ));
    let there = Machine::new();
    let catalog = catalog_of("image", "a", &exported.file);
    for _ in 0..2 {
        let start = std::time::Instant::now();
        let pulled = there.pull_image(&catalog, "a").unwrap();
        crate::sources::say(&format!("pulled in {:?}", start.elapsed()));
        assert!(same(&registered.rootfs, &pulled.rootfs));
    }
    let start = std::time::Instant::now();
    image::tag(&there.images(), &"a".parse().unwrap(), &"b".parse().unwrap()).unwrap();
    crate::sources::say(&format!("tagged in {:?}", start.elapsed()));
}
