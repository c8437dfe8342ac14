//! `banger engine …`: what runs the guests.

pub(crate) mod install;
