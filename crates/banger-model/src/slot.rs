//! System mode's slots: a place for one VM on a host. Everything that a slot has (uid, tap,
//! addresses, names) follows from its number, so that the network's rules can be written once,
//! for all slots, before the first VM exists.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many slots a host has.
pub const SLOTS: u16 = 512;
/// How many of them one owner may hold.
pub const SLOTS_PER_OWNER: usize = 64;
/// The network namespace in which the helper and all VMMs of system mode live; a name below
/// `/run/netns` (ip-netns(8)).
pub const NAMESPACE: &str = "banger";
/// The host's end of the one link between the host and [`NAMESPACE`].
pub const HOST_LINK: &str = "banger0";
/// The other end.
pub const UPLINK: &str = "uplink";
/// The address of [`HOST_LINK`], at which the guests' resolver answers too.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 119, 16, 1);
/// The address of [`UPLINK`].
pub const UPLINK_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 119, 16, 2);
/// The prefix length of the link's network.
pub const LINK_PREFIX: u8 = 30;
/// All addresses of banger on a host: both guest networks and the link.
pub const WHOLE_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 119, 0, 0), 19);
/// The name of the unit that makes the network.
pub const NETWORK_UNIT: &str = "banger-network.service";

/// The first slot's uid. The range is the last half of the last block of what systemd reserves
/// for containers (`524288` to `1879048191`, systemd's UIDS-GIDS): no login and no service has such
/// a uid, and container managers, which take whole blocks of 65536, use none of an upper half.
/// Slots are given out from the lowest, so that few of them are ever used: some versions of
/// journald keep a file for each uid of this range that writes to it.
const FIRST_UID: u32 = 0x6fff_8000;
/// The host part of the first slot's address: below it is the gateway.
const FIRST_HOST: u16 = 16;

/// A slot's number, below [`SLOTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

/// A number that is no slot's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Not a slot: {0} (0 to {max})", max = SLOTS - 1)]
pub struct NoSuchSlot(pub u16);

/// The networks that a VM can be put on. Each is a bridge of its own in [`NAMESPACE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestBridge {
    /// The Internet and names; neither the host, nor its networks, nor other guests.
    Public,
    /// Nothing: the host alone reaches the guest.
    Closed,
}

/// The right to a slot: 128 random bits that the helper gave out, and that only the uid which
/// got them can use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotHandle([u8; 16]);

/// Text that is not 32 lower-case hexadecimal digits. What it was is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Not a slot's handle (32 hexadecimal digits)")]
pub struct ParseHandleError;

impl Slot {
    /// # Errors
    /// For a number from [`SLOTS`] on.
    pub const fn new(number: u16) -> Result<Self, NoSuchSlot> {
        if number < SLOTS {
            Ok(Self(number))
        } else {
            Err(NoSuchSlot(number))
        }
    }

    /// All slots in their order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..SLOTS).map(Self)
    }

    pub const fn number(self) -> u16 {
        self.0
    }

    /// The uid and gid of this slot's VMM, and of nothing else.
    pub const fn uid(self) -> u32 {
        FIRST_UID + self.0 as u32
    }

    /// The slot whose VMM has this uid.
    pub fn of_uid(uid: u32) -> Option<Self> {
        let number = u16::try_from(uid.checked_sub(FIRST_UID)?).ok()?;
        Self::new(number).ok()
    }

    /// The tap's name in [`NAMESPACE`] (at most 15 bytes, Linux's IFNAMSIZ).
    pub fn tap(self) -> String {
        format!("bt{}", self.0)
    }

    /// The transient scope of its VMM.
    pub fn unit(self) -> String {
        format!("banger-vm-{}.scope", self.0)
    }

    /// The guest's MAC: locally administered, unicast, and `bng` before the number.
    pub const fn mac(self) -> [u8; 6] {
        let [high, low] = self.0.to_be_bytes();
        [0x02, 0x62, 0x6e, 0x67, high, low]
    }

    /// The guest's address.
    pub fn address(self, bridge: GuestBridge) -> Ipv4Addr {
        let (network, _) = bridge.network();
        Ipv4Addr::from_bits(network.to_bits() + u32::from(FIRST_HOST) + u32::from(self.0))
    }
}

