//! Taking the network back: everything that can be, whatever fails on the way.

use banger_model::slot::HOST_LINK;

use crate::namespace::{self, Inside};
use crate::netlink::Netlink;
use crate::network::find;
use crate::record::Record;
use crate::{NetError, forwarding, rules, tap};

/// How much was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    Everything,
    /// VMMs are running: they keep their namespace, without a way out of it, and the next
    /// start connects it again.
    AllButTheNamespace,
}

/// Takes the network back, after which the host is as it was. To be called in the host's
/// namespace; it does not matter how far it had been made.
///
/// # Errors
/// All that occurred. What could not be taken back can be tried again.
pub fn undo() -> Result<Undone, NetError> {
    let record = Record::read()?;
    let mut errors = Vec::new();
    let mut note = |result: Result<(), NetError>| errors.extend(result.err());
    match Netlink::new() {
        Ok(mut host) => {
            note(forwarding::undo(&mut host, &record));
            note(delete_link(&mut host));
        }
        Err(e) => note(Err(e)),
    }
    note(rules::host(None).delete());
    let in_use = namespace::exists() && guests_are_there();
    if !in_use {
        note(namespace::remove(&record));
    }
    if !errors.is_empty() {
        return Err(NetError::Several(errors));
    }
    if in_use {
        let rest = Record {
            namespaces: record.namespaces,
            guest_tables: record.guest_tables,
            ..Record::default()
        };
        rest.write()?;
        return Ok(Undone::AllButTheNamespace);
    }
    Record::delete()?;
    Ok(Undone::Everything)
}

fn delete_link(host: &mut Netlink) -> Result<(), NetError> {
    match find(host, HOST_LINK)? {
        Some(link) => host
            .delete_link(link.index)
            .map_err(NetError::kernel(format!("delete {HOST_LINK}"))),
        None => Ok(()),
    }
}

/// Whether a VMM has its tap open. When that cannot be seen, nobody has one that works.
fn guests_are_there() -> bool {
    let taps = Inside::start().and_then(|inside| inside.run(tap::list));
    taps.is_ok_and(|taps| taps.iter().any(|tap| tap.in_use))
}
