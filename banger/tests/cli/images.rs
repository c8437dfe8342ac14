//! Images beside their pulling: what is shown of them, names, bundles, and what is removed.

use std::process::Command;

use crate::host::{Host, Ran};
use crate::screen::Screen;

fn in_home(host: &Host, arguments: &[&str]) -> Ran {
    let mut command: Command = host.command(arguments);
    Ran::of(command.current_dir(host.path("")).output().unwrap())
}

#[test]
fn strangers_words_are_shown_and_do_nothing() {
    let host = Host::new();
    let ran = host.run(&["image", "show", "docker.io/library/alpine:3.20"]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    for line in [
        "name                alpine:3.20",
        "reference           docker.io/library/alpine:3.20",
        "user                app:app",
        r"working directory   /srv\u{1b}[2J",
        r#"entrypoint          ["/bin/sh", "-c"]"#,
        r#"command             ["echo \u{7}\u{202e}\"x\""]"#,
        "env                 PATH=/bin:/sbin",
        r"label               title=a\u{1b}]0;owned\u{7}\nlayer  none",
        "layer               sha256:aa",
        "layer               sha256:bb",
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line}: {}", ran.out);
    }
    assert!(
        !ran.out.contains(|c: char| c.is_control() && c != '\n'),
        "{ran:?}"
    );
    let plain = host.run(&["image", "show", "debian-bookworm"]);
    assert!(
        !plain.out.contains("reference") && !plain.out.contains("env"),
        "{plain:?}"
    );
    let json = host.run(&["image", "show", "alpine:3.20", "--json"]).json();
    assert_eq!(json["labels"]["title"], "a\x1b]0;owned\x07\nlayer  none");
    assert_eq!(json["layers"][1], "sha256:bb");
}

#[test]
fn a_list_fits_the_terminal() {
    let host = Host::new();
    let mut screen = Screen::new(80, 24);
    let mut command = host.command(&["image", "list"]);
    screen.attach(&mut command);
    let mut child = command.spawn().unwrap();
    screen.wait_for("debian-bookworm");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(screen.text().lines().count(), 3, "{}", screen.text());
    assert!(screen.text().contains("docker.io/…"), "{}", screen.text());
    let whole = host.run(&["image", "list"]);
    assert!(
        whole.out.contains("  docker.io/library/alpine:3.20\n"),
        "{whole:?}"
    );
}

#[test]
fn an_image_gets_one_more_name() {
    let host = Host::new();
    let ran = host.run(&["image", "tag", "docker.io/library/alpine:3.20", "mine/base:1"]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (Some(0), "mine/base:1: tagged\n"),
        "{ran:?}"
    );
    assert_eq!(host.fake.calls(), ["tag alpine:3.20 mine/base:1"]);
    let ran = host.run(&["image", "tag", "alpine:3.20", "../x"]);
    assert_eq!(ran.status, Some(2));
    assert!(ran.err.contains("Not a valid image name"), "{ran:?}");
}

#[test]
fn a_reference_deletes_its_image() {
    let host = Host::new();
    let ran = host.run(&[
        "image",
        "delete",
        "docker.io/library/alpine:3.20",
        "debian-bookworm",
    ]);
    assert_eq!(ran.status, Some(1));
    assert_eq!(ran.out, "docker.io/library/alpine:3.20: deleted\n");
    assert!(
        ran.err.contains("debian-bookworm: The VM \"a\" uses the image"),
        "{ran:?}"
    );
}

#[test]
fn bundles_go_where_the_user_stands() {
    let host = Host::new();
    let home = host.path("").canonicalize().unwrap();
    let home = home.to_str().unwrap().trim_end_matches('/');
    let digest = format!("sha256:{}", "e".repeat(64));
    let ran = in_home(
        &host,
        &["image", "export", "docker.io/library/alpine:3.20", "--bundle"],
    );
    assert_eq!(
        ran.out,
        format!("alpine:3.20: exported to {home}/alpine-3.20.tar.zst (3.0 MiB, {digest})\n"),
        "{ran:?}"
    );
    let ran = in_home(
        &host,
        &["image", "export", "alpine:3.20", "-o", "out/a", "-f", "--json"],
    );
    let result: serde_json::Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!(result["file"], format!("{home}/out/a"));
    assert_eq!(
        (&result["bytes"], &result["digest"]),
        (&(3 << 20).into(), &digest.into())
    );
    let url = "https://example.org/";
    in_home(
        &host,
        &[
            "image",
            "publish",
            "alpine:3.20",
            "www",
            "--base-url",
            url,
            "--description",
            "Mine",
        ],
    );
    in_home(&host, &["kernel", "export", "6.1"]);
    let ran = in_home(&host, &["kernel", "publish", "6.1", "/www"]);
    assert!(
        ran.out.starts_with("6.1: published as /www/x.tar.zst ("),
        "{ran:?}"
    );
    assert_eq!(
        host.fake.calls(),
        [
            format!("export alpine:3.20 {home}/alpine-3.20.tar.zst force=Some(false)"),
            format!("export alpine:3.20 {home}/out/a force=Some(true)"),
            format!("publish alpine:3.20 {home}/www Some({url:?}) Some(\"Mine\")"),
            format!("export-kernel {home}/6.1.tar.zst"),
            "publish-kernel /www".to_owned(),
        ]
    );
}

#[test]
fn layers_go_unasked_and_images_do_not() {
    let host = Host::new();
    let ran = host.run(&["image", "prune", "-q"]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (Some(0), "1 layer(s): removed\n3.0 MiB given back\n")
    );
    let ran = host.run(&["image", "prune", "-a", "-q"]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(1), ""), "{ran:?}");
    assert!(
        ran.err
            .contains("hint: Give --yes (-y), or look first with --dry-run"),
        "{ran:?}"
    );
    let dry = host.run(&["image", "prune", "-a", "-q", "--dry-run"]);
    assert_eq!(
        dry.out,
        "alpine:3.20: would be removed\n1 layer(s): would be removed\n3.0 MiB would be given back\n"
    );
    let json = host.run(&["image", "prune", "-a", "-y", "--json"]);
    let result: serde_json::Value = serde_json::from_str(json.out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&result["bytes"], &result["names"][1]),
        (&(3 << 20).into(), &"alpine:3.20".into())
    );
    assert_eq!(
        host.fake.calls(),
        [
            "prune all=false dry_run=false",
            "prune all=true dry_run=true",
            "prune all=true dry_run=true",
            "prune all=true dry_run=false",
        ]
    );
}

#[test]
fn the_question_names_the_images() {
    for (answer, status, calls, last) in [
        ("y\n", 0, 2, "3.0 MiB given back"),
        ("\n", 0, 1, "Nothing was removed"),
    ] {
        let host = Host::new();
        let mut screen = Screen::new(80, 24);
        let mut command = host.command(&["image", "prune", "--all"]);
        screen.attach(&mut command);
        let mut child = command.spawn().unwrap();
        screen.wait_for("Remove 1 image(s) that no VM uses: alpine:3.20? [y/N]");
        screen.write(answer);
        screen.wait_for(last);
        assert_eq!(child.wait().unwrap().code(), Some(status));
        assert_eq!(host.fake.calls().len(), calls, "{answer:?}");
    }
}
