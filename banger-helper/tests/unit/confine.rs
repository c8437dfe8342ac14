//! What both threads of a confined helper can reach.

use std::path::Path;
use std::process::Command;

use banger_sys::landlock::{WHOLE, version};

use super::*;

/// Where the child looks.
const PLACE: &str = "BANGER_TEST_CONFINED";

#[test]
fn both_domains_hold() {
    if !rustix::process::geteuid().is_root() || version() < Some(WHOLE) {
        let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|rung| rung == "bus"),
            "not root, or an old kernel"
        );
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("somebodys"), "text").unwrap();
    std::fs::copy("/bin/true", place.path().join("program")).unwrap();
    // A process of its own: what is given up stays given up.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "confine::tests::child", "--ignored", "--nocapture"])
        .env(PLACE, place.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "run by both_domains_hold in a process of its own"]
fn child() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else {
        return;
    };
    let places = Places {
        state: place.join("state"),
        runtime: place.join("run"),
    };
    places.make().unwrap();
    let (launch, enforcement) = confine(&places).unwrap();
    assert_eq!(enforcement, Enforcement::Full);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();

    let somebodys = place.join("somebodys");
    assert!(!can_read(&somebodys), "another's file");
    assert!(!can_read(Path::new("/etc/passwd")) && can_read(Path::new("/proc/self/stat")));
    let own = places.slots().join("0.new");
    std::fs::write(&own, "{}").unwrap();
    std::fs::rename(&own, places.slots().join("0.json")).unwrap();
    std::fs::remove_file(places.slots().join("0.json")).unwrap();
    assert!(std::fs::write(place.join("new"), "").is_err());
    assert!(std::fs::write("/proc/self/oom_score_adj", "0").is_err());
    assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
    // What tokio starts is confined as its thread.
    let reading = somebodys.clone();
    let reads = runtime.block_on(async { tokio::task::spawn_blocking(move || can_read(&reading)).await });
    assert!(!reads.unwrap(), "a worker");

    // The launching thread reaches files, as VMMs must, and makes or executes none.
    let elsewhere = place.clone();
    runtime
        .block_on(launch.run(move || {
            assert!(can_read(&elsewhere.join("somebodys")));
            assert!(std::fs::write("/proc/self/oom_score_adj", "0").is_ok());
            assert!(Command::new("/bin/true").status().unwrap().success());
            assert!(Command::new(elsewhere.join("program")).status().is_err());
            assert!(std::fs::write(elsewhere.join("new"), "").is_err());
            assert!(std::fs::remove_file(elsewhere.join("somebodys")).is_err());
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
        }))
        .unwrap();
}

fn can_read(path: &Path) -> bool {
    std::fs::read(path).is_ok()
}
