//! Forwarding of IPv4 on the host. The kernel asks the interface at which a packet comes in, so
//! the answers to guests need it on at the host's own interfaces. Where it was off, a rule of
//! the routing policy keeps the rest of the way closed: from there to the guests and nowhere
//! else. That holds without a firewall. The host's setting for all interfaces is not touched.

use std::collections::BTreeSet;

use banger_model::slot::{HOST_LINK, WHOLE_NETWORK};

use crate::facts::Facts;
use crate::netlink::{Netlink, Rule, RuleTarget};
use crate::record::{Forwarding, Record};
use crate::{NetError, sysctl};

/// Rules are asked in the order of their numbers: after the host's own addresses (0), before
/// everything that others add at the end (from 32765 down).
const TO_GUESTS: u32 = 11_900;
const ELSEWHERE: u32 = 11_901;
/// The name of the setting for the whole host.
const EVERYWHERE: &str = "all";

pub(crate) fn ensure(host: &mut Netlink, record: &mut Record) -> Result<bool, NetError> {
    let uplinks = Facts::read(host)?.uplinks;
    let everywhere = sysctl::forwarding(EVERYWHERE)?.unwrap_or(false);
    let mut changed = false;

    let obsolete: Vec<_> = record
        .forwarding
        .iter()
        .filter(|(name, ours)| !uplinks.contains_key(*name) || is_taken_over(**ours, everywhere))
        .map(|(name, ours)| (name.clone(), *ours))
        .collect();
    for (name, ours) in obsolete {
        take_back(&name, ours, uplinks.get(&name).copied(), everywhere)?;
        record.forwarding.remove(&name);
        record.write()?;
        changed = true;
    }
    for (name, index) in &uplinks {
        if sysctl::forwarding(name)? == Some(false) {
            let ours = Forwarding {
                index: *index,
                everywhere,
            };
            record.forwarding.insert(name.clone(), ours);
            record.write()?;
            changed = true;
        }
    }
    // The guards stand before anything is forwarded, and fall after it.
    changed |= ensure_rules(host, &record.forwarding.keys().cloned().collect())?;
    for name in record.forwarding.keys().map(String::as_str).chain([HOST_LINK]) {
        if sysctl::forwarding(name)? == Some(false) {
            sysctl::set_forwarding(name, true)?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Takes back all of it.
pub(crate) fn undo(host: &mut Netlink, record: &Record) -> Result<(), NetError> {
    let links = host.links().map_err(NetError::kernel("list the interfaces"))?;
    let everywhere = sysctl::forwarding(EVERYWHERE)?.unwrap_or(false);
    for (name, ours) in &record.forwarding {
        let index = links
            .iter()
            .find(|link| link.name == *name)
            .map(|link| link.index);
        take_back(name, *ours, index, everywhere)?;
    }
    ensure_rules(host, &BTreeSet::new()).map(drop)
}

/// Somebody has turned forwarding on for the whole host since: then it is his, here too.
fn is_taken_over(ours: Forwarding, everywhere: bool) -> bool {
    everywhere && !ours.everywhere
}

fn take_back(name: &str, ours: Forwarding, index: Option<u32>, everywhere: bool) -> Result<(), NetError> {
    let is_same = index.is_none_or(|index| index == ours.index);
    if is_taken_over(ours, everywhere) || !is_same {
        return Ok(());
    }
    if sysctl::forwarding(name)? == Some(true) {
        sysctl::set_forwarding(name, false)?;
    }
    Ok(())
}

/// Makes banger's rules exactly those of the guarded interfaces.
fn ensure_rules(host: &mut Netlink, guarded: &BTreeSet<String>) -> Result<bool, NetError> {
    let wanted: Vec<_> = guarded.iter().flat_map(|name| guards(name)).collect();
    let current = host.rules().map_err(NetError::kernel("list the routing rules"))?;
    let mut changed = false;
    for rule in wanted.iter().filter(|rule| !current.contains(rule)) {
        host.add_rule(rule)
            .map_err(NetError::kernel("make a routing rule"))?;
        changed = true;
    }
    for rule in current.iter().filter(|rule| !wanted.contains(rule)) {
        host.delete_rule(rule)
            .map_err(NetError::kernel("delete a routing rule"))?;
        changed = true;
    }
    Ok(changed)
}

fn guards(interface: &str) -> [Rule; 2] {
    let rule = |priority, to, target| Rule {
        priority,
        from_link: interface.to_owned(),
        to,
        target,
    };
    [
        rule(TO_GUESTS, Some(WHOLE_NETWORK), RuleTarget::MainTable),
        rule(ELSEWHERE, None, RuleTarget::Blackhole),
    ]
}
