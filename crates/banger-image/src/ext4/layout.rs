//! Where blocks go: groups, the copies of the superblock, and the one cursor that hands out
//! everything else in ascending order.

/// Bytes of a block. Only this size is written.
pub(super) const BLOCK: usize = 4096;
/// The same, for offsets.
pub(super) const BLOCK_U64: u64 = BLOCK as u64;
/// Blocks of a group: one bitmap block's bits.
pub(super) const GROUP: u32 = 32768;
/// Bytes of a group descriptor without the 64-bit feature.
pub(super) const DESCRIPTOR: usize = 32;
/// Blocks for group descriptors, used and reserved together. Their place must be known before
/// the first file arrives. 128 blocks describe 2 TiB; beyond that the kernel changes to
/// another layout by itself while it grows the file system.
pub(super) const DESCRIPTOR_BLOCKS: u32 = 128;
/// Bytes of an inode.
pub(super) const INODE: usize = 256;
/// The usual share: an inode for every 16 KiB.
pub(super) const INODES_PER_GROUP: u32 = 8192;
/// The journal's blocks, 32 MiB: enough for a disk of many GiB, and free while it is a hole.
pub(super) const JOURNAL_BLOCKS: u32 = 8192;
/// The largest file system that is written, 256 GiB: well above every limit on content.
pub(super) const MAX_BLOCKS: u32 = 1 << 26;

/// Blocks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Run {
    pub(super) const fn end(self) -> u32 {
        self.start + self.len
    }
}

/// Whether a group starts with a superblock and its descriptors (feature `sparse_super`).
pub(super) fn has_super(group: u32) -> bool {
    let power = |base: u32| {
        let mut n = group;
        while n.is_multiple_of(base) {
            n /= base;
        }
        n == 1
    };
    group <= 1 || power(3) || power(5) || power(7)
}

/// The run at a group's start that holds superblock and descriptors, if it has them.
pub(super) fn super_run(group: u32) -> Option<Run> {
    has_super(group).then_some(Run {
        start: group * GROUP,
        len: 1 + DESCRIPTOR_BLOCKS,
    })
}

/// Hands out blocks in ascending order around the superblocks' copies.
#[derive(Debug)]
pub(super) struct Allocator {
    next: u32,
    /// The first block that was never handed out.
    end: u32,
    /// Blocks below `next` that nobody has: given back, or skipped.
    free: Vec<Run>,
}

impl Allocator {
    pub(super) fn new() -> Self {
        Self {
            next: 1 + DESCRIPTOR_BLOCKS,
            end: 1 + DESCRIPTOR_BLOCKS,
            free: Vec::new(),
        }
    }

    /// The next blocks in a row, at least one and at most `most`; `None` when the largest
    /// file system is full.
    pub(super) fn take(&mut self, most: u32) -> Option<Run> {
        let start = self.skip_super(self.next);
        let group_end = (start / GROUP + 1) * GROUP;
        // A boundary only matters where the next group starts with a superblock.
        let mut end = group_end;
        while !has_super(end / GROUP) && end - start < most && end < MAX_BLOCKS {
            end += GROUP;
        }
        if end > MAX_BLOCKS {
            return None;
        }
        let len = most.min(end - start);
        self.next = start + len;
        self.end = self.end.max(self.next);
        Some(Run { start, len })
    }

    /// Exactly `len` blocks in a row.
    pub(super) fn take_whole(&mut self, len: u32) -> Option<Run> {
        loop {
            let run = self.take(len)?;
            if run.len == len {
                return Some(run);
            }
            self.free.push(run);
        }
    }

    /// Takes blocks back. The last ones are handed out again: a file that is replaced over
    /// and over takes no more room than one.
    pub(super) fn give_back(&mut self, run: Run) {
        if run.end() == self.next {
            self.next = run.start;
        } else {
            self.free.push(run);
        }
    }

    /// Blocks behind all others that nobody has any more.
    pub(super) fn rest(&self) -> Run {
        Run {
            start: self.next,
            len: self.end - self.next,
        }
    }

    /// Puts free blocks in their order, and those that follow each other together.
    pub(super) fn join_free(&mut self) {
        self.free.sort_unstable_by_key(|run| run.start);
        self.free.dedup_by(|next, run| {
            let follows = run.end() == next.start;
            if follows {
                run.len += next.len;
            }
            follows
        });
    }

    /// The next block to be handed out.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    pub(super) fn free(&self) -> &[Run] {
        &self.free
    }

    fn skip_super(&self, block: u32) -> u32 {
        match super_run(block / GROUP) {
            Some(run) if block < run.end() => run.end(),
            _ => block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_where_the_format_says() {
        let groups: Vec<u32> = (0..130).filter(|&g| has_super(g)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn blocks_never_touch_a_superblock() {
        let mut allocator = Allocator::new();
        let mut last = 0;
        for most in [1, 40_000, 7, 100_000, 32_768, 1 << 20] {
            let mut left = most;
            while left > 0 {
                let run = allocator.take(left).unwrap();
                assert!(run.start >= last && run.len > 0 && run.len <= left);
                for group in run.start / GROUP..=(run.end() - 1) / GROUP {
                    if let Some(reserved) = super_run(group) {
                        assert!(run.end() <= reserved.start || run.start >= reserved.end());
                    }
                }
                last = run.end();
                left -= run.len;
            }
        }
        assert!(allocator.free().is_empty());
    }

    #[test]
    fn whole_runs_leave_free_gaps() {
        let mut allocator = Allocator::new();
        allocator.take(GROUP - 200).unwrap();
        let run = allocator.take_whole(512).unwrap();
        assert_eq!(run.start, GROUP + 1 + DESCRIPTOR_BLOCKS);
        assert_eq!(
            allocator.free(),
            [Run {
                start: GROUP - 200 + 1 + DESCRIPTOR_BLOCKS,
                len: 200 - 1 - DESCRIPTOR_BLOCKS
            }]
        );
    }

    #[test]
    fn the_last_blocks_are_used_again() {
        let mut allocator = Allocator::new();
        let (a, b) = (allocator.take(3).unwrap(), allocator.take(2).unwrap());
        allocator.give_back(b);
        assert_eq!(allocator.rest(), b);
        assert_eq!(allocator.take(2), Some(b));
        allocator.give_back(a);
        assert_eq!((allocator.free(), allocator.rest().len), (&[a][..], 0));
    }

    #[test]
    fn the_largest_file_system_ends() {
        let mut allocator = Allocator::new();
        while allocator.take(u32::MAX).is_some() {}
        assert!(allocator.next() <= MAX_BLOCKS);
    }
}
