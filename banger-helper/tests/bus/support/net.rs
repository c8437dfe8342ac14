//! A network that is only written down.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use banger_helper::net::Net;
use banger_model::slot::UPLINK;
use banger_model::{GuestBridge, Slot};
use banger_net::tap::TapState;
use banger_net::{Check, NetError};

#[derive(Default)]
pub(crate) struct FakeNet {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taps: BTreeMap<Slot, GuestBridge>,
    calls: Vec<NetCall>,
    broken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetCall {
    Ensure(u16, GuestBridge),
    Remove(u16),
    Open(u16),
}

impl FakeNet {
    /// What was done to it, by slot numbers.
    pub(crate) fn changes(&self) -> Vec<NetCall> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn slots(&self) -> Vec<u16> {
        self.state
            .lock()
            .unwrap()
            .taps
            .keys()
            .map(|slot| slot.number())
            .collect()
    }

    /// As if somebody else had done it.
    pub(crate) fn set_tap(&self, slot: u16, bridge: Option<GuestBridge>) {
        let slot = Slot::new(slot).unwrap();
        let mut state = self.state.lock().unwrap();
        match bridge {
            Some(bridge) => state.taps.insert(slot, bridge),
            None => state.taps.remove(&slot),
        };
    }

    /// Whether bridges are missing.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.state.lock().unwrap().broken = broken;
    }
}

impl Net for FakeNet {
    fn ensure_tap(&self, slot: Slot, bridge: GuestBridge) -> Result<(), NetError> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(NetCall::Ensure(slot.number(), bridge));
        if state.broken {
            return Err(NetError::NoBridge(bridge));
        }
        state.taps.insert(slot, bridge);
        Ok(())
    }

    fn remove_tap(&self, slot: Slot) -> Result<(), NetError> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(NetCall::Remove(slot.number()));
        state.taps.remove(&slot);
        Ok(())
    }

    fn open_tap(&self, slot: Slot) -> Result<OwnedFd, NetError> {
        self.state
            .lock()
            .unwrap()
            .calls
            .push(NetCall::Open(slot.number()));
        Err(NetError::NoTap(slot))
    }

    fn taps(&self) -> Result<Vec<TapState>, NetError> {
        let state = self.state.lock().unwrap();
        let taps = state.taps.iter().map(|(slot, bridge)| TapState {
            slot: *slot,
            bridge: Some(*bridge),
            up: true,
            in_use: false,
        });
        Ok(taps.collect())
    }

    fn checks(&self) -> Vec<Check> {
        vec![Check {
            name: "bridge public".to_owned(),
            ok: !self.state.lock().unwrap().broken,
            detail: "as it should be".to_owned(),
        }]
    }

    fn host_link_index(&self) -> Result<u32, NetError> {
        Err(NetError::NoLink(UPLINK))
    }
}
