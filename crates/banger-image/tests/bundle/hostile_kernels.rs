//! Kernels' bundles that are not what they say.

use banger_image::bundle::BundleError;
use banger_image::kernel::KernelError;
use banger_image::{Cancel, Error, NoProgress, kernel};
use tar::EntryType;

use crate::fixture::{Machine, catalog_of, write};
use crate::parts::{Raw, pack, tar, unpack};

struct Parts {
    manifest: String,
    vmlinux: Vec<u8>,
    config: Vec<u8>,
    modules: Vec<u8>,
}

impl Parts {
    fn new() -> Self {
        let machine = Machine::new();
        let name = machine.kernel().name;
        let file = machine.path("k");
        kernel::export(
            &machine.kernels(),
            &name,
            &file,
            false,
            &NoProgress,
            &Cancel::new(),
        )
        .unwrap();
        let [manifest, vmlinux, config, modules] = &unpack(&file)[..] else {
            panic!("another form");
        };
        Self {
            manifest: String::from_utf8(manifest.content.clone()).unwrap(),
            vmlinux: vmlinux.content.clone(),
            config: config.content.clone(),
            modules: modules.content.clone(),
        }
    }

    /// A bundle whose manifest says the truth about the sizes, with one word replaced.
    fn bundle(&self, from: &str, to: &str) -> Vec<u8> {
        let mut manifest: serde_json::Value = serde_json::from_str(&self.manifest).unwrap();
        manifest["vmlinux"] = self.vmlinux.len().into();
        manifest["config"] = self.config.len().into();
        manifest["modules"] = self.modules.len().into();
        let manifest = manifest.to_string();
        assert!(manifest.contains(from), "{manifest}");
        pack(&tar(&[
            Raw::file("manifest.json", manifest.replace(from, to).as_bytes()),
            Raw::file("vmlinux", &self.vmlinux),
            Raw::file("config", &self.config),
            Raw::file("modules.tar", &self.modules),
        ]))
    }

    fn with_modules(members: &[Raw]) -> Vec<u8> {
        let parts = Self {
            modules: tar(members),
            ..Self::new()
        };
        parts.bundle("", "")
    }
}

fn pull(bundle: &[u8]) -> Result<kernel::Kernel, Error> {
    let machine = Machine::new();
    write(&machine.path("b"), bundle);
    let catalog = catalog_of("kernel", "team", &machine.path("b"));
    let pulled = machine.pull_kernel(&catalog, "team");
    if pulled.is_err() {
        assert!(machine.entries("kernels").is_empty());
        assert_eq!(machine.entries("."), ["b", "kernels"]);
    }
    pulled
}

fn is_bundle(pulled: &Result<kernel::Kernel, Error>, expected: fn(&BundleError) -> bool) -> bool {
    matches!(pulled, Err(Error::Bundle { source, .. }) if expected(source))
}

#[test]
fn modules_have_one_form() {
    assert!(pull(&Parts::new().bundle("", "")).is_ok());
    let file = |name: &str| Raw::file(name, b"x");
    let mut link = Raw::of("kernel/x", EntryType::Symlink, b"");
    link.header.set_link_name("/etc").unwrap();
    link.header.set_cksum();
    for (what, members) in [
        ("a way out", vec![file("../../escaped")]),
        ("an absolute path", vec![file("/tmp/escaped")]),
        ("a way out in the middle", vec![file("kernel/../../escaped")]),
        ("a link", vec![link]),
        ("a directory", vec![Raw::of("kernel/", EntryType::Directory, b"")]),
        ("a device", vec![Raw::of("null", EntryType::Char, b"")]),
        (
            "a long name of GNU tar",
            vec![Raw::of("x", EntryType::GNULongName, b"../x")],
        ),
        (
            "an extended header",
            vec![Raw::of("x", EntryType::XHeader, b"13 path=../x\n")],
        ),
        ("a control character", vec![file("a\u{1b}b")]),
        ("nothing as a name", vec![file("")]),
    ] {
        let pulled = pull(&Parts::with_modules(&members));
        assert!(
            is_bundle(&pulled, |error| matches!(error, BundleError::Modules(_))),
            "{what}: {pulled:?}"
        );
    }
    for modules in [Vec::new(), vec![0; 512], b"x".repeat(1024)] {
        let parts = Parts {
            modules,
            ..Parts::new()
        };
        let pulled = pull(&parts.bundle("", ""));
        assert!(
            is_bundle(&pulled, |error| matches!(error, BundleError::Modules(_))),
            "{pulled:?}"
        );
    }
}

