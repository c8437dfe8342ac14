//! Whether a symbolic link stays in the tree that it came with.

/// Whether a link in a directory `depth` levels below the tree's top can lead nowhere but into
/// the tree, as long as its other links do so too and its directories are real ones.
///
/// `..` may stand only at the start: after a name, which may be a link itself, it leads nobody
/// knows where.
pub(crate) fn is_inward(target: &[u8], depth: usize) -> bool {
    if target.is_empty() || target[0] == b'/' {
        return false;
    }
    let mut up = 0;
    let mut named = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named => return false,
            b".." => up += 1,
            _ => named = true,
        }
    }
    up <= depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_may_climb_to_the_top_and_no_further() {
        for (target, depth) in [
            ("a", 0),
            ("./a/b", 0),
            ("../a", 1),
            ("../..", 2),
            (".././../a", 2),
        ] {
            assert!(is_inward(target.as_bytes(), depth), "{target}");
        }
        for (target, depth) in [
            ("", 3),
            ("/etc/passwd", 3),
            ("..", 0),
            ("../../a", 1),
            // `a` may be a link to the top: above it is the outside.
            ("a/..", 3),
            ("../a/../b", 3),
        ] {
            assert!(!is_inward(target.as_bytes(), depth), "{target}");
        }
    }
}
