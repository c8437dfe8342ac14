//! Launching a slot's VMM.
