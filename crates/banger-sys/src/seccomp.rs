//! The system calls of a worker: what an allocator, threads that are there and files that are
//! open already need. Everything else ends the process with SIGSYS.

mod vmm;

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, Le, MaskedEq};
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

pub(crate) use vmm::restrict_vmm;

/// Restricts all threads of this process forever. They are the last ones.
pub(crate) fn restrict() -> Result<(), seccompiler::Error> {
    let allowed = filter(rules()?, SeccompAction::KillProcess, SeccompAction::Allow)?;
    seccompiler::apply_filter_all_threads(&allowed)
}

/// Calls that need no look at their arguments: they reach only what is open already.
const PLAIN: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // Open files.
    libc::SYS_close,
    libc::SYS_fallocate,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        PLAIN.iter().map(|&number| (number, Vec::new())).collect();
    let mut allow = |number, alternatives: &[(u8, SeccompCmpArgLen, SeccompCmpOp, u64)]| {
        let one = |(index, len, op, value): &(u8, SeccompCmpArgLen, SeccompCmpOp, u64)| {
            SeccompRule::new(vec![SeccompCondition::new(
                *index,
                len.clone(),
                op.clone(),
                *value,
            )?])
        };
        let conditions = alternatives
            .iter()
            .map(one)
            .collect::<Result<_, BackendError>>()?;
        rules.insert(number, conditions);
        Ok::<_, BackendError>(())
    };
    let executable = libc::PROT_EXEC as u64;
    let own = u64::from(std::process::id());
    allow(libc::SYS_mmap, &[(2, Qword, MaskedEq(executable), 0)])?;
    allow(libc::SYS_mprotect, &[(2, Qword, MaskedEq(executable), 0)])?;
    // abort(3) of this process.
    allow(libc::SYS_tgkill, &[(0, Dword, Eq, own)])?;
    // The socket is the standard input; a panic's message goes to standard error.
    for call in [libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_sendto] {
        allow(call, &[(0, Dword, Eq, 0)])?;
    }
    for call in [libc::SYS_write, libc::SYS_writev] {
        allow(call, &[(0, Dword, Le, 2)])?;
    }
    allow(
        libc::SYS_fcntl,
        &[
            (1, Dword, Eq, libc::F_GETFD as u64),
            (1, Dword, Eq, libc::F_DUPFD_CLOEXEC as u64),
        ],
    )?;
    allow(
        libc::SYS_prctl,
        &[
            (0, Dword, Eq, libc::PR_SET_NAME as u64),
            (0, Dword, Eq, libc::PR_SET_VMA as u64),
        ],
    )?;
    Ok(rules)
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<Vec<seccompiler::sock_filter>, BackendError> {
    SeccompFilter::new(rules, others, listed, std::env::consts::ARCH.try_into()?)?.try_into()
}
