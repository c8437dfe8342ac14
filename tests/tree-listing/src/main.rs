//! `tree-listing DIR`: lists the root file system of a guest as its disk has it, without what
//! is mounted over it. DIR is made, on another file system, and the root is mounted there for
//! the time being. The last line is `end`.
#![allow(clippy::print_stdout, reason = "the listing is the program's output")]

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::mount::{UnmountFlags, mount_bind, unmount};

fn main() -> io::Result<()> {
    let place = std::env::args_os().nth(1).map(PathBuf::from);
    let place = place.ok_or_else(|| io::Error::other("usage: tree-listing DIR"))?;
    fs::create_dir_all(&place)?;
    // A bind mount that is not recursive has nothing of the other mounts.
    mount_bind("/", &place)?;
    let listing = tree_listing::list(&place);
    unmount(&place, UnmountFlags::DETACH)?;
    println!("{}end", tree_listing::print(&listing?));
    Ok(())
}
