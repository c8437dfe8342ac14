//! Kernels out of one store and into another.

use std::fs;
use std::path::{Path, PathBuf};

use banger_image::bundle::Publish;
use banger_image::catalog::Catalog;
use banger_image::kernel::{self, Kernel, Origin};
use banger_image::{Cancel, Error, NoProgress};

use crate::fixture::{Machine, catalog_of};

fn export(machine: &Machine, kernel: &Kernel, file: &str) -> PathBuf {
    let file = machine.path(file);
    let name = &kernel.name;
    kernel::export(
        &machine.kernels(),
        name,
        &file,
        false,
        &NoProgress,
        &Cancel::new(),
    )
    .unwrap()
    .file
}

/// Every file below a directory, with its content.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let content = fs::read(&path).unwrap();
                found.push((path.strip_prefix(dir).unwrap().to_owned(), content));
            }
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn a_kernel_travels_with_its_modules() {
    let here = Machine::new();
    let kernel = here.kernel();
    let bundle = export(&here, &kernel, "kernel.tar.zst");
    assert_eq!(
        fs::read(&bundle).unwrap(),
        fs::read(export(&here, &kernel, "again")).unwrap()
    );
    let there = Machine::new();
    let catalog = catalog_of("kernel", "team", &bundle);
    let pulled = there.pull_kernel(&catalog, "team").unwrap();
    assert_eq!((&pulled.name, &pulled.version), (&kernel.name, &kernel.version));
    assert_eq!(pulled.aliases, ["team"]);
    assert!(matches!(&pulled.origin, Origin::Bundle { url, .. } if url.ends_with("kernel.tar.zst")));
    assert_eq!(tree(&pulled.modules().unwrap()), tree(&kernel.modules().unwrap()));
    for (a, b) in [
        (pulled.vmlinux(), kernel.vmlinux()),
        (pulled.config().unwrap(), kernel.config().unwrap()),
    ] {
        assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
    }
    assert_eq!(there.entries("kernels"), ["6.1.0-test"]);
    // It is here already, also under a second name.
    let again = there
        .pull_kernel(&catalog_of("kernel", "mine", &bundle), "mine")
        .unwrap();
    assert_eq!(
        (again.created, again.aliases),
        (pulled.created, vec!["team".to_owned(), "mine".to_owned()])
    );
    assert_eq!(
        kernel::find(&there.kernels(), &"team".parse().unwrap())
            .unwrap()
            .name,
        kernel.name
    );
}

#[test]
fn a_bundle_does_not_take_the_place_of_another_kernel() {
    let here = Machine::new();
    let kernel = here.kernel();
    let bundle = export(&here, &kernel, "kernel.tar.zst");
    // This one was imported, and has the name that the bundle chose.
    let there = Machine::new();
    there.kernel();
    let taken = there.pull_kernel(&catalog_of("kernel", "team", &bundle), "team");
    assert!(
        matches!(taken, Err(Error::Exists { what: "Kernel", .. })),
        "{taken:?}"
    );
    // Under its own name it is what the user asks for.
    let catalog = catalog_of("kernel", "6.1.0-test", &bundle);
    let pulled = there.pull_kernel(&catalog, "6.1.0-test").unwrap();
    assert!(matches!(pulled.origin, Origin::Bundle { .. }));
    assert!(pulled.aliases.is_empty());
    assert_eq!(there.entries("kernels"), ["6.1.0-test"]);
}

#[test]
fn a_kernel_is_published_under_the_name_that_images_ask_for() {
    let here = Machine::new();
    let bundle = export(&here, &here.kernel(), "kernel.tar.zst");
    let there = Machine::new();
    there
        .pull_kernel(&catalog_of("kernel", "debian-6.1", &bundle), "debian-6.1")
        .unwrap();
    let directory = there.path("published");
    let options = Publish {
        directory: &directory,
        base_url: None,
        description: None,
        force: false,
    };
    let publish = |options: &Publish<'_>| {
        let name = "debian-6.1".parse().unwrap();
        kernel::publish(&there.kernels(), &name, options, &NoProgress, &Cancel::new())
    };
    publish(&options).unwrap();
    assert!(matches!(publish(&options), Err(Error::Replaceable { .. })));
    let catalog = Catalog::read(&directory.join("catalog.toml")).unwrap();
    let entry = catalog.kernel(&"debian-6.1".parse().unwrap()).unwrap();
    assert_eq!(entry.description, "Linux 6.1.0-test");
    let third = Machine::new();
    let pulled = third.pull_kernel(&catalog, "debian-6.1").unwrap();
    assert_eq!(pulled.name.as_str(), "6.1.0-test");
}
