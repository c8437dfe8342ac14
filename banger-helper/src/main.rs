//! banger's root helper: mechanism only. It is confined before its runtime exists.

fn main() {}
