//! The error texts that `docs/troubleshooting.md` quotes are those of the code.

use std::fs;
use std::path::{Path, PathBuf};

/// Shorter pieces would be found anywhere.
const SHORTEST: usize = 6;
/// Where texts for people are written.
const SOURCES: [&str; 5] = [
    "banger/src",
    "bangerd/src",
    "banger-helper/src",
    "banger-guest/src",
    "crates",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All code below a directory, as one line: a string that goes on in the next has no break there.
fn code(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            code(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            for line in source.lines() {
                match line.trim_start().strip_suffix('\\') {
                    Some(begun) => text.push_str(begun),
                    None => text.push_str(&format!("{}\n", line.trim_start())),
                }
            }
        }
    }
}

/// What a document has in quotes, outside of code.
fn quotes(document: &str) -> Vec<String> {
    let prose: String = document.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let words: Vec<_> = prose.split_whitespace().collect();
    let line = words.join(" ");
    let quoted = line.split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[test]
fn every_quoted_text_is_in_the_code() {
    let mut all = String::new();
    for source in SOURCES {
        code(&workspace().join(source), &mut all);
    }
    let document = fs::read_to_string(workspace().join("docs/troubleshooting.md")).unwrap();
    let quotes = quotes(&document);
    assert!(quotes.len() > 25, "{quotes:?}");
    let mut unknown = Vec::new();
    for quote in quotes {
        let pieces: Vec<_> = quote
            .split('…')
            .map(|piece| piece.trim_matches([' ', '(', ')', ',', ':']))
            .filter(|piece| piece.len() >= SHORTEST)
            .collect();
        assert!(!pieces.is_empty(), "{quote:?} says nothing");
        if !pieces.iter().all(|piece| all.contains(piece)) {
            unknown.push(quote);
        }
    }
    assert_eq!(unknown, Vec::<String>::new(), "texts of docs/troubleshooting.md");
}

#[test]
fn a_quote_is_read_over_lines_and_not_in_code() {
    let document = "**\"One\ntwo …\"** and `a = \"b\"`, \"Three\".";
    assert_eq!(quotes(document), ["One two …", "Three"]);
}
