//! The end of a file system: directories, journal, inode tables, bitmaps, descriptors and
//! superblocks.

use super::checksum::crc32c;
use super::content::Layout;
use super::encode::{S_IFDIR, S_IFREG, directory, put16, put32};
use super::entry::Summary;
use super::error::WriteError;
use super::inode::{Blocks, Body, Directory, Inode, inode_seed};
use super::layout::{
    BLOCK, BLOCK_U64, DESCRIPTOR, DESCRIPTOR_BLOCKS, GROUP, INODE, INODES_PER_GROUP, JOURNAL_BLOCKS,
    MAX_BLOCKS, Run, has_super, super_run,
};
use super::tree::{JOURNAL, LOST_FOUND, RESIZE, Tree};
use super::writer::Writer;

const INODES_PER_BLOCK: u32 = (BLOCK / INODE) as u32;
/// Block numbers that one block holds.
const NUMBERS: u32 = (BLOCK / 4) as u32;
/// The inode tables are all zeros where nothing is in them: the file is sparse.
const GROUP_INODE_UNINIT: u16 = 1;
const GROUP_INODE_ZEROED: u16 = 4;

/// Figures of the whole file system.
struct Geometry {
    groups: u32,
    inodes_per_group: u32,
}

/// Where a group's structures are.
struct Group {
    block_bitmap: u32,
    inode_bitmap: u32,
    inode_table: u32,
}

pub(super) fn seal(mut writer: Writer) -> Result<Summary, WriteError> {
    writer.tree.close();
    clear_removed(&mut writer)?;
    write_directories(&mut writer)?;
    write_journal(&mut writer)?;
    // Its place is known now, its content when the number of groups is.
    let resize_map = writer.take(1)?.start;
    let geometry = geometry(&writer)?;
    write_resize_inode(&mut writer, &geometry, resize_map)?;
    let groups = place_groups(&mut writer, &geometry)?;
    write_inodes(&mut writer, &geometry, &groups)?;
    let (descriptors, free_blocks) = write_bitmaps(&mut writer, &geometry, &groups)?;
    write_superblocks(&mut writer, &geometry, &descriptors, free_blocks)?;
    let size = u64::from(geometry.groups) * u64::from(GROUP) * BLOCK_U64;
    let files = used_inodes(&writer.tree) - LOST_FOUND;
    writer.output.finish(size)?;
    Ok(Summary {
        size,
        content: writer.content,
        files,
    })
}

/// Makes zeros of what was written and is no more: what is written next has gaps.
fn clear_removed(writer: &mut Writer) -> Result<(), WriteError> {
    writer.allocator.join_free();
    let rest = writer.allocator.rest();
    for run in writer.allocator.free().iter().copied().chain([rest]) {
        writer.output.clear(run)?;
    }
    Ok(())
}

fn write_directories(writer: &mut Writer) -> Result<(), WriteError> {
    for number in 1..=writer.tree.last() {
        let Some(&Directory { parent, .. }) = writer.tree.directory(number) else {
            continue;
        };
        let layout = write_directory(writer, number, parent)?;
        let body = writer.write_extents(number, layout.1)?;
        if let Some(inode) = writer.tree.get_mut(number) {
            inode.size = layout.0;
            inode.body = body;
        }
    }
    Ok(())
}

/// Writes a directory's names in their order; returns its size and where it is.
fn write_directory(writer: &mut Writer, number: u32, parent: u32) -> Result<(u64, Layout), WriteError> {
    let Writer {
        tree,
        output,
        allocator,
        seed,
        ..
    } = writer;
    let mut children: Vec<u32> = tree.children(number).collect();
    children.sort_unstable_by_key(|&entry| tree.name(entry));
    let links = [(&b"."[..], number, S_IFDIR), (b"..", parent, S_IFDIR)];
    let entries = children.iter().map(|&entry| {
        let inode = tree.inode_of(entry);
        (
            tree.name(entry),
            inode,
            tree.get(inode).map_or(0, |inode| inode.mode),
        )
    });
    let mut layout = Layout::default();
    let mut blocks = 0;
    directory(
        links.into_iter().chain(entries),
        inode_seed(*seed, number),
        |block| {
            let run = allocator.take(1).ok_or(WriteError::TooLarge)?;
            output.write(run.start, block)?;
            layout.add(blocks, run);
            blocks += 1;
            Ok(())
        },
    )?;
    Ok((u64::from(blocks) * BLOCK_U64, layout))
}

