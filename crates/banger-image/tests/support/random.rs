//! Layers from a seed, the same on every machine.

use std::collections::BTreeMap;

use super::layer::{Head, Layer};

pub struct Random {
    state: u64,
    /// What the layers so far make, near enough to choose names from.
    tree: BTreeMap<String, u8>,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            tree: BTreeMap::new(),
        }
    }

    /// Two to five layers.
    pub fn stack(&mut self) -> Vec<Vec<u8>> {
        (0..2 + self.below(4)).map(|_| self.layer()).collect()
    }

    fn layer(&mut self) -> Vec<u8> {
        let mut layer = Layer::new();
        let before = self.tree.clone();
        let mut own: Vec<String> = Vec::new();
        for _ in 0..4 + self.below(20) {
            layer = match self.below(10) {
                0 | 1 => self.hide(layer, &before, &own),
                2 => self.opaque(layer, &own),
                _ => self.add(layer, &mut own),
            };
        }
        layer.end()
    }

    fn add(&mut self, layer: Layer, own: &mut Vec<String>) -> Layer {
        let mut path = self.directory();
        if self.below(8) == 0 {
            // Its own directory is not described.
            path += &format!("i{}/", self.below(3));
            if self.tree.contains_key(path.trim_end_matches('/')) {
                return layer;
            }
            self.tree.insert(path.trim_end_matches('/').to_owned(), b'5');
            own.push(path.trim_end_matches('/').to_owned());
        }
        path += &self.name();
        let kind = [b'0', b'0', b'5', b'5', b'2', b'1', b'6', b'0'][self.below(8) as usize];
        let head = Head {
            mode: 0o600 + self.below(0o200) as u32,
            uid: self.below(3) as u32 * 1000,
            gid: self.below(100_000) as u32,
            mtime: 1_500_000_000 + self.below(1 << 27),
            ..Head::new(kind, &path)
        };
        let layer = match kind {
            b'0' => {
                let len = [0, 5, 70, 5000, 9000][self.below(5) as usize];
                let byte = self.below(256) as u8;
                layer.entry(&head.size(len as u64), vec![byte; len])
            }
            b'2' => {
                let target = ["/", "../", "", "./x/../"][self.below(4) as usize].to_owned() + &self.name();
                layer.entry(&head.link(target), "")
            }
            b'1' => {
                let files: Vec<&String> = self
                    .tree
                    .iter()
                    .filter(|(_, k)| **k == b'0')
                    .map(|(p, _)| p)
                    .collect();
                let Some(&target) = files.get((self.state >> 33) as usize % files.len().max(1)) else {
                    return layer;
                };
                // A link in the place of what it links to is no archive that anybody writes.
                if *target == path || target.starts_with(&format!("{path}/")) {
                    return layer;
                }
                let target = target.clone();
                layer.entry(&head.link(target), "")
            }
            _ => layer.entry(&head, ""),
        };
        if kind != b'5' || self.tree.get(&path) != Some(&b'5') {
            self.forget(&path);
        }
        self.tree
            .insert(path.clone(), if kind == b'1' { b'0' } else { kind });
        own.push(path);
        layer
    }

    /// Hides what a lower layer has, if [`is_described`] says that umoci does the same.
    fn hide(&mut self, layer: Layer, before: &BTreeMap<String, u8>, own: &[String]) -> Layer {
        let Some(path) = self.pick(before.keys().cloned().collect()) else {
            return layer;
        };
        let below = format!("{path}/");
        if own.contains(&path) {
            if !is_described(&below, own) {
                return layer;
            }
            self.forget_lower(&below, own);
        } else {
            if own.iter().any(|other| other.starts_with(&below)) {
                return layer;
            }
            self.forget(&path);
        }
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let slash = if dir.is_empty() { "" } else { "/" };
        layer.file(format!("{dir}{slash}.wh.{name}"), "")
    }

    fn opaque(&mut self, layer: Layer, own: &[String]) -> Layer {
        let dir = self.directory();
        if dir.is_empty() || !is_described(&dir, own) {
            return layer;
        }
        self.forget_lower(&dir, own);
        layer.file(dir + ".wh..wh..opq", "")
    }

    fn forget(&mut self, path: &str) {
        let below = format!("{path}/");
        self.tree
            .retain(|other, _| other != path && !other.starts_with(&below));
    }

    fn forget_lower(&mut self, below: &str, own: &[String]) {
        self.tree
            .retain(|other, _| !other.starts_with(below) || own.contains(other));
    }

    /// A directory that is there, with a slash, or the root.
    fn directory(&mut self) -> String {
        let all = self
            .tree
            .iter()
            .filter(|(_, kind)| **kind == b'5')
            .map(|(path, _)| format!("{path}/"));
        let all: Vec<String> = all.chain([String::new()]).collect();
        self.pick(all).unwrap_or_default()
    }

    fn pick(&mut self, from: Vec<String>) -> Option<String> {
        let at = self.below(from.len().max(1) as u64) as usize;
        from.into_iter().nth(at)
    }

    fn name(&mut self) -> String {
        ["a", "b", "c", "dd", "e with space", "\u{e9}"][self.below(6) as usize].to_owned()
    }

    /// SplitMix64.
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Whether a layer describes all directories between `dir` and what it has below. Of the
/// others umoci keeps what lower layers said; here they are as if they had been missing, so
/// that the order in the layer does not count.
fn is_described(dir: &str, own: &[String]) -> bool {
    own.iter()
        .filter_map(|path| path.strip_prefix(dir)?.rsplit_once('/'))
        .all(|(parents, _)| {
            let mut at = dir.to_owned();
            parents.split('/').all(|name| {
                at += name;
                let described = own.contains(&at);
                at.push('/');
                described
            })
        })
}
