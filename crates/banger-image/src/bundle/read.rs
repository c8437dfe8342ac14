//! A bundle is read: in a confined process, because its bytes are anybody's.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use banger_model::limits::MAX_DISK_BYTES;
use tar::{Archive, Entries, Entry, EntryType, PaxExtensions};
use zstd::stream::read::Decoder;

use super::error::{BundleError, shown};
use super::manifest::MAX_MANIFEST;
use super::{
    BLOCK, CONFIG, ImageManifest, KernelManifest, MANIFEST, MODULES, Manifest, PIECE, ROOTFS, VMLINUX,
    extents,
};
use crate::kernel::{MAX_CONFIG, MAX_KERNEL, MAX_UNPACKED};

/// Bytes of the extended headers of one member.
const MAX_HEADERS: u64 = 64 << 10;
/// What other programs pad an archive to, in bytes.
const MAX_PADDING: u64 = 1 << 20;
/// The caller is asked at least once for so many bytes of content: a few bytes of a bundle may
/// be gigabytes of it, and the disk must not be full before somebody looks.
const CHECK: u64 = 16 << 20;
/// The window that a decoder keeps in memory at most: 128 MiB.
const WINDOW_LOG: u32 = 27;

/// To what a bundle may unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file system, holes included.
    pub size: u64,
    /// Bytes that are in the bundle, uncompressed.
    pub data: u64,
    /// How many times the bundle's own bytes; looked at from [`Limits::RATIO_FROM`] on.
    pub ratio: u64,
}

impl Limits {
    /// Few bytes may well be a few zeros: below this the ratio says nothing.
    pub const RATIO_FROM: u64 = 64 << 20;

    /// Whether so many bytes may come out of so many.
    pub(super) fn check(&self, unpacked: u64, packed: u64) -> Result<(), BundleError> {
        if unpacked > self.data {
            return Err(BundleError::TooLarge {
                member: "content",
                limit: self.data,
            });
        }
        if unpacked > Self::RATIO_FROM && unpacked / self.ratio > packed {
            return Err(BundleError::Ratio(self.ratio));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            size: MAX_DISK_BYTES,
            // The content of an image's layers, and the file system around it.
            data: 72 << 30,
            ratio: 200,
        }
    }
}

/// Unpacks a bundle into an empty file: an image's file system with its holes; or a kernel's
/// `vmlinux`, `config` and `modules.tar`, one after the other as long as the manifest says.
/// `check` is called with the bytes of the bundle that were read, at least once for each 16 MiB
/// of content, and may stop it.
///
/// # Errors
/// What is wrong with the bundle; the file has something of it then, and is of no use.
pub fn read(
    bundle: impl Read,
    target: &File,
    limits: &Limits,
    check: impl FnMut(u64) -> io::Result<()>,
) -> Result<Manifest, BundleError> {
    let counted = Counted {
        bundle,
        read: 0,
        check,
    };
    let buffered = BufReader::with_capacity(PIECE, counted);
    let mut decoder = Decoder::with_buffer(buffered).map_err(BundleError::Read)?;
    decoder.window_log_max(WINDOW_LOG).map_err(BundleError::Read)?;
    let mut archive = Archive::new(Bounded {
        decoder,
        read: 0,
        checked: 0,
        limits: *limits,
    });
    let mut members = Members(archive.entries().map_err(BundleError::reading)?.raw(true));
    let manifest = Manifest::parse(&members.manifest()?)?;
    match &manifest {
        Manifest::Image(image) => read_rootfs(&mut members, image, target, limits)?,
        Manifest::Kernel(kernel) => read_kernel(&mut members, kernel, target)?,
    }
    if members.next(None)?.is_some() {
        return Err(BundleError::Trailing);
    }
    nothing_left(archive.into_inner())?;
    Ok(manifest)
}

