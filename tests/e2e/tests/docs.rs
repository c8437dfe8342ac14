//! The documents say what the programs do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use banger_e2e::Rig;
use banger_model::Config;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The keys that a table takes, as the parser itself lists them.
fn accepted(header: &str) -> BTreeSet<String> {
    let text = format!("{header}\nno_such_key = 1");
    let error = Config::parse(&text).unwrap_err().to_string();
    let (_, list) = error
        .split_once("expected one of")
        .unwrap_or_else(|| panic!("{error}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn config_md_lists_every_key_and_no_other() {
    let mut keys = accepted("");
    for (table, header) in [("vm_defaults", "[vm_defaults]"), ("file_sync", "[[file_sync]]")] {
        assert!(keys.remove(table), "{keys:?}");
        keys.extend(accepted(header).into_iter().map(|key| format!("{table}.{key}")));
    }

    let text = fs::read_to_string(docs().join("config.md")).unwrap();
    let rows = text
        .lines()
        .take_while(|line| !line.starts_with("## Environment"));
    let listed: BTreeSet<String> = rows
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .collect();
    assert_eq!(listed, keys);

    // Its example is a configuration.
    let example = text
        .split("```toml")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    Config::parse(example).unwrap();
}

#[tokio::test]
async fn every_command_in_the_documents_exists() {
    let rig = Rig::empty();
    let mut files = vec![docs().join("../README.md")];
    files.extend(fs::read_dir(docs()).unwrap().map(|entry| entry.unwrap().path()));
    let mut commands = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // `banger …` in code spans, and `$ banger …` in examples.
        let spans = text.split('`').filter_map(|part| part.strip_prefix("banger "));
        let examples = text
            .split("$ banger ")
            .skip(1)
            .filter_map(|part| part.lines().next());
        for words in spans.chain(examples) {
            let nouns: Vec<_> = words
                .split_whitespace()
                .take_while(|w| w.chars().all(|c| c.is_ascii_lowercase()))
                .take(2)
                .collect();
            if !nouns.is_empty() {
                commands.insert(nouns.join(" "));
            }
        }
    }
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let mut words: Vec<_> = command.split(' ').collect();
        words.push("--help");
        let out = rig.banger(words).await;
        assert_eq!(out.status, 0, "the documents name `banger {command}`: {out}");
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let mut files = vec![docs().join("../README.md")];
    files.extend(fs::read_dir(docs()).unwrap().map(|entry| entry.unwrap().path()));
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.starts_with("http") {
                let path = file.parent().unwrap().join(target.split('#').next().unwrap());
                assert!(path.exists(), "{} links to {target}", file.display());
            }
        }
    }
}
