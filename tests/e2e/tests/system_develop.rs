//! System mode: a repository, copies, ports and ssh by name are what they are in user mode.

use std::time::Duration;

use banger_e2e::{ALICE, Machine, Out, finished};

const LIMIT: Duration = Duration::from_secs(240);
const REPOSITORY: &str = "git init -q -b main repo; cd repo
    git config user.name Alice; git config user.email alice@example.org
    echo committed > file; echo gone > gone; git add .; git commit -qm First
    echo changed > file; rm gone; echo new > untracked";

#[tokio::test]
async fn one_develops_in_system_mode_as_in_user_mode() {
    let Some(machine) = Machine::boot_for_system_mode().await else {
        return;
    };
    let mut install = machine.root(machine.build().join("banger"));
    finished(install.args(["system", "install"]), LIMIT).await.ok();
    let alice = async |script: &str| -> Out {
        let script = format!("PATH=/usr/local/bin:$PATH; {script}");
        finished(machine.person(ALICE, "sh").args(["-euc", &script]), LIMIT).await
    };
    alice(REPOSITORY).await.ok();
    let run =
        "banger vm run --image bare --memory 256M --vcpu 1 --name dev ./repo -- sh -c 'pwd; cat file; ls'";
    let out = alice(run).await.ok();
    assert_eq!(out.text(), "/root/repo\nchanged\nfile", "{out}");
    let shown = alice("banger vm show --json dev").await.ok().json()[0].clone();
    assert_eq!(shown["workspace"], "/home/alice/repo", "{shown}");
    let address = shown["address"].as_str().unwrap_or_default();
    assert!(address.starts_with("10.119."), "{shown}");

    // By name, with nothing said to ssh, with her real home.
    alice("mkdir -p .ssh; chmod 700 .ssh; printf 'Host *\\n  Port 7' > .ssh/config; cp .ssh/config before")
        .await
        .ok();
    alice("banger ssh-config --install").await.ok();
    let ssh = alice("ssh -o BatchMode=yes dev.vm 'cat /root/repo/file'; scp -q -o BatchMode=yes repo/file dev.vm:/tmp/by-scp").await;
    assert_eq!(ssh.ok().text(), "changed");
    alice("banger ssh-config --uninstall; cmp before .ssh/config")
        .await
        .ok();

    alice("banger vm cp dev:/tmp/by-scp back; cmp back repo/file")
        .await
        .ok();
    alice("banger vm exec dev --workdir / -- sh -c 'echo by-web > /root/index.html; httpd -p 127.0.0.1:8080 -h /root'")
        .await
        .ok();
    let port = alice("banger vm port add dev 8080").await.ok().text();
    let fetch = format!(
        "port=$(printf %s '{port}' | grep -oE '[0-9]+' | grep -v '^8080$' | tail -n 1); \
         exec 3<>/dev/tcp/127.0.0.1/$port; printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    );
    let mut bash = machine.person(ALICE, "bash");
    let web = finished(bash.args(["-euc", &fetch]), LIMIT).await.ok();
    assert!(web.text().contains("by-web"), "{web}");
    let ports = alice("banger vm ports dev").await.ok();
    assert!(ports.text().contains("8080"), "{ports}");
    alice("banger vm stats dev").await.ok();
    alice("banger vm delete -f dev").await.ok();
}