fn read_rootfs<R: Read>(
    members: &mut Members<'_, R>,
    manifest: &ImageManifest,
    target: &File,
    limits: &Limits,
) -> Result<(), BundleError> {
    if manifest.size > limits.size {
        return Err(BundleError::TooLarge {
            member: ROOTFS,
            limit: limits.size,
        });
    }
    let mut member = members.expect(ROOTFS)?;
    let size = member.sparse.unwrap_or(member.stored);
    same_size(ROOTFS, manifest.size, size)?;
    target.set_len(size).map_err(BundleError::Write)?;
    if member.sparse.is_none() {
        return copy(&mut member.entry, size, target, 0);
    }
    for extent in extents::decode(&mut member.entry, member.stored, size)? {
        copy(&mut member.entry, extent.len, target, extent.start)?;
    }
    Ok(())
}

fn read_kernel<R: Read>(
    members: &mut Members<'_, R>,
    manifest: &KernelManifest,
    target: &File,
) -> Result<(), BundleError> {
    let mut at = 0;
    for (name, bytes, limit) in [
        (VMLINUX, Some(manifest.vmlinux), MAX_KERNEL),
        (CONFIG, manifest.config, MAX_CONFIG),
        (MODULES, manifest.modules, MAX_UNPACKED),
    ] {
        let Some(bytes) = bytes else { continue };
        if bytes > limit {
            return Err(BundleError::TooLarge { member: name, limit });
        }
        let mut member = members.expect(name)?;
        same_size(name, bytes, member.sparse.unwrap_or(member.stored))?;
        if member.sparse.is_some() {
            return Err(BundleError::NotAFile(name));
        }
        copy(&mut member.entry, bytes, target, at)?;
        at += bytes;
    }
    Ok(())
}

fn same_size(member: &'static str, said: u64, found: u64) -> Result<(), BundleError> {
    if said == found {
        Ok(())
    } else {
        Err(BundleError::Size { member, said, found })
    }
}

fn copy(from: &mut impl Read, len: u64, to: &File, mut at: u64) -> Result<(), BundleError> {
    let mut piece = vec![0; usize::try_from(len).map_or(PIECE, |len| len.min(PIECE))];
    let end = at + len;
    while at < end {
        let len = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
        from.read_exact(&mut piece[..len]).map_err(BundleError::reading)?;
        to.write_all_at(&piece[..len], at).map_err(BundleError::Write)?;
        at += len as u64;
    }
    Ok(())
}

/// After the last member there are zeros alone, and not many.
fn nothing_left(mut rest: impl Read) -> Result<(), BundleError> {
    let mut piece = vec![0; BLOCK];
    let mut left = MAX_PADDING;
    loop {
        let read = rest.read(&mut piece).map_err(BundleError::reading)?;
        if read == 0 {
            return Ok(());
        }
        left = left.saturating_sub(read as u64);
        if left == 0 || piece[..read].iter().any(|&byte| byte != 0) {
            return Err(BundleError::Trailing);
        }
    }
}

/// The members of an archive, with the extended headers in front of them.
struct Members<'a, R: Read>(Entries<'a, R>);

struct Member<'a, R: Read> {
    name: Vec<u8>,
    entry: Entry<'a, R>,
    /// Bytes in the archive.
    stored: u64,
    /// Bytes with holes, of a member that has a map.
    sparse: Option<u64>,
}

impl<'a, R: Read> Members<'a, R> {
    fn manifest(&mut self) -> Result<Vec<u8>, BundleError> {
        let member = self.expect(MANIFEST)?;
        if member.sparse.is_some() {
            return Err(BundleError::NotAFile(MANIFEST));
        }
        if member.stored > MAX_MANIFEST {
            return Err(BundleError::TooLarge {
                member: MANIFEST,
                limit: MAX_MANIFEST,
            });
        }
        contents(member.entry, member.stored)
    }

