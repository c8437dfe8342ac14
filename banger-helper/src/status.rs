//! What works and what does not.

use crate::context::Context;

/// Name, whether it is well, and a sentence.
pub(crate) async fn checks(_: &Context, _: u32) -> Vec<(String, bool, String)> {
    Vec::new()
}
