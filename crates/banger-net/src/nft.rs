//! Tables of nftables: loaded as one transaction by `nft -j`, from values and never from text,
//! and compared with what is there.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::NetError;

/// The one name of all of banger's tables.
pub(crate) const TABLE: &str = "banger";
/// How much of nft's own words is repeated.
const WORDS_MAX: usize = 400;
const PROGRAMS: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

/// The tables of one namespace, as they should be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tables {
    /// For messages.
    pub(crate) name: &'static str,
    /// Each family in which a table [`TABLE`] is.
    pub(crate) families: &'static [&'static str],
    /// What `add` takes: sets, counters, chains, rules; the tables themselves are made first.
    pub(crate) objects: Vec<Value>,
}

/// What was loaded and how it looked afterwards. nft shows rules in its own words, which differ
/// between versions: so what is there is compared with what was there, not with what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    wanted: u64,
    shown: u64,
}

impl Tables {
    /// Loads the tables unless they are there, unchanged since `loaded`; in place of what has
    /// their names, at once, and nothing else is touched. Returns what to compare with next time,
    /// or nothing when nothing was done.
    pub(crate) fn ensure(&self, loaded: Option<Loaded>) -> Result<Option<Loaded>, NetError> {
        let wanted = digest(&self.objects);
        if let Some(loaded) = loaded
            && loaded.wanted == wanted
            && self.shown()? == loaded.shown
        {
            return Ok(None);
        }
        let mut commands = Vec::new();
        for family in self.families {
            let table = json!({"table": {"family": family, "name": TABLE}});
            // What does not exist cannot be deleted, so it is made first.
            commands.extend([
                json!({"add": table}),
                json!({"delete": table}),
                json!({"add": table}),
            ]);
        }
        commands.extend(self.objects.iter().map(|object| json!({"add": object})));
        self.run(&commands)?;
        Ok(Some(Loaded {
            wanted,
            shown: self.shown()?,
        }))
    }

    /// Deletes the tables; those that are not there are no error.
    pub(crate) fn delete(&self) -> Result<(), NetError> {
        let mut commands = Vec::new();
        for family in self.families {
            let table = json!({"table": {"family": family, "name": TABLE}});
            commands.extend([json!({"add": table}), json!({"delete": table})]);
        }
        self.run(&commands)
    }

    fn run(&self, commands: &[Value]) -> Result<(), NetError> {
        let input = json!({ "nftables": commands }).to_string();
        let output = nft(&["-j", "-f", "-"], input.as_bytes())?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(self.name, &output))
    }

    /// A digest of the tables as they are; that of nothing when one is missing.
    fn shown(&self) -> Result<u64, NetError> {
        let mut all = Vec::new();
        for family in self.families {
            let output = nft(&["-j", "list", "table", family, TABLE], &[])?;
            if !output.status.success() {
                return Ok(0);
            }
            let objects = listed(&output.stdout).ok_or_else(|| failed(self.name, &output))?;
            all.extend(objects.into_iter().map(settled));
        }
        Ok(digest(&all))
    }
}

/// Everybody's rules in the calling thread's namespace, as nft lists them.
pub(crate) fn ruleset() -> Result<Vec<Value>, NetError> {
    let output = nft(&["-j", "list", "ruleset"], &[])?;
    listed(&output.stdout).ok_or_else(|| failed("all", &output))
}

fn listed(json: &[u8]) -> Option<Vec<Value>> {
    let mut listing: Value = serde_json::from_slice(json).ok()?;
    match listing.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Some(objects),
        _ => None,
    }
}

fn failed(table: &'static str, output: &Output) -> NetError {
    let words = String::from_utf8_lossy(&output.stderr);
    let words: String = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(WORDS_MAX)
        .collect();
    let words = words.trim().to_owned();
    NetError::Nft { table, words }
}

fn nft(arguments: &[&str], input: &[u8]) -> Result<Output, NetError> {
    let program = PROGRAMS
        .into_iter()
        .find(|program| std::path::Path::new(program).exists())
        .ok_or_else(|| NetError::NoNft(io::Error::from(io::ErrorKind::NotFound)))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NetError::NoNft)?;
    // nft reads all of it before it says anything, so it cannot block on its answer.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(input));
    let output = child.wait_with_output().map_err(NetError::NoNft)?;
    match written {
        // It ended before it had read: its words say more.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(NetError::NoNft(e)),
        _ => Ok(output),
    }
}

/// An object of a listing without what changes by itself: handles, counts, the order of a set,
/// the elements that rules add.
fn settled(mut object: Value) -> Value {
    let Some((kind, body)) = object.as_object_mut().and_then(|object| object.iter_mut().next()) else {
        return object;
    };
    if kind == "metainfo" {
        return Value::Null;
    }
    if let Some(body) = body.as_object_mut() {
        body.remove("handle");
        if kind == "counter" {
            body.remove("packets");
            body.remove("bytes");
        }
        if let Some(elements) = body.get_mut("elem").and_then(Value::as_array_mut) {
            elements.retain(|element| element.get("elem").is_none());
            elements.sort_by_cached_key(Value::to_string);
            if elements.is_empty() {
                body.remove("elem");
            }
        }
    }
    object
}

fn digest(objects: &[Value]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for object in objects {
        object.to_string().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_not_compared() {
        let counter = |n: u64, handle: u64| {
            settled(
                json!({"counter": {"name": "x", "family": "inet", "handle": handle, "packets": n, "bytes": n}}),
            )
        };
        assert_eq!(counter(0, 1), counter(9, 2));
        let set = |elements: Value| settled(json!({"set": {"name": "x", "elem": elements}}));
        assert_eq!(set(json!(["a", "b"])), set(json!(["b", "a"])));
        assert_ne!(set(json!(["a", "b"])), set(json!(["a"])));
        let counted = json!([{"elem": {"val": "10.119.0.17", "ct count": {"val": 9}}}]);
        assert_eq!(set(counted), settled(json!({"set": {"name": "x"}})));
        assert_eq!(settled(json!({"metainfo": {"version": "1"}})), Value::Null);
    }
}
