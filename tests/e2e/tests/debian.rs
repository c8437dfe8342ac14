//! A guest with systemd: the image's own init, sshd and shutdown.

use std::time::Duration;

use banger_e2e::{Content, DEBIAN, Rig, finished};

const LIMIT: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_systemd_image_boots_as_it_is() {
    let Some(rig) = Rig::new(Content::Debian).await else {
        return;
    };
    finished(&mut rig.new_vm("create", DEBIAN, &["deb"]), LIMIT)
        .await
        .ok();
    let info = rig.show("deb").await;
    assert!(
        info["init"]
            .as_str()
            .is_some_and(|init| init.contains("init") || init.contains("systemd")),
        "{info}"
    );

    // The agent answers before the image's services are up, and stays when they are.
    let exec = |script: &'static str| rig.banger(["vm", "exec", "deb", "--", "sh", "-c", script]);
    let up =
        exec("busctl --watch-bind=true status >/dev/null; systemctl is-system-running --wait; systemctl list-units --failed --no-legend --plain").await;
    let text = up.text();
    assert!(text.starts_with("running"), "{up}");
    let facts = exec(
        "hostname; cat /etc/machine-id; cat /proc/1/comm; stat -c '%a %U' /root /root/.ssh; systemctl is-active ssh; grep -c . /etc/resolv.conf; . /etc/os-release; echo $ID",
    )
    .await
    .ok();
    let text = facts.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines[2]), ("deb", "systemd"), "{facts}");
    assert_eq!(lines[1].len(), 32, "{facts}");
    assert_eq!(lines.last(), Some(&"debian"), "{facts}");
    assert!(lines.contains(&"755 root"), "{facts}");
    // The name resolves without a server, as sudo and others expect.
    exec("getent hosts deb").await.ok();
    // No wait of a minute and a half for a device that does not exist.
    let blame = exec("systemd-analyze time").await.ok().text();
    assert!(!blame.contains("min"), "{blame}");

    // An orderly stop: the image's init ends its services, and the disk is clean afterwards.
    exec("echo kept > /root/kept").await.ok();
    let first_id = lines[1].to_owned();
    rig.banger(["vm", "stop", "deb"]).await.ok();
    assert_eq!(rig.property("deb", "stop_reason").await, "requested");
    rig.banger(["vm", "start", "deb"]).await.ok();
    let again = exec("cat /root/kept /etc/machine-id; journalctl -b -1 -q --no-pager -o cat | grep -ciE 'reached target.*(power.?off|shutdown)'").await;
    let text = again.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["kept", &first_id], "{again}");

    // The guest powers itself off by its own means.
    exec("busctl --watch-bind=true status >/dev/null; systemctl --no-block poweroff").await;
    let info = rig.wait_for("deb", "stopped", |vm| vm.state == "stopped").await;
    assert_eq!(info.stop_reason, "guest-poweroff");
    rig.banger(["vm", "delete", "deb"]).await.ok();
}
