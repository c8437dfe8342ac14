//! What a VMM needs of the host beside the guest's memory.

/// QEMU's threads: one for each processor, 64 for the disk, a few of its own.
pub const TASKS_MAX: u64 = 512;

/// The bound on a VMM's memory in bytes: the guest's, and room for the VMM: 256 MiB and a
/// sixteenth of the guest's for itself, page tables and buffers; under emulation 1 GiB more for
/// translated code, QEMU's default. The host's cache of the disk counts too, and is dropped when
/// room is needed.
pub fn memory_max(memory_mib: u64, emulated: bool) -> u64 {
    let overhead = 256 + memory_mib / 16 + if emulated { 1024 } else { 0 };
    (memory_mib + overhead) << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_room_for_the_vmm() {
        assert_eq!(memory_max(1024, false), (1024 + 256 + 64) << 20);
        assert_eq!(memory_max(1024, true), (1024 + 256 + 64 + 1024) << 20);
    }
}
