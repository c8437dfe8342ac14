//! Pulling from Debian's archive: kernels, an image, and builds that do not end well.

use std::fs;
use std::time::Duration;

use banger_e2e::{Audit, Content, DEBIAN, KERNEL, Rig, finished};
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(900);

#[tokio::test]
async fn a_kernel_is_fetched_listed_and_removed() {
    let rig = Rig::empty();
    let out = finished(&mut rig.command(["kernel", "pull", "debian-6.12"]), LIMIT).await;
    if out.status != 0 && out.stderr.contains("resolve") {
        return banger_e2e::skipped("image", "no Debian mirror is reached");
    }
    out.ok();
    let list = rig.banger(["kernel", "list", "--json"]).await.ok().json();
    let kernel = list
        .as_array()
        .unwrap()
        .iter()
        .find(|kernel| kernel["version"].as_str().unwrap().starts_with("6.12"));
    let kernel = kernel.unwrap_or_else(|| panic!("{list}"));
    assert!(
        kernel["digest"].as_str().unwrap().starts_with("sha256:"),
        "{kernel}"
    );
    // It boots, whatever the image's own choice is.
    let available = rig.banger(["kernel", "list", "--available"]).await.ok().text();
    assert!(
        available.contains("debian-6.1") && available.contains("debian-6.12"),
        "{available}"
    );
    // A second pull has nothing to do.
    rig.banger(["kernel", "pull", "debian-6.12"]).await.ok();
    rig.banger(["kernel", "rm", "debian-6.12"]).await.ok();
    assert_eq!(rig.banger(["kernel", "list", "-q"]).await.ok().text(), "");
}

#[tokio::test]
async fn a_guest_boots_with_another_kernel_than_the_images_own() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    finished(&mut rig.command(["kernel", "pull", "debian-6.12"]), LIMIT)
        .await
        .ok();
    let out = rig
        .run_bare(&["--rm", "--kernel-ref", "debian-6.12", "--", "uname", "-r"])
        .await
        .ok();
    assert!(out.text().starts_with("6.12"), "{out}");
    let out = rig.run_bare(&["--rm", "--", "uname", "-r"]).await.ok();
    assert!(out.text().starts_with("6.1."), "{out}");
}

#[tokio::test]
async fn a_pulled_image_is_clean_and_managed() {
    let Some(rig) = Rig::new(Content::Debian).await else {
        return;
    };
    let json = rig.banger(["image", "show", "--json", DEBIAN]).await.ok().json();
    let image = json.get(0).unwrap_or(&json);
    assert_eq!(image["kind"], "managed", "{image}");
    let rootfs = image["rootfs"].as_str().unwrap();
    // Built without mounting, and still a sound file system.
    let mut check = rig.program("e2fsck");
    finished(check.args(["-f", "-n", rootfs]), Duration::from_secs(120))
        .await
        .ok();
    assert!(
        image["used_bytes"].as_u64() <= image["size_bytes"].as_u64(),
        "{image}"
    );
    let available = rig.banger(["image", "list", "--available"]).await.ok().text();
    assert!(
        available.contains("debian-bookworm") && available.contains(DEBIAN),
        "{available}"
    );
}

#[tokio::test]
async fn an_interrupted_build_leaves_nothing_and_can_be_done_again() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.banger(["vm", "list"]).await.ok();
    let before = Audit::take(&rig);
    let mut child = rig.command(["image", "pull", DEBIAN]).spawn().unwrap();
    // mmdebstrap is at work as soon as the stage of the packages is told.
    banger_e2e::line_with(child.stderr.as_mut().unwrap(), "ackages", LIMIT).await;
    kill_process(
        Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(),
        Signal::INT,
    )
    .unwrap();
    let out = rig.wait("image pull", child).await;
    assert_eq!(out.status, 130, "{out}");
    assert_eq!(rig.banger(["image", "list", "-q"]).await.ok().text(), "bare");
    assert!(rig.pids("mmdebstrap").is_empty());
    // What was fetched may be kept for the next time, in the cache and nowhere else.
    fs::remove_dir_all(rig.dirs().cache.parent().unwrap()).unwrap();
    fs::create_dir(rig.dirs().cache.parent().unwrap()).unwrap();
    before.assert_same_outside(&rig, &rig.dirs().cache);
}

#[tokio::test]
async fn a_build_on_a_full_disk_or_from_nowhere_leaves_nothing_listed() {
    let Some(mut rig) = Rig::new(Content::Bare).await else {
        return;
    };
    // A mirror that refuses connections.
    let config = rig.dirs().config_file();
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "debian_mirror = \"http://127.0.0.1:9/debian\"\n").unwrap();
    rig.set("no_proxy", "127.0.0.1");
    let out = finished(&mut rig.command(["image", "pull", DEBIAN]), LIMIT)
        .await
        .exits(1);
    assert!(
        out.stderr.contains("127.0.0.1:9") || out.stderr.to_lowercase().contains("connect"),
        "{out}"
    );
    finished(&mut rig.command(["kernel", "pull", "debian-6.12"]), LIMIT)
        .await
        .exits(1);
    assert_eq!(rig.banger(["image", "list", "-q"]).await.ok().text(), "bare");
    assert!(
        !rig.banger(["kernel", "list"]).await.ok().text().contains("6.12"),
        "{KERNEL} alone is there"
    );
    fs::remove_file(&config).unwrap();
    for pid in rig.pids("bangerd") {
        rig.kill(pid).await;
    }

    // A store of 24 MB: too small for any image.
    let script = r#"
        cp -a "$XDG_DATA_HOME" "$HOME/d"
        mount -t tmpfs -o size=24m,mode=700 tmpfs "$XDG_DATA_HOME"
        mount -t tmpfs -o size=200m,mode=700 tmpfs "$XDG_CACHE_HOME"
        banger image pull debian-minimal >"$HOME/out" 2>"$HOME/err" && status=0 || status=$?
        echo "status $status"; tail -n 3 "$HOME/err"
        echo "listed $(banger image list -q)."
        echo "files $(find "$XDG_DATA_HOME" -type f | wc -l)""#;
    let mut unshare = rig.program("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-uc", script]);
    let out = finished(&mut unshare, LIMIT).await;
    if out.stderr.contains("unshare failed") {
        return banger_e2e::skipped("image", "mount namespaces need root here");
    }
    let text = out.text();
    assert!(text.contains("status 1"), "{out}");
    assert!(text.to_lowercase().contains("space"), "{out}");
    assert!(text.contains("listed .") && text.contains("files 0"), "{out}");
}
