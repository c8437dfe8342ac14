//! A whole pull, seen by strace: nothing is mounted, no archive's name becomes a file's, and
//! no program is started but the daemon itself.
#![allow(clippy::print_stdout, reason = "the list of what a pull makes is for people")]

use std::path::Path;

use banger_e2e::layer::{Entry, Layer};
use banger_e2e::layout::Image;
use banger_e2e::registry::Stock;
use banger_e2e::trace::Trace;
use banger_e2e::{Content, Rig};
use serde_json::json;

const RUNG: &str = "registry";
/// In every name of the layers, and in no other.
const MARK: &str = "zq-from-an-archive";

#[tokio::test]
async fn no_name_of_an_archive_reaches_the_host_and_nothing_is_mounted() {
    let Some(stock) = Stock::of([("marked", Ok(marked()))]).await else {
        return;
    };
    let Some(rig) = Rig::for_rung(RUNG, Content::Bare).await else {
        return;
    };
    let reference = stock.registry.reference("test/marked:1");
    let pull = ["image", "pull", "--insecure", "--quiet", &reference];
    let Some((out, trace)) = Trace::of(&rig, RUNG, pull).await else {
        return;
    };
    out.ok();
    assert!(trace.len() > 100, "a trace of {} calls is none", trace.len());
    assert_eq!(trace.mounts(), [""; 0]);
    let made = trace.made();
    let named: Vec<_> = made.iter().filter(|(_, line)| line.contains(MARK)).collect();
    assert!(named.is_empty(), "{named:#?}");
    // What it did make is the daemon's own: below its directories, or unnamed.
    let own =
        |path: &Path| path.is_relative() || path.starts_with(rig.dir()) || path == Path::new("/dev/null");
    let foreign: Vec<_> = made.iter().filter(|(path, _)| !own(path)).collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
    let programs = trace.programs();
    let guard = r#"execve("/bin/sh", ["/bin/sh", "-c", "read -r line; kill -KILL 0"]"#;
    let daemon = format!("execve(\"{}\"", Rig::daemon_program().display());
    // Without an environment: the last part of the line tells.
    let worker = r#"execve("/proc/self/exe", ["/proc/self/exe", "image-unpack"]"#;
    let ours = |line: &&&str| {
        line.starts_with(&daemon)
            || [guard, worker]
                .iter()
                .any(|words| line.starts_with(words) && line.contains("/* 0 vars */"))
    };
    assert!(
        programs.iter().any(|line| line.starts_with(worker)),
        "{programs:#?}"
    );
    let others: Vec<_> = programs.iter().filter(|line| !ours(line)).collect();
    assert!(others.is_empty(), "{others:#?}");
    for path in made
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect::<std::collections::BTreeSet<_>>()
    {
        println!("made: {path}");
    }
}

fn marked() -> Image {
    let name = |path: &str| path.replace('@', MARK);
    let layer = Layer::of([
        Entry::directory("./"),
        Entry::directory(name("@dir")),
        Entry::file(name("@dir/@file"), "content"),
        Entry::file(name("@setuid"), "#!/bin/sh\n").mode(0o4755),
        Entry::symlink(name("@dir/@link"), "/etc/passwd"),
        Entry::hard(name("@dir/@hard"), name("@dir/@file")),
        Entry::character(name("@null"), 1, 3),
        Entry::fifo(name("@fifo")),
    ]);
    let above = Layer::of([
        Entry::whiteout(&name("@dir/@link")),
        Entry::file(name("@dir/@new"), "x"),
    ]);
    Image::new([layer, above], json!({}))
}