#[test]
fn what_is_no_kernel_is_refused() {
    for (vmlinux, word) in [
        (&b"#!/bin/sh\n"[..], "Neither"),
        (b"", "Neither"),
        (&[0x1f, 0x8b, 8, 0], "Neither"),
        (b"\x7fELF", "x86-64"),
    ] {
        let parts = Parts {
            vmlinux: vmlinux.to_vec(),
            ..Parts::new()
        };
        let pulled = pull(&parts.bundle("", ""));
        let Err(Error::Kernel { source, .. }) = &pulled else {
            panic!("{pulled:?}");
        };
        assert!(source.to_string().contains(word) || word == "x86-64", "{source}");
    }
    // A bzImage would have to be unpacked outside of the child.
    let mut bzimage = vec![0; 4096];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    let parts = Parts {
        vmlinux: bzimage,
        ..Parts::new()
    };
    assert!(matches!(
        pull(&parts.bundle("", "")),
        Err(Error::Kernel {
            source: KernelError::Unknown,
            ..
        })
    ));
    let parts = Parts {
        config: b"CONFIG_EXT4_FS=y\n".to_vec(),
        modules: vec![0; 1024],
        ..Parts::new()
    };
    assert!(matches!(
        pull(&parts.bundle("", "")),
        Err(Error::Kernel {
            source: KernelError::Lacks(_),
            ..
        })
    ));
}

#[test]
fn manifests_of_kernels_lie_as_well() {
    let parts = Parts::new();
    for (from, to, expected) in [
        (
            "\"release\":\"6.1.0-test\"",
            "\"release\":\"6.2\"",
            (|e| matches!(e, BundleError::Other { .. })) as fn(&_) -> _,
        ),
        ("\"release\":\"6.1.0-test\"", "\"release\":\"../6.1\"", |e| {
            matches!(e, BundleError::Refused(_))
        }),
        ("\"name\":\"6.1.0-test\"", "\"name\":\"../x\"", |e| {
            matches!(e, BundleError::Refused(_))
        }),
        (
            "\"vmlinux\":",
            "\"vmlinux\":1",
            |e| matches!(e, BundleError::Refused(text) if text.contains("vmlinux")),
        ),
        (
            "\"config\":",
            "\"config\":9999999",
            |e| matches!(e, BundleError::Refused(text) if text.contains("config is too large")),
        ),
        (
            "\"modules\":",
            "\"modules\":9999999999",
            |e| matches!(e, BundleError::Refused(text) if text.contains("modules.tar is too large")),
        ),
        ("\"config\":", "\"konfig\":", |e| {
            matches!(e, BundleError::Refused(_))
        }),
    ] {
        let pulled = pull(&parts.bundle(from, to));
        assert!(is_bundle(&pulled, expected), "{to}: {pulled:?}");
    }
    let image = r#"{"kind":"image","version":1,"name":"team","size":1,"content":0,"created":0,"origin":""}"#;
    let image = pack(&tar(&[
        Raw::file("manifest.json", image.as_bytes()),
        Raw::file("rootfs.ext4", b"x"),
    ]));
    assert!(is_bundle(&pull(&image), |error| matches!(
        error,
        BundleError::Other { found: "image", .. }
    )));
}
