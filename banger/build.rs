//! Tells the program its commit and its date. Outside a repository, and without `git`, the
//! commit is empty: a build from an archive must work.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-env-changed=BANGER_COMMIT");
    // HEAD's log changes with every commit, checkout and merge, also when HEAD is a branch's name.
    for file in ["../.git/HEAD", "../.git/logs/HEAD"] {
        if Path::new(file).exists() {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
    let commit = env::var("BANGER_COMMIT")
        .ok()
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=BANGER_COMMIT={}", commit.unwrap_or_default());
    println!("cargo:rustc-env=BANGER_BUILD_EPOCH={}", build_time());
}

/// Seconds since 1970: what the packager says, else the commit's time, so that the same source
/// gives the same program; the clock only where there is neither.
fn build_time() -> u64 {
    let told = env::var("SOURCE_DATE_EPOCH").ok();
    told.or_else(|| git(&["log", "-1", "--format=%ct"]))
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs())
        })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
