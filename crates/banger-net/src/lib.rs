//! The network of system mode, as a plan and as what makes it so. Everything is written for all
//! slots at once, when the network is made: a VM needs one tap put on one bridge and no rule.
