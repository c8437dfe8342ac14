//! Archives as hostile programs write them: every field can be what it must not be.

/// The header of an entry, in the form of ustar.
#[derive(Debug, Clone)]
pub struct Head {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub size: u64,
    pub link: Vec<u8>,
    pub device: (u32, u32),
    /// Bytes written over the finished header, before its checksum is made.
    pub patches: Vec<(usize, Vec<u8>)>,
}

impl Head {
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            kind,
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            size: 0,
            link: Vec::new(),
            device: (0, 0),
            patches: Vec::new(),
        }
    }

    pub fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        self.link = target.as_ref().to_vec();
        self
    }

    pub fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    pub fn patch(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patches.push((at, bytes.as_ref().to_vec()));
        self
    }

    /// Of the old GNU form, without POSIX's prefix.
    pub fn gnu(self) -> Self {
        self.patch(257, b"ustar  \0")
    }

    pub fn bytes(&self) -> [u8; 512] {
        let mut raw = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        for (at, id) in [(108, self.uid), (116, self.gid)] {
            if id < 1 << 21 {
                put(at, format!("{id:07o}").as_bytes());
            } else {
                put(at, &[0x80, 0, 0, 0]);
                put(at + 4, &id.to_be_bytes());
            }
        }
        put(124, format!("{:011o}", self.size).as_bytes());
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        for (at, bytes) in &self.patches {
            put(*at, bytes);
        }
        let sum: u32 = raw[..148].iter().chain(&raw[156..]).map(|&b| u32::from(b)).sum();
        let text = format!("{:06o}\0 ", sum + 8 * 32);
        raw[148..156].copy_from_slice(text.as_bytes());
        raw
    }
}

/// An archive in the making.
#[derive(Debug, Clone, Default)]
pub struct Layer(pub Vec<u8>);

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    /// An entry; names and targets that are too long for the header go into records before it.
    pub fn entry(mut self, head: &Head, content: impl AsRef<[u8]>) -> Self {
        let mut records: Vec<(&str, &[u8])> = Vec::new();
        if head.name.len() > 100 {
            records.push(("path", &head.name));
        }
        if head.link.len() > 100 {
            records.push(("linkpath", &head.link));
        }
        if !records.is_empty() {
            self = self.pax(&records);
        }
        self.raw(&head.bytes(), content)
    }

    /// Any header, and content filled up to whole blocks.
    pub fn raw(mut self, header: &[u8], content: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(header);
        self.0.extend_from_slice(content.as_ref());
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(&Head::new(b'5', name), "")
    }

    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let size = content.as_ref().len() as u64;
        self.entry(&Head::new(b'0', name).size(size), content)
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(&Head::new(b'2', name).link(target), "")
    }

    pub fn hard(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(&Head::new(b'1', name).link(target), "")
    }

    pub fn fifo(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(&Head::new(b'6', name), "")
    }

    /// Records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.described(b'x', &pax_records(records))
    }

    /// A header of a kind that describes other entries.
    pub fn described(self, kind: u8, text: &[u8]) -> Self {
        self.raw(
            &Head::new(kind, "described").size(text.len() as u64).bytes(),
            text,
        )
    }

    /// With the blocks that end an archive.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Records as POSIX has them: each says its own length.
pub fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        text.extend_from_slice(format!("{len} {key}=").as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
}
