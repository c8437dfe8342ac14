#![no_main]
banger_fuzz::fuzz!(layer, archive);