/// An empty journal: its superblock (jbd2, version 2, big-endian), and zeros.
fn write_journal(writer: &mut Writer) -> Result<(), WriteError> {
    let mut inode = Inode::new(S_IFREG | 0o600, writer.identity.time);
    inode.size = u64::from(JOURNAL_BLOCKS) * BLOCK_U64;
    let mut layout = Layout::default();
    let (mut first, mut logical) = (0, 0);
    while logical < JOURNAL_BLOCKS {
        let run = writer.take(JOURNAL_BLOCKS - logical)?;
        if logical == 0 {
            first = run.start;
        }
        layout.add(logical, run);
        logical += run.len;
    }
    let mut block = [0; BLOCK];
    let fields = [
        (0, 0xc03b_3998),
        (4, 4),
        (0x0c, BLOCK as u32),
        (0x10, JOURNAL_BLOCKS),
        (0x14, 1),
        (0x18, 1),
        (0x40, 1),
    ];
    for (at, value) in fields {
        block[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
    }
    block[0x30..0x40].copy_from_slice(&writer.identity.uuid);
    writer.output.write(first, &block)?;
    inode.body = writer.write_extents(JOURNAL, layout)?;
    writer.tree.set(JOURNAL, inode);
    Ok(())
}

/// Room for the content, for everything that describes it, and a tenth with 64 MiB to spare,
/// in whole groups.
fn geometry(writer: &Writer) -> Result<Geometry, WriteError> {
    let used = writer.allocator.next();
    let spare = used / 10 + (64 << 20) / BLOCK as u32;
    let inodes = writer.tree.last() + 1024;
    let mut groups = 1;
    loop {
        let inodes_per_group = inodes
            .div_ceil(groups)
            .next_multiple_of(INODES_PER_BLOCK)
            .clamp(INODES_PER_GROUP, GROUP);
        let table = inodes_per_group / INODES_PER_BLOCK;
        // As if every group had a superblock, and as if each table left a gap before one.
        let overhead = 2 * table + 2 + 1 + DESCRIPTOR_BLOCKS;
        let needed = used + spare + groups * overhead;
        if needed <= groups * GROUP && inodes <= groups * inodes_per_group {
            return Ok(Geometry {
                groups,
                inodes_per_group,
            });
        }
        groups += 1;
        if groups * GROUP > MAX_BLOCKS {
            return Err(WriteError::TooLarge);
        }
    }
}

/// The resize inode: a file whose blocks are the descriptor blocks to come. Each of those,
/// in the first group, lists its copies in the others.
fn write_resize_inode(writer: &mut Writer, geometry: &Geometry, map: u32) -> Result<(), WriteError> {
    let used = geometry.descriptor_blocks();
    let copies: Vec<u32> = (1..geometry.groups).filter(|&g| has_super(g)).collect();
    let mut inode = Inode::new(S_IFREG | 0o600, writer.identity.time);
    inode.size = u64::from(12 + NUMBERS + NUMBERS * NUMBERS) * BLOCK_U64;
    let mut blocks = Blocks {
        flags: 0,
        root: [0; 60],
        owned: vec![Run { start: map, len: 1 }],
    };
    // The doubly indirect block, after twelve direct and one indirect.
    put32(&mut blocks.root, 4 * 13, map);
    let mut numbers = [0; BLOCK];
    for block in 1 + used..=DESCRIPTOR_BLOCKS {
        put32(&mut numbers, 4 * (block as usize - 1), block);
        let mut list = [0; BLOCK];
        for (i, group) in copies.iter().enumerate() {
            put32(&mut list, 4 * i, group * GROUP + block);
            blocks.owned.push(Run {
                start: group * GROUP + block,
                len: 1,
            });
        }
        writer.output.write(block, &list)?;
        blocks.owned.push(Run { start: block, len: 1 });
    }
    writer.output.write(map, &numbers)?;
    inode.body = Body::Blocks(Box::new(blocks));
    writer.tree.set(RESIZE, inode);
    Ok(())
}

/// Tables and bitmaps lie together behind the content, as flexible groups allow.
fn place_groups(writer: &mut Writer, geometry: &Geometry) -> Result<Vec<Group>, WriteError> {
    let mut groups = Vec::new();
    for _ in 0..geometry.groups {
        let table = writer
            .allocator
            .take_whole(geometry.table_blocks())
            .ok_or(WriteError::TooLarge)?;
        groups.push(Group {
            block_bitmap: writer.take(1)?.start,
            inode_bitmap: writer.take(1)?.start,
            inode_table: table.start,
        });
    }
    Ok(groups)
}

fn write_inodes(writer: &mut Writer, geometry: &Geometry, groups: &[Group]) -> Result<(), WriteError> {
    for (first, group) in (1..).step_by(geometry.inodes_per_group as usize).zip(groups) {
        for i in 0..geometry.table_blocks() {
            let start = first + i * INODES_PER_BLOCK;
            if start > writer.tree.last() {
                break;
            }
            let mut block = [0; BLOCK];
            for (slot, number) in (start..start + INODES_PER_BLOCK).enumerate() {
                if let Some(inode) = writer.tree.get(number) {
                    block[slot * INODE..][..INODE].copy_from_slice(&inode.encode(
                        number,
                        writer.seed,
                        writer.tree.text(),
                    ));
                }
            }
            writer.output.write(group.inode_table + i, &block)?;
        }
    }
    Ok(())
}

/// Writes both bitmaps of each group; returns the descriptors, and the free blocks.
fn write_bitmaps(
    writer: &mut Writer,
    geometry: &Geometry,
    groups: &[Group],
) -> Result<(Vec<u8>, u32), WriteError> {
    let mut descriptors = vec![0; geometry.descriptor_blocks() as usize * BLOCK];
    let mut total_free = 0;
    let bitmaps = block_bitmaps(writer, geometry);
    for (number, (group, bitmap)) in (0..).zip(groups.iter().zip(&bitmaps)) {
        let free: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
        total_free += free;
        let inodes = inode_bitmap(&writer.tree, geometry, number);
        writer.output.write(group.block_bitmap, bitmap)?;
        writer.output.write(group.inode_bitmap, &inodes.bitmap[..])?;
        let descriptor = &mut descriptors[number as usize * DESCRIPTOR..][..DESCRIPTOR];
        put32(descriptor, 0x00, group.block_bitmap);
        put32(descriptor, 0x04, group.inode_bitmap);
        put32(descriptor, 0x08, group.inode_table);
        put16(descriptor, 0x0c, free as u16);
        put16(descriptor, 0x0e, (geometry.inodes_per_group - inodes.used) as u16);
        put16(descriptor, 0x10, inodes.directories as u16);
        let uninit = if inodes.used == 0 { GROUP_INODE_UNINIT } else { 0 };
        put16(descriptor, 0x12, GROUP_INODE_ZEROED | uninit);
        put16(descriptor, 0x18, crc32c(writer.seed, bitmap) as u16);
        let bytes = geometry.inodes_per_group as usize / 8;
        put16(
            descriptor,
            0x1a,
            crc32c(writer.seed, &inodes.bitmap[..bytes]) as u16,
        );
        put16(
            descriptor,
            0x1c,
            (geometry.inodes_per_group - inodes.reach) as u16,
        );
        let crc = crc32c(crc32c(writer.seed, &number.to_le_bytes()), descriptor);
        put16(descriptor, 0x1e, crc as u16);
    }
    Ok((descriptors, total_free))
}

fn block_bitmaps(writer: &Writer, geometry: &Geometry) -> Vec<Vec<u8>> {
    let mut bitmaps = vec![vec![0u8; BLOCK]; geometry.groups as usize];
    let mut set = |run: Run, value: bool| {
        for block in run.start..run.end() {
            let byte = &mut bitmaps[(block / GROUP) as usize][(block % GROUP / 8) as usize];
            let bit = 1 << (block % 8);
            *byte = if value { *byte | bit } else { *byte & !bit };
        }
    };
    let handed_out = Run {
        start: 0,
        len: writer.allocator.next(),
    };
    set(handed_out, true);
    for &run in writer.allocator.free() {
        set(run, false);
    }
    for run in (0..geometry.groups).filter_map(super_run) {
        set(run, true);
    }
    bitmaps
}

/// What a group's inode bitmap has, and what its descriptor says about it.
struct Inodes {
    bitmap: Box<[u8; BLOCK]>,
    used: u32,
    /// One more than the last used one, counted in the group.
    reach: u32,
    directories: u32,
}

fn inode_bitmap(tree: &Tree, geometry: &Geometry, group: u32) -> Inodes {
    let mut inodes = Inodes {
        bitmap: Box::new([0; BLOCK]),
        used: 0,
        reach: 0,
        directories: 0,
    };
    for i in 0..geometry.inodes_per_group {
        let number = group * geometry.inodes_per_group + i + 1;
        if number < LOST_FOUND || tree.get(number).is_some() {
            inodes.bitmap[(i / 8) as usize] |= 1 << (i % 8);
            inodes.used += 1;
            inodes.reach = i + 1;
            inodes.directories += u32::from(tree.is_dir(number));
        }
        if number > tree.last() {
            break;
        }
    }
    // Bits without an inode are set.
    inodes.bitmap[geometry.inodes_per_group as usize / 8..].fill(0xff);
    inodes
}

fn write_superblocks(
    writer: &mut Writer,
    geometry: &Geometry,
    descriptors: &[u8],
    free_blocks: u32,
) -> Result<(), WriteError> {
    let mut block = superblock(writer, geometry, free_blocks);
    for group in (0..geometry.groups).filter(|&g| has_super(g)) {
        put16(&mut block, 0x5a, group as u16);
        let crc = crc32c(!0, &block[..0x3fc]);
        put32(&mut block, 0x3fc, crc);
        let mut whole = [0; BLOCK];
        // The first block starts with 1 KiB for a boot loader.
        let at = if group == 0 { 1024 } else { 0 };
        whole[at..at + 1024].copy_from_slice(&block);
        writer.output.write(group * GROUP, &whole)?;
        writer.output.write(group * GROUP + 1, descriptors)?;
    }
    Ok(())
}

fn superblock(writer: &Writer, geometry: &Geometry, free_blocks: u32) -> [u8; 1024] {
    let mut raw = [0; 1024];
    let inodes = geometry.groups * geometry.inodes_per_group;
    // 32 bits, up to the year 2106.
    let now = writer.identity.time.clamp(0, i64::from(u32::MAX)) as u32;
    let reserved = DESCRIPTOR_BLOCKS - geometry.descriptor_blocks();
    for (at, value) in [
        (0x00, inodes),
        (0x04, geometry.groups * GROUP),
        (0x0c, free_blocks),
        (0x10, inodes - used_inodes(&writer.tree)),
        (0x18, 2), // 1 KiB << 2
        (0x1c, 2),
        (0x20, GROUP),
        (0x24, GROUP),
        (0x28, geometry.inodes_per_group),
        // No time of the last write: in the future it would be an error to e2fsck.
        (0x40, now),
        (0x4c, 1), // revision with the fields below
        (0x54, LOST_FOUND),
        // has_journal, ext_attr, resize_inode, dir_index
        (0x5c, 0x4 | 0x8 | 0x10 | 0x20),
        // filetype, extents, flex_bg
        (0x60, 0x2 | 0x40 | 0x200),
        // sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
        (0x64, 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400),
        (0xe0, JOURNAL),
        (0x100, 0xc), // mount with user_xattr and acl
        (0x108, now),
        (0x160, 1), // directory hashes of signed characters
    ] {
        put32(&mut raw, at, value);
    }
    for (at, value) in [
        (0x36, 0xffff), // no check after a number of mounts
        (0x38, 0xef53),
        (0x3a, 1), // clean
        (0x3c, 1), // go on after errors
        (0x58, INODE as u16),
        (0xce, reserved as u16),
        (0x15c, 32),
        (0x15e, 32),
    ] {
        put16(&mut raw, at, value);
    }
    raw[0x68..0x78].copy_from_slice(&writer.identity.uuid);
    raw[0xec..0xfc].copy_from_slice(&writer.identity.hash_seed);
    raw[0xfc] = 1; // half MD4
    raw[0xfd] = 1; // the journal's blocks are noted below
    raw[0x174] = 4; // 16 groups make a flexible one
    raw[0x175] = 1; // CRC-32C
    if let Some(journal) = writer.tree.get(JOURNAL) {
        raw[0x10c..0x148].copy_from_slice(&journal.root(&[]).1);
        put32(&mut raw, 0x148, (journal.size >> 32) as u32);
        put32(&mut raw, 0x14c, journal.size as u32);
    }
    raw
}

/// Reserved numbers count as used.
fn used_inodes(tree: &Tree) -> u32 {
    let files = (LOST_FOUND..=tree.last()).filter(|&number| tree.get(number).is_some());
    LOST_FOUND - 1 + files.count() as u32
}

impl Geometry {
    fn descriptor_blocks(&self) -> u32 {
        (self.groups * DESCRIPTOR as u32).div_ceil(BLOCK as u32)
    }

    fn table_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_PER_BLOCK
    }
}