    fn expect(&mut self, expected: &'static str) -> Result<Member<'a, R>, BundleError> {
        let member = self.next(Some(expected))?;
        let member = member.ok_or(BundleError::Missing(expected))?;
        if member.name != expected.as_bytes() {
            return Err(BundleError::Member {
                found: shown(&member.name),
                expected,
            });
        }
        if !matches!(member.entry.header().entry_type(), EntryType::Regular) {
            return Err(BundleError::NotAFile(expected));
        }
        Ok(member)
    }

    /// The next member, whose headers are looked at when there should be one.
    fn next(&mut self, expected: Option<&'static str>) -> Result<Option<Member<'a, R>>, BundleError> {
        let Some(mut entry) = self.0.next().transpose().map_err(BundleError::reading)? else {
            return Ok(None);
        };
        let mut extended = Extended::default();
        if entry.header().entry_type().is_pax_local_extensions() && expected.is_some() {
            let stored = entry.header().entry_size().map_err(BundleError::Read)?;
            if stored > MAX_HEADERS {
                return Err(BundleError::Headers);
            }
            extended = Extended::parse(&contents(entry, stored)?)?;
            let next = self.0.next().transpose().map_err(BundleError::reading)?;
            entry = next.ok_or(BundleError::Headers)?;
        }
        let stored = entry.header().entry_size().map_err(BundleError::Read)?;
        let name = entry.header().path_bytes().into_owned();
        let (name, sparse) = match (extended.name, extended.size, extended.version) {
            (Some(sparse), Some(size), (Some(1), Some(0))) => (sparse, Some(size)),
            (None, None, (None, None)) => (name, None),
            _ => return Err(BundleError::Headers),
        };
        Ok(Some(Member {
            // As `tar -cf bundle.tar .` would say it.
            name: name.strip_prefix(b"./").map_or(name.clone(), <[u8]>::to_vec),
            entry,
            stored,
            sparse,
        }))
    }
}

fn contents(mut entry: Entry<'_, impl Read>, size: u64) -> Result<Vec<u8>, BundleError> {
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(BundleError::reading)?;
    if content.len() as u64 == size {
        Ok(content)
    } else {
        Err(BundleError::Read(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// What extended headers say about a sparse member. Times and owners, which other programs
/// write, mean nothing here.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    version: (Option<u64>, Option<u64>),
}

impl Extended {
    fn parse(text: &[u8]) -> Result<Self, BundleError> {
        let mut extended = Self::default();
        for record in PaxExtensions::new(text) {
            let record = record.map_err(|_| BundleError::Headers)?;
            let number = || {
                let digits = record
                    .value()
                    .ok()
                    .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let number = digits.and_then(|digits| digits.parse().ok());
                number.map(Some).ok_or(BundleError::Headers)
            };
            match record.key_bytes() {
                b"GNU.sparse.name" => extended.name = Some(record.value_bytes().to_vec()),
                b"GNU.sparse.realsize" => extended.size = number()?,
                b"GNU.sparse.major" => extended.version.0 = number()?,
                b"GNU.sparse.minor" => extended.version.1 = number()?,
                b"mtime" | b"atime" | b"ctime" | b"uid" | b"gid" | b"uname" | b"gname" | b"comment" => {}
                // A path, a size: what the header does not say, or says otherwise.
                _ => return Err(BundleError::Headers),
            }
        }
        Ok(extended)
    }
}

/// The bundle, with the bytes that were read of it.
struct Counted<R, C> {
    bundle: R,
    read: u64,
    check: C,
}

impl<R: Read, C: FnMut(u64) -> io::Result<()>> Read for Counted<R, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.check)(self.read)?;
        let read = self.bundle.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// What comes out of the decoder, held against what went into it.
struct Bounded<'d, R: Read, C: FnMut(u64) -> io::Result<()>> {
    decoder: Decoder<'d, BufReader<Counted<R, C>>>,
    read: u64,
    /// What had come out when the caller was asked last.
    checked: u64,
    limits: Limits,
}

impl<R: Read, C: FnMut(u64) -> io::Result<()>> Read for Bounded<'_, R, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.read += read as u64;
        let packed = self.decoder.get_ref().get_ref().read;
        self.limits.check(self.read, packed)?;
        if self.read - self.checked >= CHECK {
            self.checked = self.read;
            let counted = self.decoder.get_mut().get_mut();
            (counted.check)(counted.read)?;
        }
        Ok(read)
    }
}
