//! Tar archives as fuzzers need them: built from parts, taken apart without trust, and mutated
//! part by part. Bytes that are changed at random seldom get past the checksum of a header.

const BLOCK: usize = 512;
/// Two blocks of zeros: the end of an archive, and of a layer where another one follows.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Where a header (POSIX.1-2001, ustar) has its fields: offset and length.
const NAME: (usize, usize) = (0, 100);
const SIZE: (usize, usize) = (124, 12);
const SUM: (usize, usize) = (148, 8);
const TYPE: (usize, usize) = (156, 1);
const LINK: (usize, usize) = (157, 100);
const MAGIC: (usize, usize) = (257, 8);
const FIELDS: [(usize, usize); 14] = [
    NAME,
    (100, 8),
    (108, 8),
    (116, 8),
    SIZE,
    (136, 12),
    TYPE,
    LINK,
    MAGIC,
    (329, 8),
    (337, 8),
    (345, 155),
    // The map of GNU's old form of a sparse file, and the size of the whole.
    (386, 97),
    (483, 12),
];
const TYPES: &[u8] = b"\x000123456789xgLKSDMNVA";

/// A part of an archive: a header with its content, or what is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Member {
        header: Box<[u8; BLOCK]>,
        content: Vec<u8>,
    },
    End,
    /// What is left behind the last whole block.
    Rest(Vec<u8>),
}

impl Part {
    /// A member with the usual metadata.
    pub fn new(kind: u8, name: &str, content: &[u8]) -> Self {
        let mut header = Box::new([0; BLOCK]);
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(NAME.0, name.as_bytes());
        put(100, b"0000755\x000001750\x000000012\x00");
        put(136, b"14512345670\x00");
        put(TYPE.0, &[kind]);
        put(MAGIC.0, b"ustar\x0000");
        let mut part = Self::Member {
            header,
            content: content.to_vec(),
        };
        part.measure();
        part
    }

    /// A member that links to another.
    pub fn link(kind: u8, name: &str, target: &str) -> Self {
        Self::new(kind, name, b"").with(LINK.0, target.as_bytes())
    }

    /// The same with other bytes in its header.
    #[must_use]
    pub fn with(mut self, at: usize, text: &[u8]) -> Self {
        if let Self::Member { header, .. } = &mut self {
            header[at..at + text.len()].copy_from_slice(text);
        }
        self
    }

    /// An extended header (POSIX.1-2001) for the member that follows.
    pub fn records(records: &[(&str, &[u8])]) -> Self {
        let content: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key.as_bytes(), value))
            .collect();
        Self::new(b'x', "x", &content)
    }

    /// Says the size of the content in the header.
    fn measure(&mut self) {
        if let Self::Member { header, content } = self {
            let text = format!("{:011o}\0", content.len());
            header[SIZE.0..SIZE.0 + SIZE.1].copy_from_slice(text.as_bytes());
        }
    }
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Takes an archive apart; every input has parts.
pub fn parse(mut bytes: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<BLOCK>() {
        if let Some(after) = bytes.strip_prefix(&END) {
            parts.push(Part::End);
            bytes = after;
            continue;
        }
        let len = size(header).min(rest.len());
        parts.push(Part::Member {
            header: Box::new(*header),
            content: rest[..len].to_vec(),
        });
        bytes = &rest[len.next_multiple_of(BLOCK).min(rest.len())..];
    }
    if !bytes.is_empty() {
        parts.push(Part::Rest(bytes.to_vec()));
    }
    parts
}

/// The bytes of an archive, with the right checksum in every header.
pub fn build(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Member { header, content } => {
                let mut header = **header;
                header[SUM.0..SUM.0 + SUM.1].fill(b' ');
                let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
                header[SUM.0..SUM.0 + 7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
                bytes.extend_from_slice(&header);
                bytes.extend_from_slice(content);
                bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            }
            Part::End => bytes.extend_from_slice(&END),
            Part::Rest(rest) => bytes.extend_from_slice(rest),
        }
    }
    bytes
}

/// The archives of several layers that stand one behind the other.
pub fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let parts = parse(bytes);
    // Not built anew: what is wrong with a header stays.
    let mut layers = Vec::new();
    let (mut start, mut at) = (0, 0);
    for part in &parts {
        at = bytes.len().min(at + len(part));
        if *part == Part::End {
            layers.push(bytes[start..at].to_vec());
            start = at;
        }
    }
    layers.push(bytes[start..].to_vec());
    layers
}

fn len(part: &Part) -> usize {
    match part {
        Part::Member { content, .. } => BLOCK + content.len().next_multiple_of(BLOCK),
        Part::End => END.len(),
        Part::Rest(rest) => rest.len(),
    }
}

