//! Becoming another user, for good.

use std::io;

use rustix::process::{DumpableBehavior, Gid, Uid, getgroups};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::launch::Identity;

/// Makes this thread, which must be the only one, that user in every respect: real, effective
/// and saved ids and all groups. The capabilities go by that.
pub(crate) fn take(identity: &Identity) -> io::Result<()> {
    // Between here and execve(2) this process still holds what its parent gave it: the user
    // whom it becomes must not look into it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    // In this order: whoever is the user already may no longer change groups.
    set_thread_groups(&groups(identity))?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // The kernel resets it when the ids change, to what /proc/sys/fs/suid_dumpable says.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// To be called when the capabilities are gone: looks at all that [`take`] changed, and tries
/// to go back.
pub(crate) fn verify(identity: &Identity) -> io::Result<()> {
    let mut now = getgroups()?;
    let mut wanted = groups(identity);
    for list in [&mut now, &mut wanted] {
        list.sort_unstable_by_key(|group| group.as_raw());
        list.dedup();
    }
    expect(now == wanted, "other groups are left")?;
    let left = "another id is left";
    expect(res_ids(libc::getresuid)? == [identity.uid; 3], left)?;
    expect(res_ids(libc::getresgid)? == [identity.gid; 3], left)?;
    let root = Uid::ROOT;
    expect(
        set_thread_res_uid(root, root, root).is_err(),
        "root can be had back",
    )?;
    expect(
        set_thread_res_uid(None, root, None).is_err(),
        "root can be had back",
    )?;
    let root = Gid::ROOT;
    expect(
        set_thread_res_gid(root, root, root).is_err(),
        "root's group can be had back",
    )?;
    expect(set_thread_groups(&[root]).is_err(), "groups can be changed")
}

fn groups(identity: &Identity) -> Vec<Gid> {
    identity
        .groups
        .iter()
        .map(|group| Gid::from_raw(*group))
        .collect()
}

fn expect(holds: bool, otherwise: &'static str) -> io::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::other(otherwise))
    }
}

/// The real, effective and saved id, by getresuid(2) or getresgid(2).
fn res_ids(
    call: unsafe extern "C" fn(*mut libc::uid_t, *mut libc::uid_t, *mut libc::uid_t) -> libc::c_int,
) -> io::Result<[u32; 3]> {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: both calls write one number to each of three valid places.
    let result = unsafe { call(&raw mut real, &raw mut effective, &raw mut saved) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok([real, effective, saved])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_somebody_else_is_not_verified() {
        let [uid, ..] = res_ids(libc::getresuid).unwrap();
        let [gid, ..] = res_ids(libc::getresgid).unwrap();
        let groups: Vec<u32> = getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        let refusal = |uid, gid, groups| {
            let identity = Identity { uid, gid, groups };
            verify(&identity).unwrap_err().to_string()
        };
        let mut more = groups.clone();
        more.push(77_777);
        assert_eq!(refusal(uid, gid, more), "other groups are left");
        assert_eq!(refusal(uid + 1, gid, groups.clone()), "another id is left");
        assert_eq!(refusal(uid, gid + 1, groups.clone()), "another id is left");
        if rustix::process::geteuid().is_root() {
            assert_eq!(refusal(uid, gid, groups), "root can be had back");
        }
    }
}
