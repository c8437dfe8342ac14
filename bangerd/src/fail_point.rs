//! Named places at which a test makes the daemon die, fail or wait, so that "a crash at any
//! step is repaired" is generated from a list. Nothing of it is in a release build.
//!
//! `BANGER_FAIL_POINT=create.row=kill,start.launched=delay:200` arms them: `kill` ends the
//! daemon by SIGKILL, `error` fails the operation there, `delay:MS` holds it for that long.

use banger_bus::Error;

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
    "start.disk",
    "start.boot",
    "start.console",
    "start.network",
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
    "stop.network",
    "stop.channels",
    "stop.directory",
    "stop.cleaned",
    "stop.noted",
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

#[cfg(debug_assertions)]
pub(crate) use armed::hit;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::time::Duration;

    use banger_bus::ErrorKind;

    use super::{Error, POINTS};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Kill,
        Error,
        Delay(Duration),
    }

    /// # Errors
    /// When the point is armed with `error`.
    pub(crate) async fn hit(name: &'static str) -> Result<(), Error> {
        static ARMED: OnceLock<Vec<(String, Action)>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("BANGER_FAIL_POINT").unwrap_or_default();
            parse(&text)
        });
        debug_assert!(POINTS.contains(&name), "{name} is not in POINTS");
        match armed.iter().find(|(armed, _)| armed == name) {
            None => Ok(()),
            Some((_, Action::Error)) => Err(Error::new(
                ErrorKind::Failed,
                format!("Failed on purpose at {name}"),
            )),
            Some((_, Action::Delay(time))) => {
                tracing::info!(name, ?time, "Held by a fail point");
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Some((_, Action::Kill)) => {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                std::future::pending().await
            }
        }
    }

    /// What is not understood is left out with a warning: it is a test's own mistake.
    pub(super) fn parse(text: &str) -> Vec<(String, Action)> {
        let mut armed = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let action = part.split_once('=').and_then(|(name, action)| {
                let action = match action.split_once(':') {
                    None if action == "kill" => Action::Kill,
                    None if action == "error" => Action::Error,
                    Some(("delay", ms)) => Action::Delay(Duration::from_millis(ms.parse().ok()?)),
                    _ => return None,
                };
                POINTS.contains(&name).then(|| (name.to_owned(), action))
            });
            match action {
                Some(action) => armed.push(action),
                None => tracing::warn!(part, "Not a fail point"),
            }
        }
        armed
    }
}

/// # Errors
/// Never: release builds have no fail points.
#[cfg(not(debug_assertions))]
#[inline]
#[allow(clippy::unused_async)]
pub(crate) async fn hit(_: &'static str) -> Result<(), Error> {
    Ok(())
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    const SOURCES: &[&str] = &[
        include_str!("core/create.rs"),
        include_str!("core/start.rs"),
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
        let mut listed = POINTS.to_vec();
        listed.sort_unstable();
        assert_eq!(used, listed);
    }

    #[test]
    fn arming_takes_known_points_and_actions_only() {
        use armed::Action;
        assert_eq!(
            armed::parse("create.row=kill,start.ready=delay:20,stop.noted=error"),
            [
                ("create.row".to_owned(), Action::Kill),
                (
                    "start.ready".to_owned(),
                    Action::Delay(std::time::Duration::from_millis(20))
                ),
                ("stop.noted".to_owned(), Action::Error),
            ]
        );
        assert_eq!(
            armed::parse("x=kill,create.row=burn,create.row,start.ready=delay:x"),
            []
        );
    }
}
