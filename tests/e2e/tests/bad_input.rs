//! What is wrong is refused by name, with a way out, and nothing is left or lost.

use std::fs;
use std::path::Path;
use std::time::Duration;

use banger_e2e::{Audit, BARE, Content, KERNEL, Rig, finished, mke2fs};
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test]
async fn bad_words_are_refused_by_name() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.warm_up().await;
    let before = Audit::take(&rig);
    let long = "x".repeat(64);
    let create = |more: &[&str]| {
        let mut command = rig.command(["vm", "create", "--no-start", "--quiet"]);
        command.args(more);
        async move { finished(&mut command, LIMIT).await }
    };
    for name in [
        "Upper",
        "a.b",
        "a_b",
        "trailing-",
        "ünïcode",
        "../up",
        "with space",
        &long,
    ] {
        create(&["--image", BARE, name])
            .await
            .exits(1)
            .says(&["VM name", name]);
    }
    // A word alone would be asked for at docker.io.
    create(&["--image", "https://no-such-image", "x"])
        .await
        .exits(1)
        .says(&["no-such-image"]);
    create(&["--image", "../../etc/passwd", "x"])
        .await
        .exits(1)
        .says(&["../../etc/passwd"]);
    create(&["--image", BARE, "--kernel-ref", "no-such-kernel", "x"])
        .await
        .exits(1)
        .says(&["no-such-kernel"]);
    // What the command line itself can tell is a usage error.
    for option in [
        ["--memory", "0"],
        ["--memory", "12Q"],
        ["--vcpu", "0"],
        ["--vcpu", "65"],
        ["--disk-size", "0"],
        ["--engine", "xen"],
    ] {
        create(&["--image", BARE, option[0], option[1], "x"])
            .await
            .exits(2)
            .says(&[option[0]]);
    }
    // Beyond the limits, beyond this host, or too small for the image.
    for (option, value, word) in [
        ("--memory", "64M", "memory"),
        ("--memory", "1000G", "memory"),
        ("--disk-size", "17T", "disk"),
        ("--disk-size", "1M", "disk"),
        ("--vcpu", "64", "CPU"),
    ] {
        let out = create(&["--image", BARE, option, value, "x"]).await.exits(1);
        assert!(
            out.stderr.to_lowercase().contains(&word.to_lowercase()),
            "{option} {value}: {out}"
        );
    }
    for verb in ["start", "stop", "kill", "delete", "show", "logs"] {
        let out = rig.banger(["vm", verb, "nobody"]).await;
        assert_eq!(out.status, 1, "{out}");
        assert!(out.stderr.contains("nobody"), "{out}");
    }
    rig.banger(["image", "show", "nothing"])
        .await
        .exits(1)
        .says(&["nothing"]);
    rig.banger(["kernel", "show", "nothing"])
        .await
        .exits(1)
        .says(&["nothing"]);
    rig.banger(["image", "pull", "https://nothing"])
        .await
        .exits(1)
        .says(&["nothing"]);
    rig.banger(["kernel", "pull", "nothing"])
        .await
        .exits(1)
        .says(&["nothing"]);
    before.assert_same(&rig);
}

