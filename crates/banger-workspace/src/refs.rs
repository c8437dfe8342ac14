//! Names of references and small readers of where they point: files only, no process.

use std::path::Path;

use crate::error::{Error, Result};
use crate::read;

/// Of one loose reference, or of HEAD.
const LOOSE_LIMIT: usize = 4096;
/// Of `packed-refs`: about a million references.
const PACKED_LIMIT: usize = 128 << 20;
/// How many symbolic references may follow each other; git's own limit.
const DEPTH: usize = 5;
/// git's limit follows from that of file names, with room for `.lock`.
const NAME_LIMIT: usize = 200;

/// What a reference is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Commit(String),
    Symbolic(String),
}

/// Whether `name` can be a branch, by the rules of git-check-ref-format(1).
///
/// # Errors
/// [`Error::BadBranch`].
pub fn check_branch(name: &str) -> Result<()> {
    if is_branch(name) {
        Ok(())
    } else {
        Err(Error::BadBranch(name.to_owned()))
    }
}

pub(crate) fn is_branch(name: &str) -> bool {
    !name.starts_with('-') && name != "HEAD" && name != "@" && is_name(name)
}

/// As `git check-ref-format --allow-onelevel`.
pub(crate) fn is_name(name: &str) -> bool {
    let part_is_fine = |part: &str| {
        !part.is_empty() && part.len() <= NAME_LIMIT && !part.starts_with('.') && !part.ends_with(".lock")
    };
    name.len() <= 4 * NAME_LIMIT
        && name.split('/').all(part_is_fine)
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(|c: char| c.is_control() || " ~^:?*[\\".contains(c))
}

/// A whole object name, of SHA-1 or SHA-256.
pub(crate) fn is_object(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads HEAD or another file that holds one reference; `None` where there is none.
pub(crate) fn read_loose(path: &Path) -> Result<Option<Value>> {
    // A directory of the same name holds other references.
    if path.is_dir() {
        return Ok(None);
    }
    let Some(bytes) = read::small(path, LOOSE_LIMIT)? else {
        return Ok(None);
    };
    let value = std::str::from_utf8(&bytes).ok().and_then(parse);
    value.map(Some).ok_or_else(|| Error::Damaged {
        path: path.to_owned(),
        what: "it holds no reference".to_owned(),
    })
}

fn parse(text: &str) -> Option<Value> {
    let text = text.trim_end();
    if let Some(target) = text.strip_prefix("ref:") {
        let target = target.trim_start();
        let fine = target.starts_with("refs/") && is_name(target);
        return fine.then(|| Value::Symbolic(target.to_owned()));
    }
    // git wrote more into this line once; the name alone counts.
    let name = text.split_whitespace().next()?;
    is_object(name).then(|| Value::Commit(name.to_owned()))
}

/// What a full name (`refs/…`) stands for; `None` where there is nothing of it yet.
pub(crate) fn resolve(common_dir: &Path, name: &str) -> Result<Option<String>> {
    let mut name = name.to_owned();
    for _ in 0..DEPTH {
        if !name.starts_with("refs/") || !is_name(&name) {
            return Ok(None);
        }
        match read_loose(&common_dir.join(&name))? {
            Some(Value::Commit(commit)) => return Ok(Some(commit)),
            Some(Value::Symbolic(target)) => name = target,
            None => return packed(common_dir, &name),
        }
    }
    Ok(None)
}

fn packed(common_dir: &Path, name: &str) -> Result<Option<String>> {
    let Some(bytes) = read::small(&common_dir.join("packed-refs"), PACKED_LIMIT)? else {
        return Ok(None);
    };
    let found = bytes.split(|&b| b == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (object, of) = line.split_once(' ')?;
        (of.trim_end() == name && is_object(object)).then(|| object.to_owned())
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_check_ref_format() {
        for good in ["main", "a/b", "feature-1", "ö", "x.y"] {
            check_branch(good).unwrap();
        }
        for bad in [
            "", "-x", "a..b", "a/", "/a", "a//b", ".a", "a/.b", "a.lock", "a.", "a b", "a~", "a^", "a:b",
            "a?", "a*", "a[", "a\\b", "a@{b", "@", "HEAD", "a\nb", "a\u{7f}",
        ] {
            assert!(check_branch(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn loose_and_packed_references_are_found_and_loops_end() {
        let dir = tempfile::tempdir().unwrap();
        let heads = dir.path().join("refs/heads");
        std::fs::create_dir_all(&heads).unwrap();
        let one = "1".repeat(40);
        let two = "2".repeat(64);
        std::fs::write(heads.join("a"), format!("{one}\n")).unwrap();
        std::fs::write(heads.join("s"), "ref: refs/heads/a\n").unwrap();
        std::fs::write(heads.join("l"), "ref: refs/heads/l\n").unwrap();
        std::fs::write(heads.join("out"), "ref: ../../etc/passwd\n").unwrap();
        std::fs::write(
            dir.path().join("packed-refs"),
            format!("# pack-refs with: peeled\n{two} refs/heads/b\n^{one}\n"),
        )
        .unwrap();
        let of = |name: &str| resolve(dir.path(), name);
        assert_eq!(of("refs/heads/a").unwrap(), Some(one.clone()));
        assert_eq!(of("refs/heads/s").unwrap(), Some(one));
        assert_eq!(of("refs/heads/b").unwrap(), Some(two));
        assert_eq!(of("refs/heads/l").unwrap(), None);
        assert_eq!(of("refs/heads/c").unwrap(), None);
        assert_eq!(of("../HEAD").unwrap(), None);
        assert!(of("refs/heads/out").is_err());
    }
}
