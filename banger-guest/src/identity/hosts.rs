//! `/etc/hosts`: the guest finds its own name without a resolver.

use std::io;
use std::path::Path;

use banger_model::guest::Identity;

use super::files;

/// The address of a name that has no other, Debian's convention.
const OWN: &str = "127.0.1.1";

pub(super) fn apply(root: &Path, identity: &Identity) -> io::Result<()> {
    let now = files::read_text(root, "etc/hosts")?;
    let wanted = with_own_name(&now, &identity.hostname);
    files::write(root, "etc/hosts", 0o644, wanted.as_bytes())
}

/// The user's lines, with ours for the own name in place of any other for that address, and
/// with `localhost` where nothing names it.
fn with_own_name(text: &str, name: &str) -> String {
    let names = |line: &str, wanted: &str| {
        let entry = line.split('#').next().unwrap_or_default();
        entry.split_whitespace().skip(1).any(|name| name == wanted)
    };
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| line.split_whitespace().next() != Some(OWN))
        .collect();
    if !lines.iter().any(|line| names(line, "localhost")) {
        lines.insert(0, "127.0.0.1\tlocalhost");
        lines.insert(1, "::1\tlocalhost ip6-localhost ip6-loopback");
    }
    let own = format!("{OWN}\t{name}");
    lines.push(&own);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_replace_and_the_users_stay() {
        let text = "127.0.0.1 localhost\n127.0.1.1 old.example old\n10.0.0.9 mine # beta\n";
        let once = with_own_name(text, "beta");
        assert_eq!(
            once,
            "127.0.0.1 localhost\n10.0.0.9 mine # beta\n127.0.1.1\tbeta\n"
        );
        assert_eq!(with_own_name(&once, "beta"), once);
        let renamed = with_own_name(&once, "gamma");
        assert!(renamed.ends_with("127.0.1.1\tgamma\n"));
        assert!(!renamed.contains("127.0.1.1\tbeta"));
    }

    #[test]
    fn localhost_is_always_there() {
        let made = with_own_name("", "beta");
        assert!(made.starts_with("127.0.0.1\tlocalhost\n::1\t"));
        assert_eq!(made.lines().count(), 3);
    }
}
