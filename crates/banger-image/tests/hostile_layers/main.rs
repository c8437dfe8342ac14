//! Layers that somebody made to break what unpacks them: each ends in its error, or in a tree
//! that harms nobody. Nothing but the image's file is made on the host.

mod headers;
mod paths;
mod sparse;
#[path = "../support/mod.rs"]
mod support;
mod whiteouts;

use std::fs;
use std::path::Path;

use banger_image::ext4::WriteError;
use support::layer::Layer;
use support::listing::short;
use support::{build, check, reader};

/// What a case ends in.
enum End {
    /// The name of a [`WriteError`].
    Error(&'static str),
    Tree(&'static [&'static str]),
}
use End::{Error, Tree};

struct Case {
    name: &'static str,
    layers: Vec<Vec<u8>>,
    end: End,
}

fn case(name: &'static str, layers: Vec<Layer>, end: End) -> Case {
    let layers = layers.into_iter().map(Layer::end).collect();
    Case { name, layers, end }
}

/// One layer as it is, without an end of its own.
fn raw(name: &'static str, layer: Vec<u8>, end: End) -> Case {
    Case {
        name,
        layers: vec![layer],
        end,
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is read by people")]
fn every_hostile_layer_ends_as_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    fs::write(&canary, "sings").unwrap();
    let cases: Vec<Case> = [
        paths::ways_out(canary.to_str().unwrap()),
        paths::loops(),
        whiteouts::whiteouts(),
        headers::headers(),
        sparse::sparse(),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(cases.len() >= 40);
    for Case { name, layers, end } in cases {
        let image = dir.path().join("image");
        let result = build(&image, &layers);
        let said = match &result {
            Ok(()) => {
                check(&image);
                let tree = short(&reader::list(&image));
                println!("{name}: {tree:?}");
                format!("{tree:?}")
            }
            Err(error) => {
                println!("{name}: {error}");
                variant(error)
            }
        };
        match end {
            Error(expected) => assert_eq!(said, expected, "{name}"),
            Tree(tree) => assert_eq!(said, format!("{tree:?}"), "{name}"),
        }
        fs::remove_file(&image).unwrap();
        assert_untouched(dir.path(), &canary);
    }
}

/// The canary is what it was, and alone.
fn assert_untouched(dir: &Path, canary: &Path) {
    assert_eq!(fs::read_to_string(canary).unwrap(), "sings");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
}

fn variant(error: &WriteError) -> String {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_ascii_alphabetic());
    text[..end.unwrap_or(text.len())].to_owned()
}