impl GuestBridge {
    pub const ALL: [Self; 2] = [Self::Public, Self::Closed];

    /// Its number on the bus.
    pub const fn number(self) -> u8 {
        match self {
            Self::Public => 0,
            Self::Closed => 1,
        }
    }

    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|bridge| bridge.number() == number)
    }

    /// The bridge's name in [`NAMESPACE`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Closed => "closed",
        }
    }

    /// The guests' addresses and the prefix length.
    pub const fn network(self) -> (Ipv4Addr, u8) {
        match self {
            Self::Public => (Ipv4Addr::new(10, 119, 0, 0), 22),
            Self::Closed => (Ipv4Addr::new(10, 119, 8, 0), 22),
        }
    }

    /// The bridge's own address.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network().0.to_bits() + 1)
    }
}

impl SlotHandle {
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From the two halves in which it travels on the bus, the first being the more significant.
    pub const fn from_halves(high: u64, low: u64) -> Self {
        Self((((high as u128) << 64) | low as u128).to_be_bytes())
    }

    pub const fn halves(self) -> (u64, u64) {
        let whole = u128::from_be_bytes(self.0);
        #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let low = whole as u64;
        ((whole >> 64) as u64, low)
    }
}

impl fmt::Display for SlotHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not shown: a log line must not give anybody the right.
impl fmt::Debug for SlotHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotHandle(..)")
    }
}

impl FromStr for SlotHandle {
    type Err = ParseHandleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The same form as a VM's id.
        let id: crate::VmId = text.parse().map_err(|_| ParseHandleError)?;
        Ok(Self(*id.as_bytes()))
    }
}

impl TryFrom<String> for SlotHandle {
    type Error = ParseHandleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SlotHandle> for String {
    fn from(handle: SlotHandle) -> Self {
        handle.to_string()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u16> for Slot {
    type Error = NoSuchSlot;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        Self::new(number)
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn contains((network, prefix): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
        let shift = 32 - u32::from(prefix);
        network.to_bits() >> shift == address.to_bits() >> shift
    }

    #[test]
    fn every_slot_has_its_own_of_everything() {
        let mut seen = HashSet::new();
        for slot in Slot::all() {
            assert_eq!(Slot::of_uid(slot.uid()), Some(slot));
            assert!(slot.tap().len() <= 15, "{}", slot.tap());
            for bridge in GuestBridge::ALL {
                let address = slot.address(bridge);
                assert!(contains(bridge.network(), address) && contains(WHOLE_NETWORK, address));
                assert_ne!(address, bridge.gateway());
                let broadcast = bridge.network().0.to_bits() | (u32::MAX >> bridge.network().1);
                assert_ne!(address.to_bits(), broadcast);
                assert!(seen.insert(address), "{address} twice");
            }
            assert_eq!(slot.mac()[0] & 3, 2, "locally administered, unicast");
        }
        assert!(
            contains(WHOLE_NETWORK, HOST_ADDRESS) && contains((HOST_ADDRESS, LINK_PREFIX), UPLINK_ADDRESS)
        );
        assert!(!seen.contains(&HOST_ADDRESS) && !seen.contains(&UPLINK_ADDRESS));
    }

    #[test]
    fn other_numbers_are_no_slots() {
        assert_eq!(Slot::new(SLOTS), Err(NoSuchSlot(SLOTS)));
        assert_eq!(Slot::new(u16::MAX), Err(NoSuchSlot(u16::MAX)));
        assert!(Slot::new(SLOTS - 1).is_ok() && serde_json::from_str::<Slot>("512").is_err());
        for uid in [0, 1000, FIRST_UID - 1, FIRST_UID + u32::from(SLOTS), u32::MAX] {
            assert_eq!(Slot::of_uid(uid), None);
        }
        assert_eq!(GuestBridge::of_number(2), None);
    }

    #[test]
    fn a_handle_travels_in_halves_and_is_not_shown() {
        let handle = SlotHandle::from_bytes(*b"0123456789abcdef");
        let (high, low) = handle.halves();
        assert_eq!(SlotHandle::from_halves(high, low), handle);
        assert_eq!(handle.to_string().parse(), Ok(handle));
        assert!(!format!("{handle:?}").contains("30"));
        assert_eq!("x".parse::<SlotHandle>(), Err(ParseHandleError));
    }
}
