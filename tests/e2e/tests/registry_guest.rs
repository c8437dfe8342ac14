//! Images of a real registry boot as they are: reached by exec and ssh, their tree compared from
//! inside the guest with umoci's unpacking, their processes started as they say.

use banger_e2e::layout::Image;
use banger_e2e::registry::{Registry, Stock};
use banger_e2e::tree::BOOT;
use banger_e2e::{Content, Out, Rig, finished, samples, tree};
use std::time::Duration;

const RUNG: &str = "guest";
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn an_alpine_like_image_boots_with_its_own_tree() {
    let script = ["cat", "/etc/os-release"];
    booted("busybox", samples::busybox(), &script, "ID=testlinux").await;
}

#[tokio::test]
async fn an_image_with_one_static_program_boots_with_its_own_tree() {
    booted("distroless", samples::distroless(), &["/app"], "uid=65532").await;
}

#[tokio::test]
async fn an_image_of_many_layers_boots_with_its_own_tree() {
    let script = ["cat", "/srv/data/back"];
    booted("layered", samples::layered(), &script, "back again").await;
}

#[tokio::test]
async fn a_debian_without_an_init_boots_with_its_own_tree() {
    let script = ["bash", "-c", ". /etc/os-release; echo $ID; dpkg --audit"];
    booted("debian", samples::debian().await, &script, "debian").await;
}

/// Pulls an image, boots it, runs a command by exec and by ssh, and compares the tree.
async fn booted(name: &str, image: Result<Image, String>, command: &[&str], answer: &str) {
    let Some(stock) = Stock::of([(name, image)]).await else {
        return;
    };
    let Some(wanted) = tree::unpacked(RUNG, stock.layout.dir(), name).await else {
        return;
    };
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let reference = stock.registry.reference(&format!("test/{name}:1"));
    rig.pull(&reference, &[]).await;
    finished(&mut rig.new_vm("create", &reference, &["vm"]), LIMIT)
        .await
        .ok();
    // Before anything is run in it.
    let found = rig.guest_tree("vm").await;
    tree::assert_same(&format!("The guest of {name}"), &wanted, &found, &BOOT);
    let out = rig
        .banger([&["vm", "exec", "vm", "--"], command].concat())
        .await
        .ok();
    assert!(out.text().contains(answer), "{out}");
    // The login of ssh is root's, whatever the image's user.
    let out = rig.ssh("vm", &[command.last().map_or("", |word| word)]).await;
    assert!(out.status != 255, "{out}");
    rig.banger(["vm", "stop", "vm"]).await.ok();
}

#[tokio::test]
async fn processes_start_as_the_image_says() {
    let images = [
        ("service", samples::service()),
        ("distroless", samples::distroless()),
    ];
    let Some(stock) = Stock::of(images).await else {
        return;
    };
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let service = stock.registry.reference("test/service:1");
    let distroless = stock.registry.reference("test/distroless:1");
    rig.pull(&service, &[]).await;
    rig.pull(&distroless, &[]).await;

    // What a container would run, with the image's own arguments and with others.
    let run = async |image: &str, more: &[&str]| -> Out {
        finished(&mut rig.new_vm("run", image, more), LIMIT).await
    };
    let out = run(&service, &["--name", "s", "--entrypoint"]).await.exits(3);
    assert_eq!(
        out.text(),
        "worker\nstaff\n/home/worker\nservice one two words",
        "{out}"
    );
    let out = run(&service, &["--rm", "--entrypoint", "--", "a", "b c"])
        .await
        .exits(3);
    assert!(out.text().ends_with("service a b c"), "{out}");

    // A command has the image's user, directory and environment; options win.
    let exec = async |more: &[&str]| -> String {
        rig.banger([&["vm", "exec", "s"], more].concat())
            .await
            .ok()
            .text()
    };
    let script = "id -un; id -gn; pwd; echo $COLOUR $MODE $HOME";
    let facts = exec(&["--", "sh", "-c", script]).await;
    assert_eq!(facts, "worker\nstaff\n/home/worker\nred service /home/worker");
    let facts = exec(&[
        "--user",
        "root",
        "--workdir",
        "/tmp",
        "-e",
        "COLOUR=grey",
        "--",
        "sh",
        "-c",
        script,
    ])
    .await;
    assert_eq!(facts, "root\nroot\n/tmp\ngrey service /root");
    let facts = exec(&["--user", "1000:1000", "--", "id", "-G"]).await;
    assert!(facts.split(' ').any(|group| group == "1000"), "{facts}");
    let out = rig
        .banger(["vm", "exec", "s", "--user", "nobody-there", "--", "true"])
        .await;
    assert!(out.status == 125 && out.stderr.contains("nobody-there"), "{out}");
    // ssh is root's login.
    let out = rig.banger(["vm", "ssh", "s", "--", "id -un"]).await.ok();
    assert_eq!(out.text(), "root");
    // A shell without a command, as the image's user would expect it.
    let out = rig
        .banger_fed(
            [
                "vm", "run", "--quiet", "--rm", "--image", &service, "--memory", "256M", "--vcpu", "1",
            ],
            b"id -un\npwd\nexit 5\n",
        )
        .await
        .exits(5);
    assert_eq!(out.text(), "worker\n/home/worker", "{out}");

    // A number for a user, and no file that names one.
    let out = run(&distroless, &["--rm", "--entrypoint"]).await.exits(7);
    let text = out.text();
    for line in [
        "uid=65532",
        "cwd=/work",
        "arguments=7|eight",
        "env:COLOUR=green",
        "env:PATH=/",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line}: {out}");
    }
    // Without a shell there is none, and that is said.
    let out = run(&distroless, &["--rm", "--", "sh"]).await.exits(127);
    assert!(!out.stderr.is_empty(), "{out}");
}

#[tokio::test]
async fn run_pulls_what_is_missing_by_tls_with_a_ca_of_ones_own() {
    let Some(registry) = Registry::with_tls() else {
        return;
    };
    let authority = registry.authority().unwrap().to_owned();
    let Some(stock) = Stock::fill(registry, [("busybox", samples::busybox())]).await else {
        return;
    };
    let Some(mut rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let reference = stock.registry.reference("test/busybox:1");
    let run = ["--rm", "--", "cat", "/etc/os-release"];
    // Nobody has vouched for it.
    let out = finished(&mut rig.new_vm("run", &reference, &run), LIMIT)
        .await
        .exits(125);
    assert!(out.stderr.to_lowercase().contains("certificate"), "{out}");
    for pid in rig.pids("bangerd") {
        rig.kill(pid).await;
    }
    rig.set("SSL_CERT_FILE", &authority);
    let out = finished(&mut rig.new_vm("run", &reference, &run), LIMIT)
        .await
        .ok();
    assert!(out.text().contains("ID=testlinux"), "{out}");
    assert_eq!(rig.names().await, [""; 0]);
}
