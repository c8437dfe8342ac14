//! What is fetched once is not fetched again, and what is here can be named, given away and
//! taken back.

use std::fs;
use std::time::Duration;

use banger_e2e::proxy::Proxy;
use banger_e2e::registry::Stock;
use banger_e2e::{Content, Rig, disk, finished, samples, tree};

const RUNG: &str = "registry";
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn what_is_cached_costs_one_request_and_offline_none() {
    let Some(stock) = Stock::of([("busybox", samples::busybox())]).await else {
        return;
    };
    let Some(rig) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    let proxy = Proxy::start(stock.registry.address());
    let reference = proxy.reference("test/busybox:1");
    let unknown = rig.try_pull(&reference, &["--offline"]).await.exits(1);
    assert!(proxy.take().is_empty(), "{unknown}");

    let first = rig.pull(&reference, &[]).await;
    assert_eq!(
        (&first["layers"], &first["cached"]),
        (&2.into(), &0.into()),
        "{first}"
    );
    assert!(first["fetched_bytes"].as_u64() > Some(500_000), "{first}");
    let blobs = proxy
        .take()
        .into_iter()
        .filter(|request| request.is_blob())
        .count();
    assert_eq!(blobs, 3, "two layers and the configuration");
    let before = bytes(&rig, &reference).await;

    rig.banger(["image", "delete", &reference]).await.ok();
    let again = rig.pull(&reference, &[]).await;
    assert_eq!(
        (&again["cached"], &again["fetched_bytes"]),
        (&2.into(), &0.into()),
        "{again}"
    );
    let seen = proxy.take();
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert!(seen[0].is_manifest(), "{seen:#?}");
    assert!(bytes(&rig, &reference).await == before, "the same bytes");

    rig.banger(["image", "delete", &reference]).await.ok();
    rig.pull(&reference, &["--offline"]).await;
    assert_eq!(proxy.take().len(), 0, "offline asks nobody");
    assert!(bytes(&rig, &reference).await == before, "the same bytes");

    // Without layers that any image needs there is nothing to go, with all of them everything.
    rig.banger(["image", "prune"]).await.ok();
    rig.pull(&reference, &["--force"]).await;
    assert_eq!(proxy.take().len(), 1, "prune keeps what an image was made of");
    rig.banger(["image", "prune", "-a", "-y"]).await.ok();
    // A registered image is its owner's.
    assert_eq!(rig.banger(["image", "list", "-q"]).await.ok().text(), "bare");
    rig.try_pull(&reference, &["--offline"]).await.exits(1);
    assert_eq!(proxy.take().len(), 0);
}

#[tokio::test]
async fn a_layer_that_two_images_share_is_fetched_once() {
    let service = samples::service();
    let Some(stock) = Stock::of([("busybox", samples::busybox()), ("service", service)]).await else {
        return;
    };
    let Some(rig) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    let proxy = Proxy::start(stock.registry.address());
    rig.pull(&proxy.reference("test/busybox:1"), &[]).await;
    proxy.take();
    let pulled = rig.pull(&proxy.reference("test/service:1"), &[]).await;
    assert_eq!(pulled["fetched_bytes"], 0, "{pulled}");
    let blobs = proxy
        .take()
        .into_iter()
        .filter(|request| request.is_blob())
        .count();
    assert_eq!(blobs, 1, "its configuration");
}

