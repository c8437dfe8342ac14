//! `image pull`: what is seen of the layers.

use serde_json::{Value, json};

use crate::host::Host;
use crate::screen::Screen;

const DIGEST: &str = "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

#[test]
fn each_layer_is_a_line_when_it_is_done() {
    let host = Host::new();
    let ran = host.run(&["image", "pull", "alpine"]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let mut lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.remove(0), "alpine: Working");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "alpine: aaaaaaaaaaaa: done (4.0 MiB fetched)",
            "alpine: bbbbbbbbbbbb: done (cached)",
        ]
    );
    let told = format!("alpine:3.20: pulled (digest {DIGEST}, 2 layers, 1 cached, 4.0 MiB fetched, ");
    assert!(
        ran.out.starts_with(&told) && ran.out.ends_with(" s)\n"),
        "{ran:?}"
    );
    assert_eq!(ran.out.lines().count(), 1);
    let quiet = host.run(&["image", "pull", "-q", "alpine"]);
    assert_eq!(
        (quiet.out.as_str(), quiet.err.as_str()),
        ("alpine:3.20: pulled\n", "")
    );
}

#[test]
fn programs_get_the_parts_and_the_digest() {
    let host = Host::new();
    let ran = host.run(&["image", "pull", "--json", "alpine"]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let events: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [.., progress, result] = &events[..] else {
        panic!("{ran:?}")
    };
    assert_eq!(
        *progress,
        json!({
            "event": "progress", "subject": "alpine", "stage": "Working", "fraction": null, "message": "",
            "parts": [
                {"name": "aaaaaaaaaaaa", "state": "done", "done": 4 << 20, "total": 4 << 20},
                {"name": "bbbbbbbbbbbb", "state": "done", "done": 1 << 20, "total": 1 << 20},
            ],
        })
    );
    let mut result = result.clone();
    let seconds = result.as_object_mut().unwrap().remove("seconds").unwrap();
    assert!(seconds.as_f64().unwrap() >= 0.0);
    assert_eq!(
        result,
        json!({
            "event": "result", "subject": "alpine", "result": "done", "error": "", "message": "",
            "image": "alpine:3.20", "digest": DIGEST, "layers": 2, "cached": 1, "fetched_bytes": 4 << 20,
        })
    );
}

#[test]
fn a_terminal_has_a_line_for_each_layer_until_the_end() {
    let host = Host::new();
    let mut screen = Screen::new(90, 24);
    let mut command = host.command(&["image", "pull", "watched"]);
    screen.attach(&mut command);
    let mut child = command.spawn().unwrap();
    screen.wait_for("bbbbbbbbbbbb  waiting       1.0 MiB");
    host.fake.step();
    screen.wait_for("aaaaaaaaaaaa  fetching   [======>                 ]     1.0 MiB / 4.0 MiB");
    screen.wait_for("bbbbbbbbbbbb  cached");
    host.fake.step();
    screen.wait_for("3.0 MiB / 4.0 MiB");
    screen.wait_for("bbbbbbbbbbbb  unpacking  [>");
    host.fake.step();
    screen.wait_for("aaaaaaaaaaaa  fetched       4.0 MiB");
    host.fake.step();
    screen.wait_for("aaaaaaaaaaaa  done          4.0 MiB");
    let lines: Vec<String> = screen.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("watched: Working"), "{lines:?}");
    assert!(lines[2].starts_with("  bbbbbbbbbbbb  done"), "{lines:?}");
    host.fake.step();
    screen.wait_for(" s)");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let text = screen.text();
    assert!(
        text.starts_with("alpine:3.20: pulled (digest sha256:ee"),
        "{text}"
    );
    assert!(!text.contains("done"), "{text}");
}

#[test]
fn a_hundred_layers_do_not_scroll_a_terminal() {
    let host = Host::new();
    let mut screen = Screen::new(80, 24);
    let mut command = host.command(&["image", "pull", "many"]);
    screen.attach(&mut command);
    let mut child = command.spawn().unwrap();
    screen.wait_for("96 more: 10 done, 86 waiting");
    assert_eq!(screen.text().lines().count(), 6, "{}", screen.text());
    host.fake.step();
    screen.wait_for("96 more: 50 done, 46 waiting");
    screen.wait_for("000000000053  fetching");
    assert!(!screen.text().contains("000000000010"), "{}", screen.text());
    host.fake.step();
    screen.wait_for("100 more: 100 done");
    host.fake.step();
    screen.wait_for("pulled");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(screen.scrolled, 0);
}

#[test]
fn every_option_reaches_the_daemon() {
    let host = Host::new();
    let ran = host.run(&[
        "image",
        "pull",
        "-f",
        "--insecure",
        "--offline",
        "--name",
        "r.example:5000/x:1",
        "--kernel-ref",
        "6.1",
        "options",
    ]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (Some(0), "options: pulled\n"),
        "{ran:?}"
    );
    assert_eq!(
        host.fake.calls()[1],
        "PullOptions { force: Some(true), kernel: Some(\"6.1\"), name: Some(\"r.example:5000/x:1\"), \
         insecure: Some(true), offline: Some(true) }"
    );
    let ran = host.run(&["image", "pull", "--name", "x", "a", "b"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.err.contains("hint: Give --name with one image only"),
        "{ran:?}"
    );
    assert_eq!(host.fake.calls().len(), 2);
}

#[test]
fn a_wanted_login_is_told_with_its_way_out() {
    let host = Host::new();
    let ran = host.run(&["image", "pull", "private"]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(1), ""));
    assert!(
        ran.err.ends_with(
            "banger: error: The registry \"r.example\" wants a login\n\
             hint: Log in with `docker login r.example`\nhint: Or give another reference\n"
        ),
        "{ran:?}"
    );
    let ran = host.run(&["image", "pull", "--json", "private"]);
    let last: Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["result"], &last["error"]),
        (&"failed".into(), &"org.banger.Error.LoginRequired".into())
    );
}
