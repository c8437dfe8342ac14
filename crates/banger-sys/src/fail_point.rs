//! Named places at which a test makes a daemon die, fail or wait, so that "a crash at any step
//! is repaired" is generated from a list. Nothing of it is in a release build.
//!
//! `BANGER_FAIL_POINT=create.row=kill,start.launched=delay:200` arms them: `kill` ends the
//! daemon by SIGKILL, `error` fails the operation there, `delay:MS` holds it for that long.

/// A point was armed with `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Failed on purpose at {0}")]
pub struct OnPurpose(pub &'static str);

#[cfg(debug_assertions)]
pub use armed::hit;

/// # Errors
/// Never: release builds have no fail points.
#[cfg(not(debug_assertions))]
#[inline]
#[allow(clippy::unused_async)]
pub async fn hit(_: &'static str, _: &'static [&'static str]) -> Result<(), OnPurpose> {
    Ok(())
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::OnPurpose;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Kill,
        Error,
        Delay(Duration),
    }

    /// Passes the point `name`, one of the program's `points`.
    ///
    /// # Errors
    /// When the point is armed with `error`.
    pub async fn hit(name: &'static str, points: &'static [&'static str]) -> Result<(), OnPurpose> {
        static ARMED: OnceLock<Vec<(&str, Action)>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("BANGER_FAIL_POINT").unwrap_or_default();
            parse(&text, points)
        });
        debug_assert!(points.contains(&name), "{name} is not in the list of points");
        match armed.iter().find(|(armed, _)| *armed == name) {
            None => Ok(()),
            Some((_, Action::Error)) => Err(OnPurpose(name)),
            Some((_, Action::Delay(time))) => {
                eprintln!("Held at {name} for {time:?}");
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Some((_, Action::Kill)) => {
                let own = rustix::process::getpid();
                let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
                std::future::pending().await
            }
        }
    }

    /// What is not understood is left out with a word: it is a test's own mistake.
    pub(super) fn parse(text: &str, points: &'static [&'static str]) -> Vec<(&'static str, Action)> {
        let mut armed = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let action = part.split_once('=').and_then(|(name, action)| {
                let action = match action.split_once(':') {
                    None if action == "kill" => Action::Kill,
                    None if action == "error" => Action::Error,
                    Some(("delay", ms)) => Action::Delay(Duration::from_millis(ms.parse().ok()?)),
                    _ => return None,
                };
                let name = points.iter().find(|point| **point == name)?;
                Some((*name, action))
            });
            match action {
                Some(action) => armed.push(action),
                None => eprintln!("Not a fail point: {part:?}"),
            }
        }
        armed
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::time::Duration;

    use super::armed::{Action, parse};

    const POINTS: &[&str] = &["create.row", "start.ready", "stop.noted"];

    #[test]
    fn arming_takes_known_points_and_actions_only() {
        assert_eq!(
            parse("create.row=kill,start.ready=delay:20,stop.noted=error", POINTS),
            [
                ("create.row", Action::Kill),
                ("start.ready", Action::Delay(Duration::from_millis(20))),
                ("stop.noted", Action::Error),
            ]
        );
        assert_eq!(
            parse("x=kill,create.row=burn,create.row,start.ready=delay:x", POINTS),
            []
        );
    }

    #[tokio::test]
    async fn what_is_not_armed_is_passed() {
        super::hit("create.row", POINTS).await.unwrap();
    }
}