fn size(header: &[u8; BLOCK]) -> usize {
    let field = &header[SIZE.0..SIZE.0 + SIZE.1];
    let digits = field.iter().take_while(|byte| (b'0'..=b'7').contains(byte));
    digits.fold(0, |size, digit| size * 8 + usize::from(digit - b'0'))
}

/// libFuzzer's own mutation of a buffer's first bytes; returns how many there are then.
pub type Mutate<'a> = &'a mut dyn FnMut(&mut [u8], usize) -> usize;

/// Changes an archive of `size` bytes in place, to at most as many as `data` has.
pub fn mutate(data: &mut [u8], size: usize, seed: u32, bytes: Mutate<'_>) -> usize {
    let mut random = Random::new(seed);
    let mut parts = parse(&data[..size]);
    if parts.is_empty() || random.below(16) == 0 {
        return bytes(data, size);
    }
    for _ in 0..=random.below(3) {
        mutate_parts(&mut parts, &mut random, bytes);
    }
    put(data, &build(&parts))
}

/// Takes the start of one archive and the end of another.
pub fn cross(left: &[u8], right: &[u8], out: &mut [u8], seed: u32) -> usize {
    let mut random = Random::new(seed);
    let (mut parts, right) = (parse(left), parse(right));
    parts.truncate(random.below(parts.len() + 1));
    parts.extend_from_slice(&right[random.below(right.len() + 1)..]);
    put(out, &build(&parts))
}

fn put(out: &mut [u8], bytes: &[u8]) -> usize {
    let len = bytes.len().min(out.len());
    out[..len].copy_from_slice(&bytes[..len]);
    len
}

fn mutate_parts(parts: &mut Vec<Part>, random: &mut Random, bytes: Mutate<'_>) {
    let at = random.below(parts.len());
    let to = random.below(parts.len() + 1);
    match random.below(16) {
        0..=4 => mutate_content(&mut parts[at], random, bytes),
        5..=8 => mutate_header(&mut parts[at], random, bytes),
        9 => copy_name(parts, at, random),
        10 | 11 => parts.insert(to, parts[at].clone()),
        12 => {
            let last = parts.len() - 1;
            parts.swap(at, to.min(last));
        }
        13 if parts.len() > 1 => {
            parts.remove(at);
        }
        14 => parts.insert(to, Part::End),
        _ => parts.insert(to, template(random)),
    }
}

fn mutate_content(part: &mut Part, random: &mut Random, bytes: Mutate<'_>) {
    let Part::Member { header, content } = part else {
        return;
    };
    let is_records = [b'x', b'g'].contains(&header[TYPE.0]) && random.below(8) != 0;
    let mut records = if is_records {
        split_records(content)
    } else {
        Vec::new()
    };
    if records.is_empty() {
        grow(content, bytes);
    } else {
        let which = random.below(records.len());
        match random.below(6) {
            0 => records.push((b"path".to_vec(), b"a".to_vec())),
            1 => {
                records.remove(which);
            }
            2 => grow(&mut records[which].0, bytes),
            3 => records[which].0 = random.pick(KEYS).to_vec(),
            _ => grow(&mut records[which].1, bytes),
        }
        *content = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
    }
    // A header that lies about its content may end there.
    if random.below(8) != 0 {
        part.measure();
    }
}

fn grow(content: &mut Vec<u8>, bytes: Mutate<'_>) {
    let len = content.len();
    content.resize(len + len / 2 + 64, 0);
    let len = bytes(content, len);
    content.truncate(len);
}

fn split_records(mut text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    while let Some((record, rest)) = first_record(text) {
        let mut halves = record.splitn(2, |&byte| byte == b'=');
        let mut half = || halves.next().unwrap_or_default().to_vec();
        records.push((half(), half()));
        text = rest;
    }
    records
}

fn first_record(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|&byte| byte == b' ')?;
    let len = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    let record = text.get(space + 1..len)?.strip_suffix(b"\n")?;
    Some((record, &text[len..]))
}

fn mutate_header(part: &mut Part, random: &mut Random, bytes: Mutate<'_>) {
    let Part::Member { header, .. } = part else {
        return;
    };
    match random.below(8) {
        0 | 1 => header[TYPE.0] = random.pick(TYPES),
        2 | 3 => name(&mut header[NAME.0..NAME.0 + NAME.1], random),
        4 => name(&mut header[LINK.0..LINK.0 + LINK.1], random),
        5 => {
            let forms: [&[u8]; 3] = [b"ustar\x0000", b"ustar  \x00", b"\0\0\0\0\0\0\0\0"];
            header[MAGIC.0..MAGIC.0 + MAGIC.1].copy_from_slice(random.pick(&forms));
        }
        _ => {
            let (start, len) = random.pick(&FIELDS);
            bytes(&mut header[start..start + len], len);
        }
    }
}