#[tokio::test]
async fn files_that_are_not_what_they_should_be_are_refused() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.banger(["vm", "list"]).await.ok();
    let home = rig.dir().join("h");
    let file = |name: &str, content: &[u8]| {
        let path = home.join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let text = file("text", b"just words\n");
    let empty = file("empty", b"");
    let zeros = file("zeros", &vec![0; 1 << 20]);
    let missing = home.join("missing").display().to_string();
    // The magic of a bzImage and of an ELF file, and nothing behind it.
    let mut setup = vec![0; 4096];
    setup[0x1f1] = 4;
    setup[0x202..0x206].copy_from_slice(b"HdrS");
    let bzimage = file("bzimage", &setup);
    let elf = file("elf", b"\x7fELF\x02\x01\x01 and no more");
    // An ext4 that was cut off.
    let root = home.join("root");
    fs::create_dir(&root).unwrap();
    let whole = home.join("whole.ext4");
    mke2fs(&root, &whole, "8M").unwrap();
    let cut = file("cut", &fs::read(&whole).unwrap()[..1 << 20]);

    let before = Audit::take(&rig);
    for bad in [&text, &empty, &zeros, &missing, &cut] {
        rig.banger([
            "image",
            "register",
            "bad",
            "--rootfs",
            bad,
            "--kernel-ref",
            KERNEL,
        ])
        .await
        .exits(1)
        .says(&[bad]);
    }
    for bad in [&text, &empty, &zeros, &missing, &bzimage, &elf] {
        rig.banger(["kernel", "import", "bad", bad])
            .await
            .exits(1)
            .says(&[bad]);
    }
    let directory = home.display().to_string();
    rig.banger(["image", "register", "bad", "--rootfs", &directory])
        .await
        .exits(1);
    rig.banger(["kernel", "import", "bad", &directory]).await.exits(1);
    before.assert_same(&rig);
    let images = rig.banger(["image", "list", "-q"]).await.ok().text();
    assert_eq!(images, BARE);

    // What a VM or an image uses is not deleted under it.
    let mut create = rig.new_vm("create", BARE, &["--no-start", "x"]);
    finished(&mut create, LIMIT).await.ok();
    rig.banger(["image", "delete", BARE])
        .await
        .exits(1)
        .says(&[BARE, "x"]);
    rig.banger(["kernel", "rm", KERNEL]).await.exits(1);
    rig.banger(["vm", "delete", "x"]).await.ok();
    rig.banger(["image", "delete", BARE]).await.ok();
    assert_eq!(rig.banger(["image", "list", "-q"]).await.ok().text(), "");
}

#[tokio::test]
async fn a_registered_image_becomes_managed_when_it_is_promoted() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let shown = |out: &banger_e2e::Out| {
        let json = out.json();
        json.get(0).unwrap_or(&json).clone()
    };
    let before = shown(&rig.banger(["image", "show", "--json", BARE]).await.ok());
    assert_eq!(before["kind"], "registered", "{before}");
    rig.banger(["image", "promote", BARE]).await.ok();
    let after = shown(&rig.banger(["image", "show", "--json", BARE]).await.ok());
    assert_eq!(after["kind"], "managed", "{after}");
    let rootfs = after["rootfs"].as_str().unwrap().to_owned();
    assert!(Path::new(&rootfs).starts_with(rig.dirs().data), "{after}");
    rig.banger(["image", "delete", BARE]).await.ok();
    assert!(
        !Path::new(&rootfs).exists(),
        "the managed file goes with the image"
    );
    assert!(
        Path::new(before["rootfs"].as_str().unwrap()).exists(),
        "the owner's file stays"
    );
}

#[tokio::test]
async fn a_configuration_with_mistakes_is_refused_with_its_line() {
    let rig = Rig::empty();
    let config = rig.dirs().config_file();
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    for (text, words) in [
        ("\nengin = \"qemu\"\n", ["line 2", "engin"]),
        ("[vm_defaults]\nmemory = \"2X\"\n", ["line 2", "2X"]),
        ("default_image_name = 7\n", ["line 1", "default_image_name"]),
        ("not toml at all\n", ["line 1", "not toml"]),
    ] {
        fs::write(&config, text).unwrap();
        let out = rig
            .banger(["vm", "create", "--no-start", "--image", BARE, "x"])
            .await
            .exits(1);
        out.says(&words).says(&["config.toml"]);
    }
    fs::write(&config, "[vm_defaults]\nmemory = \"640M\"\n").unwrap();
    rig.banger(["vm", "list"]).await.ok();
}

#[tokio::test]
async fn a_newer_database_is_refused_and_untouched() {
    let rig = Rig::empty();
    rig.banger(["vm", "list"]).await.ok();
    rig.kill(rig.daemon_pid().unwrap()).await;
    let database = rig.dirs().database();
    let db = rusqlite::Connection::open(&database).unwrap();
    db.pragma_update(None, "journal_mode", "delete").unwrap();
    db.pragma_update(None, "user_version", 9999).unwrap();
    db.execute("CREATE TABLE tomorrow (x)", []).unwrap();
    drop(db);
    let before = fs::read(&database).unwrap();
    for _ in 0..2 {
        let out = rig
            .banger(["vm", "create", "--no-start", "--image", BARE, "x"])
            .await
            .exits(1);
        out.says(&["9999", "banger.db"]);
    }
    assert!(fs::read(&database).unwrap() == before, "the database was changed");
    // A file that is no database at all is not overwritten either.
    fs::write(&database, "dear diary").unwrap();
    for pid in rig.pids("bangerd") {
        rig.kill(pid).await;
    }
    rig.banger(["vm", "create", "--no-start", "--image", BARE, "x"])
        .await
        .exits(1);
    assert_eq!(fs::read(&database).unwrap(), b"dear diary");
}

