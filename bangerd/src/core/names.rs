//! Names for VMs that nobody named: an adjective and a noun, easy to say and to type.

const ADJECTIVES: [&str; 48] = [
    "able", "amber", "apt", "bold", "brave", "brisk", "calm", "clear", "cosy", "crisp", "deft", "eager",
    "early", "fair", "fond", "frank", "fresh", "glad", "grand", "happy", "hardy", "jolly", "keen", "kind",
    "light", "lively", "lucid", "mellow", "merry", "mild", "neat", "noble", "plain", "proud", "quick",
    "quiet", "ready", "sage", "sharp", "silver", "sound", "spry", "steady", "sunny", "swift", "tidy", "warm",
    "wise",
];
const NOUNS: [&str; 48] = [
    "alder", "badger", "beech", "birch", "brook", "cedar", "crane", "dale", "elder", "falcon", "fern",
    "finch", "fjord", "fox", "glade", "grove", "hare", "hawk", "hazel", "heron", "ibis", "juniper",
    "kestrel", "larch", "lark", "linden", "lynx", "maple", "marten", "meadow", "moor", "oak", "osprey",
    "otter", "owl", "pine", "plover", "raven", "reed", "robin", "rowan", "seal", "spruce", "stork", "swan",
    "thrush", "willow", "wren",
];
/// How often a taken name is drawn again before a number is added.
const TRIES: u64 = 16;

/// A name that `taken` does not know. `seed` is random, so that two daemons differ.
pub(crate) fn generate(seed: u64, taken: impl Fn(&str) -> bool) -> String {
    let mut name = draw(seed);
    for attempt in 1..TRIES {
        if !taken(&name) {
            return name;
        }
        // Any odd multiplier reaches every pair.
        name = draw(seed.wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    (2_u64..)
        .map(|number| format!("{name}-{number}"))
        .find(|name| !taken(name))
        .unwrap_or(name)
}

fn draw(seed: u64) -> String {
    let pick = |list: &'static [&'static str], bits: u64| {
        let index = usize::try_from(bits % list.len() as u64).unwrap_or(0);
        list[index]
    };
    format!(
        "{}-{}",
        pick(&ADJECTIVES, seed >> 32),
        pick(&NOUNS, seed & 0xffff_ffff)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use banger_model::VmName;

    use super::*;

    #[test]
    fn names_are_valid_and_never_given_twice() {
        let mut given = HashSet::new();
        // More names than pairs with one seed: numbers must come.
        for seed in 0..3000 {
            let name = generate(seed % 7, |name| given.contains(name));
            assert!(name.parse::<VmName>().is_ok(), "{name}");
            assert!(given.insert(name));
        }
    }

    #[test]
    fn the_words_differ() {
        for list in [ADJECTIVES, NOUNS] {
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len());
        }
    }
}
