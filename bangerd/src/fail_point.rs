//! The daemon's fail points, see [`banger_sys::fail_point`].

use banger_bus::{Error, ErrorKind};

use crate::core::capability::Kind;

/// Passes one of [`POINTS`].
macro_rules! fail_point {
    ($name:literal) => {
        $crate::fail_point::hit($name).await?
    };
}
pub(crate) use fail_point;

/// Every point, in the order in which an operation passes them. A VM's parts have theirs by
/// their names: see [`of`].
pub(crate) const POINTS: &[&str] = &[
    "create.begin",
    "create.resolved",
    "create.row",
    "create.directory",
    "create.keys",
    "create.disk",
    "create.made",
    "start.begin",
    "start.state",
    "start.directory",
    "start.network",
    "start.disk",
    "start.boot",
    "start.console",
    "start.channels",
    "start.planned",
    "start.spawned",
    "start.recorded",
    "start.scope",
    "start.released",
    "start.ready",
    "stop.begin",
    "stop.asked",
    "stop.exited",
    "stop.disk",
    "stop.boot",
    "stop.console",
    "stop.channels",
    "stop.network",
    "stop.directory",
    "stop.cleaned",
    "stop.noted",
    // Of system mode alone.
    "slot.acquired",
    "slot.given-back",
    "delete.begin",
    "delete.intent",
    "delete.state",
    "delete.ended",
    "delete.keys",
    "delete.disk",
    "delete.directory",
    "delete.unmade",
    "delete.forgotten",
    "delete.done",
];

/// The point after a part was handled: `create`, `start`, `stop` or `delete`, and its name.
pub(crate) fn of(operation: &str, part: Kind) -> Option<&'static str> {
    POINTS.iter().copied().find(|point| {
        point
            .strip_prefix(operation)
            .and_then(|rest| rest.strip_prefix('.'))
            == Some(part.name())
    })
}

/// # Errors
/// When the point is armed with `error`.
pub(crate) async fn hit(name: &'static str) -> Result<(), Error> {
    banger_sys::fail_point::hit(name, POINTS)
        .await
        .map_err(|e| Error::new(ErrorKind::Failed, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &[&str] = &[
        include_str!("core/create.rs"),
        include_str!("core/start.rs"),
        include_str!("core/launch.rs"),
        include_str!("core/slots.rs"),
        include_str!("core/stop.rs"),
        include_str!("core/delete.rs"),
    ];

    #[test]
    fn the_list_is_what_the_operations_pass() {
        let mut used: Vec<&str> = SOURCES
            .iter()
            .flat_map(|source| source.split("fail_point!(\"").skip(1))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        for (operation, waves) in [
            ("create", Kind::MAKE),
            ("delete", Kind::MAKE),
            ("start", Kind::PREPARE),
            ("stop", Kind::PREPARE),
        ] {
            for kind in waves.iter().copied().flatten() {
                used.push(of(operation, *kind).unwrap_or_else(|| panic!("{operation} {kind:?}")));
            }
        }
        used.sort_unstable();
        // Both ways to launch pass some of the same.
        used.dedup();
        let mut listed = POINTS.to_vec();
        listed.sort_unstable();
        assert_eq!(used, listed);
    }
}
