#![no_main]
banger_fuzz::fuzz!(names);
