#![no_main]
banger_fuzz::fuzz!(bundle, archive);
