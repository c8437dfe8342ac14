//! What no VMM needs, refused by EPERM: an addition to the VMM's own filter, for the time before
//! it has one and for the system calls that it leaves open.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{MaskedEq, Ne};
use seccompiler::{BackendError, SeccompAction, SeccompCondition, SeccompRule};

use super::filter;
use crate::launch::SystemCalls;

/// Restricts the calling thread and what it becomes, forever. Needs no-new-privileges.
pub(crate) fn restrict_vmm(calls: &SystemCalls) -> Result<(), seccompiler::Error> {
    // glibc then makes its threads with clone(2), whose flags can be looked at.
    let no_clone3 = filter(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        errno(libc::ENOSYS),
    )?;
    let refused = filter(rules(calls)?, SeccompAction::Allow, errno(libc::EPERM))?;
    seccompiler::apply_filter(&no_clone3)?;
    seccompiler::apply_filter(&refused)
}

const REFUSED: &[libc::c_long] = &[
    // Asynchronous calls, which no filter sees.
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    // Mounts and namespaces.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Files by handle, and of other kinds.
    libc::SYS_fanotify_init,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // The kernel's larger surfaces.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    // The whole machine.
    libc::SYS_acct,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
];

/// Namespaces by clone(2).
const NEW_NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

fn rules(calls: &SystemCalls) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|&number| (number, Vec::new())).collect();
    let namespaces = NEW_NAMESPACES
        .iter()
        .map(|flag| {
            let flag = u64::from(flag.cast_unsigned());
            SeccompRule::new(vec![SeccompCondition::new(0, Qword, MaskedEq(flag), flag)?])
        })
        .collect::<Result<_, BackendError>>()?;
    rules.insert(libc::SYS_clone, namespaces);
    if calls.unix_sockets {
        let unix = u64::from(libc::AF_UNIX.cast_unsigned());
        let others = SeccompRule::new(vec![SeccompCondition::new(0, Dword, Ne, unix)?])?;
        rules.insert(libc::SYS_socket, vec![others]);
    } else {
        // Not even those of the host's own services, which Landlock does not stop.
        rules.insert(libc::SYS_socket, Vec::new());
        rules.insert(libc::SYS_connect, Vec::new());
    }
    Ok(rules)
}

fn errno(number: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(number.cast_unsigned())
}
