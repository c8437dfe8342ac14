//! `bangerd engine-install`: puts an engine where only root can, from the release that the
//! catalogue names. Run by `banger engine install`; the daemon has no part in it.

use std::path::Path;
use std::process::ExitCode;

use banger_image::catalog::EngineEntry;
use banger_image::oci::{Registry, RetryPolicy, cache};
use banger_image::{Cancel, Progress, engine};
use banger_vmm::firecracker::{self, INSTALL_PLACE};
use rustix::process::geteuid;

use crate::catalog::host_catalog;
use crate::core::error::chain;

/// What can be installed so.
const FIRECRACKER: &str = "firecracker";
/// Where the release is until it is installed: root may have no home.
const CACHE: &str = "/var/cache/banger-engine";
/// How an entry looks; its digest is for whoever has compared it with the project's own.
const EXAMPLE: &str = r#"[[engine]]
name = "firecracker"
version = "X.Y.Z"
member = "release-vX.Y.Z-x86_64/firecracker-vX.Y.Z-x86_64"
[engine.source]
url = "https://github.com/firecracker-microvm/firecracker/releases/download/vX.Y.Z/firecracker-vX.Y.Z-x86_64.tgz"
size = 0      # bytes of that file
sha256 = ""   # of that file: beside it is one with the ending .sha256.txt"#;

/// Installs the engine of this name and says so.
pub(crate) fn run(name: &str) -> ExitCode {
    match install(name) {
        Ok(text) => {
            tell(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            tell(&format!("Error: {text}"));
            ExitCode::FAILURE
        }
    }
}

fn install(name: &str) -> Result<String, String> {
    if name != FIRECRACKER {
        return Err(format!(
            "Not an engine that is installed this way: {name:?}. There is {FIRECRACKER}; QEMU comes from your distribution (qemu-system-x86)"
        ));
    }
    if !geteuid().is_root() {
        return Err(format!(
            "{INSTALL_PLACE} is root's: run `sudo banger engine install {name}`"
        ));
    }
    // What everybody's VMs will run is not in the catalogue of the one who happens to ask.
    let (catalog, refused) = host_catalog().map_err(|e| chain(&e))?;
    for error in refused {
        tell(&format!("Warning: {}", chain(&error)));
    }
    let entry = catalog.engine(name).map_err(|_| no_entry(name))?;
    let installed = place(entry, Path::new(INSTALL_PLACE), Path::new(CACHE));
    // A part of a download is of use to the next try, all of it to nobody.
    if installed.is_ok() {
        let _ = std::fs::remove_dir_all(CACHE);
    }
    installed
}

/// Tries the program before it takes the place of an older one.
fn place(entry: &EngineEntry, place: &Path, cache: &Path) -> Result<String, String> {
    let registry = Registry {
        cache,
        cache_bytes: cache::DEFAULT_BYTES,
        insecure: false,
        offline: false,
        retry: RetryPolicy::default(),
    };
    let unplaced = engine::unpack_program(entry, place, &registry, &Stages, &Cancel::default())
        .map_err(|e| chain(&e))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let found = runtime
        .block_on(firecracker::examine(unplaced.path()))
        .map_err(|e| chain(&e))?;
    if found.version.to_string() != entry.version.as_str() {
        return Err(format!(
            "The catalogue says Firecracker {}, and the program is {}: nothing was installed",
            entry.version, found.version
        ));
    }
    unplaced.place().map_err(|e| chain(&e))?;
    let (version, place) = (found.version, place.display());
    Ok(format!("Firecracker {version} is installed: {place}"))
}

fn no_entry(name: &str) -> String {
    format!(
        "The catalogue names no release of {name}. Put one into /etc/banger/catalog.d/{name}.toml, from version 1.14.4 or 1.15.1 on:\n\n{EXAMPLE}"
    )
}

struct Stages;

impl Progress for Stages {
    fn stage(&self, stage: &str) {
        tell(stage);
    }

    fn fraction(&self, _: f64) {}

    fn message(&self, text: &str) {
        tell(text);
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a program of its own, without the daemon's log"
)]
fn tell(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_to_be_installed_is_said_with_a_way_out() {
        let error = install("qemu").unwrap_err();
        assert!(error.contains("qemu-system-x86"), "{error}");
        if !geteuid().is_root() {
            let error = install("firecracker").unwrap_err();
            assert!(error.contains("sudo banger engine install"), "{error}");
        }
        let error = no_entry("firecracker");
        assert!(
            error.contains("/etc/banger/catalog.d/firecracker.toml"),
            "{error}"
        );
    }

    #[test]
    fn the_example_lacks_only_what_nobody_should_copy() {
        let refused = banger_image::catalog::Catalog::parse(EXAMPLE, "x")
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("X.Y.Z") || refused.contains("digest"),
            "{refused}"
        );
        let whole = EXAMPLE
            .replace("X.Y.Z", "1.15.1")
            .replace("sha256 = \"\"", &format!("sha256 = \"{}\"", "0".repeat(64)));
        let catalog = banger_image::catalog::Catalog::parse(&whole, "x").unwrap();
        assert_eq!(catalog.engine("firecracker").unwrap().version.as_str(), "1.15.1");
    }
}
