//! Writing a stream of files below a directory of the guest.

use std::io::BufRead;
use std::path::Path;

use banger_files::{Owner, Root, Rules, remove, unpack};
use banger_model::agent::PutAnswer;

use super::answer::Refusal;
use super::list;

pub(super) struct Put {
    pub(super) root: String,
    pub(super) make_root: bool,
    pub(super) replace: bool,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) remove: u64,
}

pub(super) fn put(put: &Put, mut input: impl BufRead) -> Result<PutAnswer, Refusal> {
    let path = Path::new(&put.root);
    if put.make_root {
        std::fs::create_dir_all(path).map_err(|error| Refusal::file("make", path, &error))?;
    }
    let root = Root::open(path).map_err(|error| Refusal::file("open", path, &error))?;
    let gone = list::read(&mut input, put.remove)?;
    remove(&root, list::paths(&gone))?;
    let owner = match put.owner {
        Some((uid, gid)) => Owner::Is(uid, gid),
        None => Owner::Stream,
    };
    let rules = Rules {
        replace: put.replace,
        ..Rules::trusted(owner)
    };
    let unpacked = unpack(input, &root, &rules, &mut |_| Ok(()))?;
    Ok(PutAnswer {
        files: unpacked.files,
        bytes: unpacked.bytes,
    })
}
