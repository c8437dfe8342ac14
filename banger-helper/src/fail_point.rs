//! The helper's fail points, see [`banger_sys::fail_point`].

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult};

/// Every point, in the order in which an operation passes them.
pub const POINTS: &[&str] = &[
    "acquire.begin",
    "acquire.written",
    "acquire.tap",
    "release.begin",
    "release.ended",
    "release.tap",
    "release.removed",
    "launch.begin",
    "launch.spawned",
    "launch.ready",
    "launch.scope",
    "launch.noted",
    "launch.released",
];

/// Passes one of [`POINTS`].
///
/// # Errors
/// When the point is armed with `error`.
pub(crate) async fn hit(name: &'static str) -> HelperResult<()> {
    banger_sys::fail_point::hit(name, POINTS)
        .await
        .map_err(|e| HelperError::new(ErrorKind::Failed, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &[&str] = &[
        include_str!("ops/acquire_slot.rs"),
        include_str!("ops/release_slot.rs"),
        include_str!("launch/mod.rs"),
    ];

    #[test]
    fn the_list_is_what_the_operations_pass() {
        let used: Vec<&str> = SOURCES
            .iter()
            .flat_map(|source| source.split("hit(\"").skip(1))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert_eq!(used, POINTS);
    }
}
