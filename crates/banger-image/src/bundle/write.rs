//! A bundle is written.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::FileExt;

use tar::{Builder, EntryType, Header};
use zstd::stream::write::Encoder;

use super::error::BundleError;
use super::extents::{self, Extent};
use super::{CONFIG, MANIFEST, MODULES, Manifest, ROOTFS, Tree, VMLINUX};

/// 6 % smaller than by the default, at 70 MB/s: higher levels take much longer than they save.
const LEVEL: i32 = 6;
/// Where a sparse member's header says it is; a tar without this format would put the map and
/// the data there.
const SPARSE_ROOTFS: &str = "GNUSparseFile.0/rootfs.ext4";

/// What goes into a bundle beside its manifest, which has the sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    Image {
        rootfs: &'a File,
        size: u64,
    },
    Kernel {
        vmlinux: &'a File,
        config: Option<&'a File>,
        modules: Option<&'a Tree>,
    },
}

/// Writes a bundle, and returns the bytes that come out of it. `check` is called with the part
/// that is done, 0 to 1, and may stop it.
pub(crate) fn write(
    manifest: &Manifest,
    content: Content<'_>,
    out: impl Write,
    mut check: impl FnMut(f64) -> io::Result<()>,
) -> Result<u64, BundleError> {
    let json = manifest.to_json()?;
    let mut encoder = Encoder::new(out, LEVEL).map_err(BundleError::Write)?;
    encoder.include_checksum(true).map_err(BundleError::Write)?;
    let mut archive = Builder::new(Counted {
        out: encoder,
        written: 0,
    });
    let created = manifest.created();
    append(&mut archive, MANIFEST, json.len() as u64, created, &json[..])?;
    match content {
        Content::Image { rootfs, size } => write_rootfs(&mut archive, rootfs, size, created, &mut check)?,
        Content::Kernel {
            vmlinux,
            config,
            modules,
        } => {
            let Manifest::Kernel(said) = manifest else {
                return Err(BundleError::Manifest("it is not a kernel's".to_owned()));
            };
            append(&mut archive, VMLINUX, said.vmlinux, created, vmlinux)?;
            check(0.2).map_err(BundleError::reading)?;
            if let (Some(config), Some(bytes)) = (config, said.config) {
                append(&mut archive, CONFIG, bytes, created, config)?;
            }
            if let (Some(modules), Some(bytes)) = (modules, said.modules) {
                write_modules(&mut archive, modules, bytes, created, &mut check)?;
            }
        }
    }
    let counted = archive.into_inner().map_err(BundleError::Write)?;
    let mut out = counted.out.finish().map_err(BundleError::Write)?;
    out.flush().map_err(BundleError::Write)?;
    Ok(counted.written)
}

fn write_rootfs<W: Write>(
    archive: &mut Builder<W>,
    rootfs: &File,
    size: u64,
    created: u64,
    check: &mut impl FnMut(f64) -> io::Result<()>,
) -> Result<(), BundleError> {
    let extents = extents::find(rootfs, size, |_| check(0.0))?;
    let map = extents::encode(&extents, size);
    let data: u64 = extents.iter().map(|extent| extent.len).sum();
    let size = size.to_string();
    archive
        .append_pax_extensions([
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", ROOTFS.as_bytes()),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .map_err(BundleError::reading)?;
    let stored = map.len() as u64 + data;
    let pieces = Pieces {
        file: rootfs,
        extents: extents.iter(),
        current: Extent { start: 0, len: 0 },
        done: 0,
        total: data,
        check,
    };
    append(
        archive,
        SPARSE_ROOTFS,
        stored,
        created,
        Cursor::new(map).chain(pieces),
    )
}

fn write_modules<W: Write>(
    archive: &mut Builder<W>,
    modules: &Tree,
    bytes: u64,
    created: u64,
    check: &mut impl FnMut(f64) -> io::Result<()>,
) -> Result<(), BundleError> {
    let header = header(MODULES, bytes, created).map_err(BundleError::Write)?;
    let out = archive.get_mut();
    out.write_all(header.as_bytes()).map_err(BundleError::Write)?;
    let mut done = 0;
    let progress = |written: u64| {
        done += written;
        check(done as f64 / bytes as f64)
    };
    // Whole blocks, as every archive: nothing is left to pad.
    modules.write(out, progress).map_err(BundleError::reading)
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    name: &str,
    size: u64,
    created: u64,
    content: impl Read,
) -> Result<(), BundleError> {
    let header = header(name, size, created).map_err(BundleError::Write)?;
    let mut content = Exact { content, left: size };
    archive
        .append(&header, &mut content)
        .map_err(BundleError::reading)
}

fn header(name: &str, size: u64, created: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(created);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

/// Counts what is written.
struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buffer)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A content of exactly the bytes that its header has: a file that changes meanwhile must not
/// move what comes after it.
struct Exact<R> {
    content: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let read = self.content.by_ref().take(self.left).read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// The data of a sparse file without its holes.
struct Pieces<'a, C> {
    file: &'a File,
    extents: std::slice::Iter<'a, Extent>,
    current: Extent,
    done: u64,
    total: u64,
    check: C,
}

impl<C: FnMut(f64) -> io::Result<()>> Read for Pieces<'_, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.len == 0 {
            match self.extents.next() {
                Some(&next) => self.current = next,
                None => return Ok(0),
            }
        }
        (self.check)(self.done as f64 / self.total as f64)?;
        let len = usize::try_from(self.current.len).map_or(buffer.len(), |len| len.min(buffer.len()));
        let read = self.file.read_at(&mut buffer[..len], self.current.start)?;
        self.current.start += read as u64;
        self.current.len -= read as u64;
        self.done += read as u64;
        Ok(read)
    }
}
