//! Images of a real registry become the file systems that their layers describe: compared with
//! umoci's unpacking by e2fsprogs, without a boot.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use banger_e2e::layer::{Entry, Layer};
use banger_e2e::layout::{Compression, Image, Layout, digest};
use banger_e2e::registry::{Registry, Stock};
use banger_e2e::{Content, Rig, disk, samples, tree};
use serde_json::json;

const RUNG: &str = "registry";

#[tokio::test]
async fn an_alpine_like_image_is_what_its_layers_say() {
    compared("busybox", samples::busybox()).await;
}

#[tokio::test]
async fn a_distroless_image_is_what_its_layers_say() {
    compared("distroless", samples::distroless()).await;
}

#[tokio::test]
async fn an_image_of_many_layers_is_what_its_layers_say() {
    compared("layered", samples::layered()).await;
}

#[tokio::test]
async fn a_debian_is_what_its_layers_say() {
    compared("debian", samples::debian().await).await;
}

#[tokio::test]
async fn zstd_layers_and_plain_ones_give_the_same_tree() {
    // This umoci reads gzip alone.
    let gzip = samples::layered();
    let zstd = gzip.clone().map(|image| image.compressed(Compression::Zstd));
    let plain = gzip.clone().map(|image| image.compressed(Compression::None));
    let Some(mut stock) = Stock::of([("zstd", zstd), ("plain", plain)]).await else {
        return;
    };
    stock.layout.add("gzip", &gzip.unwrap());
    let Some(wanted) = tree::unpacked(RUNG, stock.layout.dir(), "gzip").await else {
        return;
    };
    let Some(rig) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    for name in ["zstd", "plain"] {
        let reference = stock.registry.reference(&format!("test/{name}:1"));
        rig.pull(&reference, &[]).await;
        disk::assert_sound(&rig.rootfs(&reference).await, &wanted).await;
    }
}

#[tokio::test]
async fn of_many_platforms_this_one_is_taken_and_no_other_will_do() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let Some(rig) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::create(dir.path());
    let ours = layout.image(&samples::busybox().unwrap());
    let arm = Image {
        architecture: "arm64",
        ..marked("arm64")
    };
    let arm = layout.image(&arm);
    let mut attestation = layout.image(&marked("attestation"));
    attestation["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let index = layout.index(&[arm.clone(), ours.clone(), attestation]);
    layout.tag("multi", index);
    let foreign = layout.index(&[arm]);
    layout.tag("foreign", foreign);
    for name in ["multi", "foreign"] {
        registry.push(layout.dir(), name, &format!("test/{name}:1")).await;
    }

    let reference = registry.reference("test/multi:1");
    let pulled = rig.pull(&reference, &[]).await;
    assert_eq!(pulled["digest"], ours["digest"], "{pulled}");
    let out = rig
        .try_pull(&registry.reference("test/foreign:1"), &[])
        .await
        .exits(1);
    let said = format!("{}{}", out.text(), out.stderr);
    assert!(
        said.contains("linux/arm64") && said.contains("linux/amd64"),
        "{out}"
    );
    let names = rig.banger(["image", "list", "-q"]).await.ok().text();
    assert_eq!(names.lines().count(), 2, "{names}");
}

#[tokio::test]
async fn attributes_that_are_not_the_images_to_set_are_left_out() {
    let entries = |hostile: bool| {
        let mut file = Entry::file("file", "x").xattr("user.kept", "1");
        if hostile {
            file = file
                .xattr("trusted.overlay.opaque", "y")
                .xattr("security.selinux", "label")
                .xattr("security.ima", [1, 2, 3]);
        }
        Layer::of([Entry::directory("./"), file])
    };
    let image = |hostile| Ok(Image::new([entries(hostile)], json!({})));
    let Some(stock) = Stock::of([("hostile", image(true)), ("plain", image(false))]).await else {
        return;
    };
    let Some(wanted) = tree::unpacked(RUNG, stock.layout.dir(), "plain").await else {
        return;
    };
    let Some(rig) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    let reference = stock.registry.reference("test/hostile:1");
    rig.pull(&reference, &[]).await;
    disk::assert_sound(&rig.rootfs(&reference).await, &wanted).await;
}

/// Pulls an image into the stores of two users: both files are the same, sound, and have the
/// tree that umoci unpacks.
async fn compared(name: &str, image: Result<Image, String>) {
    let Some(stock) = Stock::of([(name, image)]).await else {
        return;
    };
    let Some(wanted) = tree::unpacked(RUNG, stock.layout.dir(), name).await else {
        return;
    };
    let (Some(first), Some(second)) = (
        Rig::for_rung(RUNG, Content::Bare).await,
        Rig::for_rung(RUNG, Content::Bare).await,
    ) else {
        return;
    };
    let reference = stock.registry.reference(&format!("test/{name}:1"));
    let mut files = Vec::new();
    for rig in [&first, &second] {
        let pulled = rig.pull(&reference, &[]).await;
        assert_eq!(pulled["result"], "done", "{pulled}");
        assert_eq!(pulled["digest"], stock.layout.digest(name).as_str(), "{pulled}");
        let shown = rig.show_image(&reference).await;
        assert_eq!(shown["digest"], pulled["digest"], "{shown}");
        assert!(
            shown["reference"]
                .as_str()
                .is_some_and(|r| r.ends_with(&format!("/test/{name}:1"))),
            "{shown}"
        );
        files.push(rig.rootfs(&reference).await);
    }
    disk::assert_sound(&files[0], &wanted).await;
    assert_eq!(hash(&files[0]), hash(&files[1]), "two pulls give the same bytes");
}

/// A small image that tells which one it is.
fn marked(word: &str) -> Image {
    Image::new(
        [Layer::of([Entry::directory("./"), Entry::file("mark", word)])],
        json!({}),
    )
}

fn hash(file: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(file).unwrap().read_to_end(&mut bytes).unwrap();
    digest(&bytes)
}
