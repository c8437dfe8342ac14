//! What the network's keeper gives up once the namespace exists.

use std::io;

use banger_sys::landlock::{Confinement, FileAccess, FileRule, restrict_self};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Confines the calling thread and the programs that it starts: network administration, the
/// kernel's settings of the network, nft, and the record.
pub(super) fn confine() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let kept = rustix::thread::capabilities(None)?.permitted & CapabilitySet::NET_ADMIN;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    restrict_self(&confinement()).map(drop)
}

fn confinement() -> Confinement {
    let rules = [
        (
            FileAccess::ReadExecute,
            &["/usr", "/lib", "/lib64", "/bin", "/sbin"][..],
        ),
        // Name servers are named in either; links lead anywhere below.
        (FileAccess::Read, &["/etc", "/run", "/proc", "/dev/urandom"]),
        (FileAccess::Write, &["/proc/sys/net", "/dev/null"]),
        (FileAccess::Own, &[banger_net::RECORD_DIRECTORY]),
    ];
    let files = rules
        .into_iter()
        .flat_map(|(access, paths)| paths.iter().map(move |path| FileRule::path(*path, access)))
        .collect();
    Confinement {
        files,
        tcp_bind: Some(Vec::new()),
        tcp_connect: Some(Vec::new()),
        scoped: true,
    }
}
