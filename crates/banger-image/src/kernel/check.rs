//! Whether a kernel has what a guest needs, by its configuration and its modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Files of a tree of modules, and its depth.
const MAX_MODULES: usize = 50_000;
const MAX_DEPTH: usize = 16;
/// A configuration, or a list of built-in modules, in bytes.
pub(crate) const MAX_TEXT: u64 = 4 << 20;

/// A feature: how the configuration calls it, how its module is called, and what it is for.
struct Feature {
    option: &'static str,
    module: &'static str,
    what: &'static str,
}

const fn feature(option: &'static str, module: &'static str, what: &'static str) -> Feature {
    Feature { option, module, what }
}

/// Without these no guest comes up.
const NEEDED: [Feature; 6] = [
    feature("VIRTIO_PCI", "virtio_pci", "virtio devices on PCI"),
    feature("VIRTIO_BLK", "virtio_blk", "virtio disks"),
    feature("VIRTIO_NET", "virtio_net", "virtio network"),
    feature("VIRTIO_CONSOLE", "virtio_console", "virtio ports"),
    feature("EXT4_FS", "ext4", "ext4"),
    feature("BLK_DEV_INITRD", "", "an initramfs"),
];
/// Without these a guest comes up, and something in it does not work.
const WANTED: [Feature; 6] = [
    feature("VIRTIO_VSOCKETS", "vmw_vsock_virtio_transport", "vsock"),
    feature("HW_RANDOM_VIRTIO", "virtio_rng", "virtio random numbers"),
    feature("OVERLAY_FS", "overlay", "overlay file systems, for Docker"),
    feature("BRIDGE", "bridge", "bridges, for Docker"),
    feature("VETH", "veth", "veth, for Docker"),
    feature("NF_TABLES", "nf_tables", "netfilter, for Docker"),
];

/// What is known about a kernel.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Names of modules, as files and built in, with `_` for `-`.
    modules: BTreeSet<String>,
    /// Options that are set, without `CONFIG_`; `None` when no configuration was given.
    options: Option<BTreeSet<String>>,
}

/// What a check found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Without these a guest cannot run.
    pub(super) lacks: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Facts {
    /// Reads the configuration and the tree of modules, where there are any.
    pub(super) fn read(config: Option<&str>, modules: Option<&Path>) -> Result<Self> {
        let mut facts = Self {
            options: config.map(options),
            ..Self::default()
        };
        if let Some(dir) = modules {
            facts.add_tree(dir, 0)?;
            let builtin = dir.join("modules.builtin");
            if fs::metadata(&builtin).is_ok_and(|f| f.is_file() && f.len() <= MAX_TEXT) {
                let text = fs::read_to_string(&builtin).map_err(Error::io("read", &builtin))?;
                facts.modules.extend(text.lines().filter_map(module_name));
            }
        }
        Ok(facts)
    }

    fn add_tree(&mut self, dir: &Path, depth: usize) -> Result<()> {
        for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
            let entry = entry.map_err(Error::io("read", dir))?;
            let kind = entry.file_type().map_err(Error::io("look at", dir))?;
            if kind.is_dir() && depth < MAX_DEPTH && self.modules.len() < MAX_MODULES {
                self.add_tree(&entry.path(), depth + 1)?;
            } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                self.modules.insert(name);
            }
        }
        Ok(())
    }

    /// Holds what is known against what a guest needs.
    pub(super) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for feature in &NEEDED {
            match self.has(feature) {
                Some(true) => {}
                Some(false) => verdict.lacks.push(self.describe(feature)),
                None => verdict.warnings.push(format!(
                    "Nothing tells whether it has {}: give its configuration",
                    feature.what
                )),
            }
        }
        for feature in &WANTED {
            if self.has(feature) == Some(false) {
                verdict.warnings.push(format!("No {}", self.describe(feature)));
            }
        }
        verdict
    }

    /// Whether a feature is built in or there as a module; `None` when nothing tells.
    fn has(&self, feature: &Feature) -> Option<bool> {
        if self.modules.contains(feature.module) {
            return Some(true);
        }
        let options = self.options.as_ref()?;
        // Set as a module is of no use without the module.
        Some(options.contains(feature.option))
    }

    fn describe(&self, feature: &Feature) -> String {
        format!("{} (CONFIG_{})", feature.what, feature.option)
    }
}

/// The options of a configuration that are built in.
fn options(config: &str) -> BTreeSet<String> {
    config
        .lines()
        .filter_map(|line| line.trim().strip_prefix("CONFIG_")?.strip_suffix("=y"))
        .map(str::to_owned)
        .collect()
}

/// A module's name by its file: `kernel/fs/ext4/ext4.ko.xz` is `ext4`.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, compression) = file.split_once(".ko")?;
    matches!(compression, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(without: &str) -> String {
        NEEDED
            .iter()
            .chain(&WANTED)
            .filter(|feature| feature.option != without)
            .map(|feature| format!("CONFIG_{}=y\n", feature.option))
            .collect()
    }

    fn verdict(config: Option<&str>, modules: Option<&Path>) -> Verdict {
        Facts::read(config, modules).unwrap().verdict()
    }

    #[test]
    fn everything_built_in_is_good() {
        assert_eq!(verdict(Some(&config("")), None), Verdict::default());
    }

    #[test]
    fn what_is_needed_refuses_and_what_is_wanted_warns() {
        let without = verdict(Some(&config("EXT4_FS")), None);
        assert_eq!(without.lacks, ["ext4 (CONFIG_EXT4_FS)"]);
        let without = verdict(Some(&config("OVERLAY_FS")), None);
        assert!(without.lacks.is_empty());
        assert_eq!(
            without.warnings,
            ["No overlay file systems, for Docker (CONFIG_OVERLAY_FS)"]
        );
    }

    #[test]
    fn a_module_counts_only_with_its_file() {
        let config = config("VIRTIO_BLK") + "CONFIG_VIRTIO_BLK=m\n";
        assert_eq!(verdict(Some(&config), None).lacks.len(), 1);
        let dir = tempfile::tempdir().unwrap();
        let block = dir.path().join("kernel/drivers/block");
        fs::create_dir_all(&block).unwrap();
        fs::write(block.join("virtio-blk.ko.xz"), "").unwrap();
        assert!(verdict(Some(&config), Some(dir.path())).lacks.is_empty());
        fs::remove_dir_all(dir.path().join("kernel")).unwrap();
        fs::write(
            dir.path().join("modules.builtin"),
            "kernel/drivers/block/virtio_blk.ko\n",
        )
        .unwrap();
        assert!(verdict(Some(&config), Some(dir.path())).lacks.is_empty());
    }

    #[test]
    fn without_a_configuration_it_is_only_a_warning() {
        let unknown = verdict(None, None);
        assert!(unknown.lacks.is_empty());
        assert_eq!(unknown.warnings.len(), NEEDED.len());
    }
}
