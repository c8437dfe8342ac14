//! Archives that no careful writer makes.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use banger_image::{Cancel, NoProgress, image};
use tar::{Archive, EntryType, Header};

use crate::fixture::Machine;

/// A member as it stands in an archive.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) header: Header,
    pub(crate) content: Vec<u8>,
}

impl Raw {
    pub(crate) fn file(name: &str, content: &[u8]) -> Self {
        Self::of(name, EntryType::Regular, content)
    }

    pub(crate) fn of(name: &str, kind: EntryType, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        // Names that a careful writer refuses are the point here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        Self {
            header,
            content: content.to_vec(),
        }
    }

    pub(crate) fn pax(records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while rest + len.to_string().len() != len {
                len += 1;
            }
            text += &format!("{len} {key}={value}\n");
        }
        Self::of("pax", EntryType::XHeader, text.as_bytes())
    }
}

pub(crate) fn tar(members: &[Raw]) -> Vec<u8> {
    let mut archive = Vec::new();
    for member in members {
        archive.extend_from_slice(member.header.as_bytes());
        archive.extend_from_slice(&member.content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

pub(crate) fn pack(archive: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(archive).unwrap();
    encoder.finish().unwrap()
}

/// The members of a good bundle.
pub(crate) fn unpack(file: &Path) -> Vec<Raw> {
    let archive = zstd::decode_all(fs::File::open(file).unwrap()).unwrap();
    let mut archive = Archive::new(&archive[..]);
    let entries = archive.entries().unwrap().raw(true);
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            Raw {
                header: entry.header().clone(),
                content,
            }
        })
        .collect()
}

/// An image's bundle in its parts, to be put together otherwise.
pub(crate) struct Parts {
    pub(crate) manifest: Raw,
    pub(crate) pax: Raw,
    pub(crate) rootfs: Raw,
}

impl Parts {
    pub(crate) fn new() -> Self {
        let machine = Machine::new();
        let image = machine.image("a");
        let file = machine.path("a.tar.zst");
        image::export(
            &machine.images(),
            &image.name,
            &file,
            false,
            &NoProgress,
            &Cancel::new(),
        )
        .unwrap();
        let [manifest, pax, rootfs] = &unpack(&file)[..] else {
            panic!("another form");
        };
        Self {
            manifest: manifest.clone(),
            pax: pax.clone(),
            rootfs: rootfs.clone(),
        }
    }

    pub(crate) fn all(&self) -> Vec<Raw> {
        vec![self.manifest.clone(), self.pax.clone(), self.rootfs.clone()]
    }

    /// The good ones, and these after them.
    pub(crate) fn and(&self, more: &[Raw]) -> Vec<u8> {
        pack(&tar(&[&self.all()[..], more].concat()))
    }

    pub(crate) fn manifest(&self) -> String {
        String::from_utf8(self.manifest.content.clone()).unwrap()
    }

    pub(crate) fn size(&self) -> u64 {
        let manifest: serde_json::Value = serde_json::from_str(&self.manifest()).unwrap();
        manifest["size"].as_u64().unwrap()
    }

    /// With another manifest.
    pub(crate) fn saying(&self, manifest: &str) -> Vec<u8> {
        let manifest = Raw::file("manifest.json", manifest.as_bytes());
        pack(&tar(&[manifest, self.pax.clone(), self.rootfs.clone()]))
    }

    pub(crate) fn changed(&self, from: &str, to: &str) -> Vec<u8> {
        let text = self.manifest();
        assert!(text.contains(from), "{text}");
        self.saying(&text.replace(from, to))
    }

    /// With another root file system.
    pub(crate) fn with(&self, rootfs: &[Raw]) -> Vec<u8> {
        pack(&tar(&[&[self.manifest.clone()][..], rootfs].concat()))
    }

    /// With another map in front of this data.
    pub(crate) fn mapped(&self, map: &str, data: &[u8]) -> Vec<u8> {
        let mut content = map.as_bytes().to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend_from_slice(data);
        self.with(&[
            self.pax.clone(),
            Raw::file("GNUSparseFile.0/rootfs.ext4", &content),
        ])
    }

    pub(crate) fn sparse(&self, records: &[(&str, &str)]) -> Vec<u8> {
        self.with(&[Raw::pax(records), self.rootfs.clone()])
    }
}
