//! Entries with more than one source.

use std::fs;

use banger_image::catalog::Catalog;
use banger_image::{Cancel, Digest, Error, NoProgress, image};

use crate::fixture::Machine;

#[expect(clippy::print_stdout, reason = "how a test says what it does")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// An entry with these sources: a url, and the content that it should have.
fn catalog(sources: &[(String, &[u8])]) -> Catalog {
    let mut text = "[[image]]\nname = \"a\"\ndescription = \"\"\nkernel = \"k\"\n".to_owned();
    for (url, content) in sources {
        text += &format!(
            "[[image.source]]\ntype = \"bundle\"\nurl = \"{url}\"\nsha256 = \"{}\"\nsize = {}\n",
            Digest::of(content).hex(),
            content.len()
        );
    }
    Catalog::parse(&text, "a test").unwrap()
}

#[test]
fn the_first_source_that_can_be_used_is() {
    let machine = Machine::new();
    let image = machine.image("a");
    let file = machine.path("good.tar.zst");
    let export = image::export(
        &machine.images(),
        &image.name,
        &file,
        false,
        &NoProgress,
        &Cancel::new(),
    );
    let good = fs::read(export.unwrap().file).unwrap();
    let url = |name: &str| format!("file://{}", machine.path(name).display());
    fs::write(machine.path("bad"), b"no bundle").unwrap();

    let there = Machine::new();
    let sources = [
        (url("none"), &good[..]),
        (url("bad"), b"no bundle"),
        (url("good.tar.zst"), b"another"),
        (url("good.tar.zst"), &good),
    ];
    let pulled = there.pull_image(&catalog(&sources), "a").unwrap();
    assert_eq!(pulled.origin.digest(), Some(Digest::of(&good)));

    let none = Machine::new();
    let Err(Error::Sources { name, reasons }) = none.pull_image(&catalog(&sources[..3]), "a") else {
        panic!("something else");
    };
    assert_eq!(name, "a");
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(
        reasons[0].contains("none") && reasons[0].contains("No such file"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("bad"), "{reasons:?}");
    assert!(reasons[2].contains("the catalogue says"), "{reasons:?}");
    assert!(none.entries("images").is_empty());
    let cancel = Cancel::new();
    cancel.cancel();
    let stopped = none.pull_image_until(&catalog(&sources), "a", &cancel);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}
