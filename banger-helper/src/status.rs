//! What works and what does not.

use banger_model::slot::SLOTS_PER_OWNER;
use banger_sys::landlock::Enforcement;

use crate::context::Context;
use crate::journal::chain;
use crate::net;

type Line = (String, bool, String);

/// Name, whether it is well, and a sentence. Of slots, the caller learns about his own, and
/// about those that are nobody's any more.
pub(crate) async fn checks(context: &Context, uid: u32) -> Vec<Line> {
    let mut checks = vec![helper(context), systemd(context).await];
    match net::checks(&context.net).await {
        Ok(seen) => checks.extend(seen.into_iter().map(|check| (check.name, check.ok, check.detail))),
        Err(error) => checks.push(("network".to_owned(), false, chain(&error))),
    }
    checks.push(names(context, uid).await);
    checks.extend(slots(context, uid).await);
    checks
}

fn helper(context: &Context) -> Line {
    let landlock = match context.confined {
        Enforcement::Full => "Landlock confines it",
        Enforcement::Partial => "an older Landlock confines it in part",
        Enforcement::None => "this kernel has no Landlock to confine it",
    };
    let text = format!("Version {}, {landlock}", env!("CARGO_PKG_VERSION"));
    ("helper".to_owned(), true, text)
}

async fn names(context: &Context, uid: u32) -> Line {
    let text = match context.names.current().await {
        Some((owner, port)) if owner == uid => {
            format!("This user's VMs are known to the host, by port {port}")
        }
        Some(_) => "Another user's VMs are known to the host by name, and nobody else's".to_owned(),
        None => "No names of VMs are known to the host".to_owned(),
    };
    ("names".to_owned(), true, text)
}

async fn systemd(context: &Context) -> Line {
    let (well, text) = match context.systemd.scopes().await {
        Ok(_) => (true, "Answers".to_owned()),
        Err(error) => (false, chain(&error)),
    };
    ("systemd".to_owned(), well, text)
}

async fn slots(context: &Context, uid: u32) -> Vec<Line> {
    let own = context.slots.list(uid);
    let text = format!("{} of {SLOTS_PER_OWNER} in use by this user", own.len());
    let mut lines = vec![("slots".to_owned(), true, text)];
    let taps = net::taps(&context.net).await.unwrap_or_default();
    for entry in &own {
        let has_tap = taps
            .iter()
            .any(|tap| tap.slot == entry.slot && tap.up && tap.bridge == Some(entry.bridge));
        if !has_tap {
            let text = format!("{} is not as it should be: repair", entry.slot.tap());
            lines.push((format!("slot {}", entry.slot), false, text));
        }
    }
    for (slot, why) in context.slots.damaged() {
        let text = format!(
            "Out of use, its file cannot be read: {why}. When no access list names uid {} any more, delete it",
            slot.uid()
        );
        lines.push((format!("slot {slot}"), false, text));
    }
    lines
}