#[tokio::test]
async fn a_guest_that_never_becomes_ready_is_told_and_kept() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    // A file system whose superblock is good and whose root directory is gone.
    let root = rig.dir().join("h/root");
    fs::create_dir_all(root.join("bin")).unwrap();
    let file = rig.dir().join("h/broken.ext4");
    mke2fs(&root, &file, "16M").unwrap();
    let mut debugfs = rig.program("debugfs");
    finished(debugfs.args(["-w", "-R", "clri <2>"]).arg(&file), LIMIT)
        .await
        .ok();
    let rootfs = file.display().to_string();
    rig.banger([
        "image",
        "register",
        "broken",
        "--rootfs",
        &rootfs,
        "--kernel-ref",
        KERNEL,
    ])
    .await
    .ok();
    let mut run = rig.new_vm("run", "broken", &["--name", "b", "--rm", "--", "true"]);
    let out = finished(&mut run, LIMIT)
        .await
        .exits(125)
        .says(&["banger vm logs b"]);
    assert_eq!(
        rig.names().await,
        ["b"],
        "it stays for a look, in spite of --rm: {out}"
    );
    let shown = rig.show("b").await;
    assert_eq!(
        (shown["state"].as_str(), shown["stop_reason"].as_str()),
        (Some("stopped"), Some("boot-failed")),
        "{shown}"
    );
    let logs = rig.banger(["vm", "logs", "b"]).await.ok();
    assert!(!logs.stdout.is_empty(), "the console is kept: {logs}");
    rig.banger(["vm", "delete", "b"]).await.ok();

    // Too little time: ended, and why.
    finished(&mut rig.new_vm("create", BARE, &["--no-start", "slow"]), LIMIT)
        .await
        .ok();
    let out = rig.banger(["vm", "start", "--timeout", "1", "slow"]).await;
    // A host with KVM may be quick enough.
    if out.status != 0 {
        assert_eq!(rig.property("slow", "stop_reason").await, "boot-timeout", "{out}");
        assert!(rig.pids("qemu-system-x86_64").is_empty());
    }
    rig.banger(["vm", "delete", "-f", "slow"]).await.ok();
}

#[tokio::test]
async fn a_guest_that_floods_its_console_is_bounded() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("loud").await;
    let script = "yes 'words words words words words words words' | head -c 2200000 > /dev/console; { echo; echo the-last-line; } > /dev/console";
    rig.banger(["vm", "exec", "loud", "--", "sh", "-c", script])
        .await
        .ok();
    let mut follow = rig.command(["vm", "logs", "-f", "loud"]).spawn().unwrap();
    banger_e2e::line_with(follow.stdout.as_mut().unwrap(), "the-last-line", LIMIT).await;
    follow.start_kill().unwrap();
    rig.wait("vm logs", follow).await;
    let last = rig.banger(["vm", "logs", "-n", "1", "loud"]).await.ok();
    assert_eq!(last.text().trim_end(), "the-last-line");
    let mut kept = 0;
    let mut todo = vec![rig.dirs().state, rig.dirs().runtime];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains("console"))
            {
                kept += fs::metadata(path).map_or(0, |meta| meta.len());
            }
        }
    }
    let bound = 2 * banger_model::limits::MAX_CONSOLE_BYTES + (64 << 10);
    assert!(kept <= bound, "{kept} bytes of console are kept, at most {bound}");
    rig.banger(["vm", "exec", "loud", "--", "true"]).await.ok();
}