#[tokio::test]
async fn a_layer_that_was_damaged_here_is_fetched_again() {
    let Some(stock) = Stock::of([("busybox", samples::busybox())]).await else {
        return;
    };
    let Some(rig) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    let reference = stock.registry.reference("test/busybox:1");
    rig.pull(&reference, &[]).await;
    let before = bytes(&rig, &reference).await;
    rig.banger(["image", "delete", &reference]).await.ok();
    let mut damaged = 0;
    let mut todo = vec![rig.dirs().cache.join("oci")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let mut content = match entry.file_type().unwrap() {
                kind if kind.is_dir() => {
                    todo.push(entry.path());
                    continue;
                }
                _ => fs::read(entry.path()).unwrap(),
            };
            if content.len() > 100_000 {
                content[50_000] ^= 1;
                fs::remove_file(entry.path()).unwrap();
                fs::write(entry.path(), content).unwrap();
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1);
    // Either it is found out and fetched again, or it is an error: never another image.
    let first = rig.try_pull(&reference, &[]).await;
    if first.status != 0 {
        rig.pull(&reference, &[]).await;
    }
    assert!(bytes(&rig, &reference).await == before, "{first}");
}

#[tokio::test]
async fn an_image_is_tagged_exported_published_and_pulled_back() {
    let Some(mut stock) = Stock::of([("service", samples::service())]).await else {
        return;
    };
    stock.layout.add("oracle", &samples::service().unwrap());
    let Some(wanted) = tree::unpacked(RUNG, stock.layout.dir(), "oracle").await else {
        return;
    };
    let Some(rig) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    let reference = stock.registry.reference("test/service:1");
    let pulled = rig.pull(&reference, &[]).await;

    // A second name for the same; each goes by itself.
    rig.banger(["image", "tag", &reference, "mine"]).await.ok();
    let shown = rig.show_image("mine").await;
    assert_eq!(shown["digest"], pulled["digest"], "{shown}");
    rig.banger(["image", "delete", &reference]).await.ok();
    disk::assert_sound(&rig.rootfs("mine").await, &wanted).await;

    // A bundle as a file of one's own, and one in a directory with a catalogue.
    let file = rig.dir().join("mine.tar.zst");
    let file = file.to_str().unwrap();
    rig.banger(["image", "export", "mine", "--bundle", "-o", file])
        .await
        .ok();
    rig.banger(["image", "export", "mine", "--bundle", "-o", file])
        .await
        .exits(1);
    let shop = rig.dir().join("shop");
    fs::create_dir(&shop).unwrap();
    rig.banger(["image", "publish", "mine", shop.to_str().unwrap()])
        .await
        .ok();
    let mut tar = rig.program("tar");
    let list = finished(tar.args(["--zstd", "-tf", file]), LIMIT)
        .await
        .ok()
        .text();
    assert_eq!(list.lines().collect::<Vec<_>>(), ["manifest.json", "rootfs.ext4"]);
    let catalog = fs::read_to_string(shop.join("catalog.toml")).unwrap();
    let bundle = fs::read_dir(&shop)
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with(".tar.zst"))
        .unwrap();
    let digest = banger_e2e::layout::digest(&fs::read(bundle.path()).unwrap());
    assert!(
        catalog.contains(digest.trim_start_matches("sha256:")),
        "{catalog}"
    );

    // Another user who has the catalogue pulls it by its name.
    let Some(other) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    let config = other.dirs().config_file();
    let below = config.parent().unwrap().join("catalog.d");
    fs::create_dir_all(&below).unwrap();
    std::os::unix::fs::symlink(shop.join("catalog.toml"), below.join("shop.toml")).unwrap();
    let list = other.banger(["image", "list", "--available"]).await.ok().text();
    assert!(list.contains("mine"), "{list}");
    finished(&mut other.command(["image", "pull", "mine"]), LIMIT)
        .await
        .ok();
    disk::assert_sound(&other.rootfs("mine").await, &wanted).await;
    assert!(
        bytes(&other, "mine").await == bytes(&rig, "mine").await,
        "the same bytes"
    );
    let shown = other.show_image("mine").await;
    assert_eq!(shown["digest"], digest.as_str(), "{shown}");
    assert!(
        shown["origin"]
            .as_str()
            .is_some_and(|origin| origin.contains("bundle")),
        "{shown}"
    );
    for key in ["user", "working_directory", "entrypoint", "command", "env"] {
        assert_eq!(shown[key], rig.show_image("mine").await[key], "{key}");
    }

    // A bundle of other bytes is refused, and leaves nothing.
    other.banger(["image", "delete", "mine"]).await.ok();
    let mut content = fs::read(bundle.path()).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(bundle.path(), content).unwrap();
    let out = finished(&mut other.command(["image", "pull", "mine"]), LIMIT)
        .await
        .exits(1);
    assert!(out.stderr.contains("sha256"), "{out}");
    assert_eq!(other.banger(["image", "list", "-q"]).await.ok().text(), "bare");
}

async fn bytes(rig: &Rig, image: &str) -> Vec<u8> {
    fs::read(rig.rootfs(image).await).unwrap()
}
