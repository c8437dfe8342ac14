//! Long work: each piece has an object on the bus, reports how far it is, can be cancelled, and
//! says once how it ended.

mod job;
mod table;

pub(crate) use job::{ProcessRequest, ProcessRequests};
pub(crate) use table::Jobs;
#[cfg(test)]
pub(crate) use table::MAX_JOBS;

use zbus::OwnedObjectPath;

/// `/`: the path that stands for no object.
pub(crate) fn no_object() -> OwnedObjectPath {
    zbus::ObjectPath::from_static_str_unchecked("/").into()
}
