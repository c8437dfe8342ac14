//! What the helper says, with fields by which it is found: `journalctl -u banger` shows all of
//! it, `journalctl -u banger-vm-7.scope` what is about slot 7.

use std::fmt::Write as _;

use banger_model::{Event, Slot};
use banger_sys::journal::Entry;

pub use banger_sys::journal::Priority;

const IDENTIFIER: &str = "banger-helper";
/// By it root's entries show with another unit than the writer's (journalctl(1), --unit).
const OBJECT: &str = "OBJECT_SYSTEMD_UNIT";
const ALL: &str = "banger.service";

/// Writes an entry; to standard error where there is no journal. Field names are fixed and
/// valid, values are anything.
pub fn say(priority: Priority, message: &str, fields: &[(&str, &str)]) {
    entry(priority, message, fields).send();
}

/// Writes an entry about an event that the catalogue explains.
pub fn tell(event: Event, priority: Priority, message: &str, fields: &[(&str, &str)]) {
    told(event, priority, message, fields).send();
}

/// As [`tell`], where the event is about a slot: it shows among what its VMM says.
pub fn tell_of(slot: Slot, event: Event, message: &str, fields: &[(&str, &str)]) {
    told(event, Priority::Info, message, fields)
        .with("BANGER_SLOT", &slot.to_string())
        .with(OBJECT, &slot.unit())
        .send();
}

/// An error with its causes, as one text.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn told(event: Event, priority: Priority, message: &str, fields: &[(&str, &str)]) -> Entry {
    entry(priority, message, fields)
        .with("MESSAGE_ID", event.id())
        .with("BANGER_EVENT", event.name())
}

fn entry(priority: Priority, message: &str, fields: &[(&str, &str)]) -> Entry {
    let entry = Entry::new(IDENTIFIER, priority, message).with(OBJECT, ALL);
    fields
        .iter()
        .fold(entry, |entry, (name, value)| entry.with(name, value))
}