fn name(field: &mut [u8], random: &mut Random) {
    let prefix = if random.below(2) == 0 {
        random.pick(NAMES)
    } else {
        b""
    };
    let text = [prefix, random.pick(NAMES)].concat();
    field.fill(0);
    field[..text.len()].copy_from_slice(&text);
}

/// One member gets another's name, as its own or as its target.
fn copy_name(parts: &mut [Part], at: usize, random: &mut Random) {
    let other = &parts[random.below(parts.len())];
    let Part::Member { header: other, .. } = other.clone() else {
        return;
    };
    let Part::Member { header, .. } = &mut parts[at] else {
        return;
    };
    let field = if random.below(2) == 0 { NAME } else { LINK };
    header[field.0..field.0 + field.1].copy_from_slice(&other[NAME.0..NAME.0 + NAME.1]);
}

fn template(random: &mut Random) -> Part {
    let name = std::str::from_utf8(random.pick(NAMES)).unwrap_or("a");
    match random.below(6) {
        0 => Part::new(b'0', name, b"text"),
        1 => Part::new(b'5', name, b""),
        2 => Part::link(b'2', name, "../a"),
        3 => Part::link(b'1', name, "a"),
        4 => Part::new(b'L', "././@LongLink", &[name.as_bytes(), b"\0"].concat()),
        _ => Part::records(&[("path", name.as_bytes()), ("SCHILY.xattr.user.a", b"b")]),
    }
}

const NAMES: &[&[u8]] = &[
    b"",
    b"a",
    b"b",
    b"a/",
    b"a/b",
    b"/",
    b"./",
    b"../",
    b"..",
    b".",
    b".wh.",
    b".wh.a",
    b"a/.wh.b",
    b".wh..wh..opq",
    b".wh..",
    b".wh...",
    b"dir/",
    b"dir/.wh..wh..opq",
    b"\xff",
];
const KEYS: &[&[u8]] = &[
    b"path",
    b"linkpath",
    b"uid",
    b"gid",
    b"size",
    b"mtime",
    b"SCHILY.xattr.user.x",
    b"SCHILY.xattr.security.capability",
    b"SCHILY.xattr.trusted.x",
    b"GNU.sparse.major",
    b"GNU.sparse.minor",
    b"GNU.sparse.name",
    b"GNU.sparse.realsize",
    b"GNU.sparse.size",
    b"GNU.sparse.numblocks",
    b"GNU.sparse.offset",
    b"GNU.sparse.numbytes",
    b"GNU.sparse.map",
];

/// The same choices for the same seed (xorshift).
struct Random(u64);

impl Random {
    fn new(seed: u32) -> Self {
        Self((u64::from(seed) << 1 | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Less than `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Part> {
        vec![
            Part::records(&[("path", b"dir/x"), ("uid", b"7")]),
            Part::new(b'0', "y", &[7; 700]),
            Part::End,
            Part::link(b'2', "z", "y"),
            Part::End,
        ]
    }

    #[test]
    fn archives_are_taken_apart_and_put_together() {
        let bytes = build(&sample());
        assert_eq!(build(&parse(&bytes)), bytes);
        let layers = split(&bytes);
        assert_eq!(layers.concat(), bytes);
        assert_eq!(layers.iter().map(Vec::len).collect::<Vec<_>>(), [3584, 1536, 0]);
        for len in 0..bytes.len() {
            assert_eq!(split(&bytes[..len]).concat(), bytes[..len]);
        }
    }

    #[test]
    fn records_count_themselves() {
        assert_eq!(record(b"a", b"b"), b"6 a=b\n");
        assert_eq!(record(b"abc", b"123"), b"11 abc=123\n");
        assert_eq!(record(b"a", &[b'x'; 93]).len(), 99);
        assert_eq!(record(b"a", &[b'x'; 94]).len(), 101);
        let both = [record(b"path", b"a=b\n"), record(b"", b"")].concat();
        let parts = [(b"path".to_vec(), b"a=b\n".to_vec()), (vec![], vec![])];
        assert_eq!(split_records(&both), parts);
        for bad in [&b"5 "[..], b"1 a", b"2 a", b"9999999 a=b\n", b" ", b"3 \n"] {
            split_records(bad);
        }
    }

    #[test]
    fn what_is_mutated_stays_an_archive() {
        let start = build(&sample());
        let mut data = vec![0; 1 << 16];
        let mut flip = |bytes: &mut [u8], len: usize| {
            if let Some(byte) = bytes[..len].last_mut() {
                *byte ^= 0x55;
            }
            len
        };
        for seed in 0..5000 {
            data[..start.len()].copy_from_slice(&start);
            let len = mutate(&mut data, start.len(), seed, &mut flip);
            let mut again = data.clone();
            let len = mutate(&mut again, len, !seed, &mut flip);
            let mut out = vec![0; 3000];
            assert!(cross(&start, &again[..len], &mut out, seed) <= out.len());
        }
    }
}
