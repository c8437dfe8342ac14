//! Makes what is into what should be: the taps and scopes that there are, by the table of slots.
//! Slots that are out of use are left as they are.

use std::collections::BTreeSet;

use banger_model::Slot;
use banger_net::tap::TapState;

use crate::context::Context;
use crate::journal::{self, Priority};
use crate::net;
use crate::slots::LockedSlot;

/// Returns what was done; when nothing happens meanwhile, a second time that is nothing.
pub(crate) async fn reconcile(context: &Context) -> Vec<String> {
    let mut pass = Pass {
        context,
        taps: observed(net::taps(&context.net).await).unwrap_or_default(),
        scopes: observed(context.systemd.scopes().await).unwrap_or_default(),
        done: Vec::new(),
    };
    let mut slots: BTreeSet<Slot> = pass.taps.iter().map(|tap| tap.slot).collect();
    slots.extend(&pass.scopes);
    slots.extend(context.slots.list_all().iter().map(|entry| entry.slot));
    for slot in slots {
        if let Ok(entry) = context.slots.find_any(slot).await {
            pass.owned(entry).await;
        } else if let Some(_free) = context.slots.hold_free(slot).await {
            pass.free(slot).await;
        }
    }
    for line in &pass.done {
        journal::say(Priority::Notice, line, &[]);
    }
    pass.done
}

struct Pass<'a> {
    context: &'a Context,
    taps: Vec<TapState>,
    scopes: Vec<Slot>,
    done: Vec<String>,
}

impl Pass<'_> {
    /// Somebody's: it has a tap, and nothing runs but what was written down.
    async fn owned(&mut self, entry: LockedSlot<'_>) {
        let (slot, bridge) = (entry.slot, entry.bridge);
        let tap = self.taps.iter().find(|tap| tap.slot == slot);
        if !tap.is_some_and(|tap| tap.up && tap.bridge == Some(bridge)) {
            let made = net::ensure_tap(&self.context.net, slot, bridge).await;
            self.note(made, || format!("Made the tap of slot {slot}"));
        }
        // What was at the barrier when a helper died, or what the VMM left behind. What was
        // written down stays: it says which log is the last run's.
        if entry.process().is_none() {
            self.end_scope(slot).await;
        }
    }

    /// Nobody's: it has nothing.
    async fn free(&mut self, slot: Slot) {
        self.end_scope(slot).await;
        if self.taps.iter().any(|tap| tap.slot == slot) {
            let removed = net::remove_tap(&self.context.net, slot).await;
            self.note(removed, || {
                format!("Removed the tap of slot {slot}, which nobody has")
            });
        }
    }

    async fn end_scope(&mut self, slot: Slot) {
        if self.scopes.contains(&slot) {
            let ended = self.context.systemd.end(slot).await;
            self.note(ended, || {
                format!("Ended {}, in which no VMM of ours runs", slot.unit())
            });
        }
    }

    fn note<E: std::error::Error>(&mut self, result: Result<(), E>, done: impl FnOnce() -> String) {
        match result {
            Ok(()) => self.done.push(done()),
            Err(error) => journal::say(Priority::Warning, &journal::chain(&error), &[]),
        }
    }
}

fn observed<T, E: std::error::Error>(result: Result<T, E>) -> Option<T> {
    result
        .inspect_err(|error| journal::say(Priority::Warning, &journal::chain(error), &[]))
        .ok()
}
