//! `banger daemon …`.

pub(crate) mod status;
