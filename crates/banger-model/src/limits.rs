//! The bounds that banger holds its input to. Each is a constant, so that an error can name it.

/// Virtual CPUs of one VM, before the host's own number is looked at.
pub const MAX_VCPUS: u32 = 64;
/// Memory of one VM in MiB: below this no distribution's kernel reaches its init.
pub const MIN_MEMORY_MIB: u64 = 128;
/// Memory of one VM in MiB: 1 TiB, before the host's own memory is looked at.
pub const MAX_MEMORY_MIB: u64 = 1 << 20;
/// A root disk in bytes: 16 TiB, the largest ext4 with 4 KiB blocks and 32-bit block numbers.
pub const MAX_DISK_BYTES: u64 = 16 << 40;
/// Labels, or environment variables, of one VM.
pub const MAX_PAIRS: usize = 256;
/// A label's or a variable's key and value together, in bytes.
pub const MAX_PAIR_BYTES: usize = 4096;
/// Arguments of one `exec`, and their bytes together.
pub const MAX_ARGS: usize = 4096;
/// All arguments, or the whole environment, of one `exec` in bytes.
pub const MAX_ARGS_BYTES: usize = 1 << 20;
/// One message from the guest on the control channel, in bytes, its newline included.
pub const MAX_GUEST_MESSAGE: usize = 4096;
/// What is kept of a VM's console where there is no journal, in bytes.
pub const MAX_CONSOLE_BYTES: u64 = 1 << 20;
/// Ports of one VM that are published.
pub const MAX_PORTS: usize = 64;
/// `[[file_sync]]` entries of a configuration.
pub const MAX_FILE_SYNC: usize = 64;
/// What all of them put into a guest, in bytes: it lies in the guest's memory.
pub const MAX_FILE_SYNC_BYTES: u64 = 64 << 20;
/// A host name's label (RFC 1123).
pub const MAX_NAME: usize = 63;
/// The longest name of a kernel.
pub const MAX_KERNEL_NAME: usize = 128;
/// The longest name of an image: it becomes a file name.
pub const MAX_IMAGE_NAME: usize = 255;
/// A path in a guest, in bytes (`PATH_MAX` of Linux, without its NUL).
pub const MAX_PATH: usize = 4095;
/// A file's name in bytes (`NAME_MAX` of Linux).
pub const MAX_FILE_NAME: usize = 255;
/// A user of a guest as an image names him: `name`, `uid`, and `:group` or `:gid`.
pub const MAX_USER: usize = 256;
/// A configuration file in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
