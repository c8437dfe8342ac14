//! What travels between the owner's daemon and the helper.

use banger_model::{Slot, SlotHandle};
use serde::{Deserialize, Serialize};
use zbus::Type;
use zbus::as_variant::optional;

/// A [`SlotHandle`] on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Type)]
pub struct WireHandle {
    pub high: u64,
    pub low: u64,
}

/// A slot that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct SlotGrant {
    pub handle: WireHandle,
    /// Everything else of it follows from its number, see [`Slot`].
    pub slot: u16,
}

/// A slot of the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct SlotInfo {
    pub handle: WireHandle,
    pub slot: u16,
    /// As in `AcquireSlot`.
    pub network: u8,
    /// Whether its VMM runs.
    pub running: bool,
}

/// For `Launch`. All but `Name` must be there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
pub struct LaunchOptions {
    /// See [`LaunchEngine`].
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub engine: Option<u8>,
    /// Whether the guest's instructions are emulated; otherwise KVM runs them.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub emulated: Option<bool>,
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The VM's id: the two halves of its 128 bits, the more significant first.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub id: Option<(u64, u64)>,
    /// The VM's name, for descriptions and the journal.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// For `OpenLog`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
pub struct LogReadOptions {
    /// How many of the newest lines; all by default.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// Whether to go on with what comes; false by default.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $number),+
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its number on the bus.
            pub const fn number(self) -> u8 {
                self as u8
            }

            pub fn of_number(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.number() == number)
            }
        }
    };
}

numbered!(
    /// The engines of `Launch`. The helper knows where they are installed.
    LaunchEngine {
        Qemu = 0,
        Firecracker = 1,
    }
);

numbered!(
    /// What each descriptor of `Launch` is for.
    FileRole {
        /// A regular file of the caller's or root's, open for reading.
        Kernel = 0,
        /// A memfd, or a regular file as the kernel.
        Initrd = 1,
        /// A regular file of the caller's, raw, open for reading and writing.
        RootDisk = 2,
        /// Takes the serial console: a stream of the journal, or a file or pipe of the caller's.
        Console = 3,
        /// Takes the VMM's own words; as `Console`.
        Log = 4,
        /// A listening unix socket, QEMU's end of the control channel.
        Control = 5,
        /// A listening unix socket, QEMU's monitor.
        Monitor = 6,
        /// A directory of the caller's in which Firecracker makes its sockets.
        Directory = 7,
    }
);

impl From<SlotHandle> for WireHandle {
    fn from(handle: SlotHandle) -> Self {
        let (high, low) = handle.halves();
        Self { high, low }
    }
}

impl From<WireHandle> for SlotHandle {
    fn from(handle: WireHandle) -> Self {
        Self::from_halves(handle.high, handle.low)
    }
}

impl SlotGrant {
    pub fn new(slot: Slot, handle: SlotHandle) -> Self {
        Self {
            handle: handle.into(),
            slot: slot.number(),
        }
    }
}
