//! The helper's fail points, see [`banger_sys::fail_point`].

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult};

/// Passes one of [`POINTS`].
macro_rules! fail_point {
    ($name:literal) => {
        $crate::fail_point::hit($name).await?
    };
}
pub(crate) use fail_point;

/// Every point, in the order in which an operation passes them.
pub const POINTS: &[&str] = &[
    "acquire.begin",
    "acquire.written",
    "acquire.tap",
    "release.begin",
    "release.ended",
    "release.tap",
    "release.removed",
];

/// # Errors
/// When the point is armed with `error`.
pub(crate) async fn hit(name: &'static str) -> HelperResult<()> {
    let passed = banger_sys::fail_point::hit(name, POINTS).await;
    passed.map_err(|error| HelperError::new(ErrorKind::Failed, error.to_string()))
}