#[tokio::test]
async fn ctrl_c_in_every_stage_of_create_leaves_nothing() {
    let Some(mut rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let points = finished(rig.program(Rig::daemon_program()).arg("fail-points"), LIMIT).await;
    if points.status != 0 {
        return banger_e2e::skipped("guest", "this build of bangerd has no fail points");
    }
    rig.warm_up().await;
    let before = Audit::take_without_daemon(&rig);
    let text = points.text();
    let stages = text
        .lines()
        .filter(|point| point.starts_with("create.") || point.starts_with("start."));
    for point in stages.filter(|point| !matches!(*point, "create.stopped" | "start.done")) {
        for pid in rig.pids("bangerd") {
            rig.kill(pid).await;
        }
        rig.set("BANGER_FAIL_POINT", format!("{point}=delay:2500"));
        let child = rig.new_vm("create", BARE, &["x"]).spawn().unwrap();
        rig.wait_for_log(point).await;
        kill_process(
            Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(),
            Signal::INT,
        )
        .unwrap();
        let out = rig
            .wait(&format!("vm create, interrupted at {point}"), child)
            .await;
        rig.unset("BANGER_FAIL_POINT");
        if out.status == 0 && point.starts_with("start.") {
            // It was ready before it could be cancelled: then it is there, and runs.
            assert_eq!(rig.property("x", "state").await, "running", "{out}");
            rig.banger(["vm", "delete", "-f", "x"]).await.ok();
        } else {
            assert_eq!(out.status, 130, "{out}");
        }
        assert_eq!(rig.names().await, [""; 0], "{out}");
        before.assert_same_at(&rig, point);
    }
}

#[tokio::test]
async fn a_deleted_store_is_an_error_and_not_a_crash() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    fs::remove_dir_all(rig.dirs().data).unwrap();
    // What runs goes on.
    rig.banger(["vm", "exec", "a", "--", "true"]).await.ok();
    let daemon = rig.daemon_pid();
    let mut create = rig.command(["vm", "create", "--no-start", "--image", "bare", "b"]);
    finished(&mut create, LIMIT).await.exits(1).says(&[BARE]);
    rig.banger(["image", "list"]).await.ok();
    assert_eq!(rig.daemon_pid(), daemon, "the daemon is the same one");
    assert_eq!(rig.names().await, ["a"]);
    rig.banger(["vm", "delete", "-f", "a"]).await.ok();
}

#[tokio::test]
async fn a_full_disk_in_any_stage_of_create_is_told_and_leaves_nothing() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    // In a mount namespace of its own: the state lies on a file system with a few KiB left, more each time.
    let script = r#"
        for size in 16 64 192 256 512 1024; do
            mount -t tmpfs -o size=64m,mode=700 tmpfs "$XDG_STATE_HOME"
            fallocate -l $((65536 - size))k "$XDG_STATE_HOME/other"
            echo "size $size"
            banger vm create --quiet --no-start --image bare --disk-size 48M full >"$HOME/out" 2>"$HOME/err" && status=0 || status=$?
            echo "status $status"
            sed 's/^/said /' "$HOME/err"
            [ "$status" = 0 ] || echo "left $(ls "$XDG_STATE_HOME/banger/vms" 2>/dev/null | wc -l)"
            pid=$(banger daemon status --json 2>/dev/null | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
            if [ -n "$pid" ] && [ "$pid" != 0 ]; then kill -9 "$pid"; tail --pid="$pid" -f /dev/null; fi
            umount -l "$XDG_STATE_HOME"
            rm -rf "$XDG_RUNTIME_DIR/banger"
        done"#;
    let mut unshare = rig.program("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-uc", script]);
    let out = finished(&mut unshare, LIMIT).await;
    if out.stderr.contains("unshare failed") {
        return banger_e2e::skipped("guest", "mount namespaces need root here");
    }
    let text = out.text();
    let attempts: Vec<_> = text.split("size ").skip(1).collect();
    assert_eq!(attempts.len(), 6, "{out}");
    let mut full = 0;
    for attempt in attempts {
        if attempt.contains("status 0") {
            continue;
        }
        full += 1;
        assert!(attempt.contains("status 1"), "{attempt}");
        let said = attempt.to_lowercase();
        assert!(
            ["space", "full"].iter().any(|word| said.contains(word)),
            "{attempt}"
        );
        assert!(attempt.contains("left 0"), "{attempt}");
    }
    assert!(full >= 2, "the disk was never full: {text}");
}
