//! The monitor's own seccomp filter: the host calls its modules make, and no others.
//!
//! It is put on every thread when all that needs more (opening /dev/kvm and the bound directories,
//! starting the first stub process) is done, before guest code runs. The table is the list of
//! design.md 1.2: each row is a call and why it is made; what is not in it ends the monitor with one
//! line that names the call. rt_sigaction and execve are not in it, so that neither the handler
//! below nor the program can be replaced.
//!
//! Two calls that libc makes on its own account are answered with an error by filters of their own.
//! clone3 hides its flags behind a pointer that no filter can follow: upon ENOSYS libc uses clone,
//! whose flags the table holds to a thread's. openat is how malloc looks up the number of CPUs and
//! the overcommit policy; it does without.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword,
    SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::exit;

/// Why the filter could not be put on.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// It cannot be built: our bug.
    #[error("the monitor's seccomp filter cannot be built: {0}")]
    Build(#[from] BackendError),
    /// The host refuses it.
    #[error("the host refuses the monitor's seccomp filter: {0}")]
    Install(#[from] seccompiler::Error),
    /// The handler that names a refused call cannot be installed.
    #[error("SIGSYS: {0}")]
    Handler(io::Error),
}

/// One argument's condition.
#[derive(Clone, Copy)]
enum When {
    /// Always.
    Any,
    /// Argument `.0` (32 bits) is one of `.1`.
    OneOf(u8, &'static [u32]),
    /// Argument `.0` (64 bits) is `.1`.
    Is(u8, u64),
}
use When::{Any, Is, OneOf};

/// A call, and when it may be made.
type Row = (i64, When);

/// KVM_* requests that are used once a VM runs.
const KVM: &[u32] = &[
    0xae41,      // KVM_CREATE_VCPU
    0x4020_ae46, // KVM_SET_USER_MEMORY_REGION
    0xae80,      // KVM_RUN
    0x8090_ae81, // KVM_GET_REGS
    0x4090_ae82, // KVM_SET_REGS
    0x8138_ae83, // KVM_GET_SREGS
    0x4138_ae84, // KVM_SET_SREGS
    0x4008_ae89, // KVM_SET_MSRS
    0x4008_ae90, // KVM_SET_CPUID2
    0x8040_ae9f, // KVM_GET_VCPU_EVENTS
    0x4040_aea0, // KVM_SET_VCPU_EVENTS
    0x9000_aea4, // KVM_GET_XSAVE
    0x5000_aea5, // KVM_SET_XSAVE
    0x4188_aea7, // KVM_SET_XCRS
    0x4018_aee1, // KVM_SET_DEVICE_ATTR
];

/// The user's terminal: modes and size.
const TERMINAL: &[u32] = &[
    0x5401,      // TCGETS
    0x5402,      // TCSETS
    0x5403,      // TCSETSW
    0x5404,      // TCSETSF
    0x5413,      // TIOCGWINSZ
    0x802c_542a, // TCGETS2
    0x402c_542b, // TCSETS2
    0x402c_542c, // TCSETSW2
    0x402c_542d, // TCSETSF2
];

/// Attributes of an entry itself, without mounting anything.
const ENTRY: &[u32] = &[0x900]; // AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT

/// What a new thread shares (pthread_create(3)): everything.
const THREAD: u64 = 0x003d_0f00;

/// Every backend.
const COMMON: &[Row] = &[
    // Threads: tasks, timers, the watcher of the standard streams.
    (libc::SYS_clone, Is(0, THREAD)),
    (libc::SYS_clone3, Any), // refused by a filter of its own
    (libc::SYS_openat, Any), // likewise
    (libc::SYS_set_robust_list, Any),
    (libc::SYS_rseq, Any),
    (libc::SYS_sigaltstack, Any),
    (libc::SYS_rt_sigprocmask, Any),
    (libc::SYS_rt_sigreturn, Any),
    (libc::SYS_prctl, OneOf(0, &[15, 0x5356_4d41])), // PR_SET_NAME, PR_SET_VMA
    (libc::SYS_gettid, Any),
    (libc::SYS_getpid, Any),
    (libc::SYS_tgkill, Any), // kicks
    (libc::SYS_futex, Any),
    (libc::SYS_sched_yield, Any),
    (libc::SYS_sched_getaffinity, Any),
    (libc::SYS_restart_syscall, Any),
    (libc::SYS_exit, Any),
    (libc::SYS_exit_group, Any),
    // Memory: the allocator's, stacks, guest RAM.
    (libc::SYS_brk, Any),
    (libc::SYS_mmap, Any),
    (libc::SYS_munmap, Any),
    (libc::SYS_mremap, Any),
    (libc::SYS_mprotect, Any),
    (libc::SYS_madvise, Any),
    (libc::SYS_fallocate, Any),
    // Time and chance.
    (libc::SYS_clock_gettime, Any),
    (libc::SYS_clock_nanosleep, Any),
    (libc::SYS_nanosleep, Any),
    (libc::SYS_getrusage, Any),
    (libc::SYS_getrandom, Any),
    // `host::file`, `host::stream`, reports.
    (libc::SYS_read, Any),
    (libc::SYS_write, Any),
    (libc::SYS_writev, Any),
    (libc::SYS_pread64, Any),
    (libc::SYS_preadv, Any),
    (libc::SYS_pwrite64, Any),
    (libc::SYS_lseek, Any),
    (libc::SYS_ftruncate, Any),
    (libc::SYS_fsync, Any),
    (libc::SYS_fstat, Any),
    (libc::SYS_close, Any),
    (libc::SYS_fcntl, Any),
    (libc::SYS_poll, Any),
    (libc::SYS_ppoll, Any),
    // The event loop.
    (libc::SYS_epoll_create1, Any),
    (libc::SYS_epoll_ctl, Any),
    (libc::SYS_epoll_wait, Any),
    (libc::SYS_epoll_pwait, Any),
    (libc::SYS_eventfd2, Any),
    (libc::SYS_signalfd4, Any),
    (libc::SYS_timerfd_create, Any),
    (libc::SYS_timerfd_settime, Any),
    // `host::tree`. Of open calls only openat2, which is held inside a directory by its own flags.
    // newfstatat is for one entry of a directory: a link there is never followed.
    (libc::SYS_openat2, Any),
    (libc::SYS_newfstatat, OneOf(3, ENTRY)),
    (libc::SYS_readlinkat, Any),
    (libc::SYS_getdents64, Any),
    (libc::SYS_mkdirat, Any),
    (libc::SYS_symlinkat, Any),
    (libc::SYS_linkat, Any),
    (libc::SYS_renameat2, Any),
    (libc::SYS_unlinkat, Any),
    (libc::SYS_fchmod, Any),
    (libc::SYS_fchmodat, Any),
    (libc::SYS_fchownat, Any),
    (libc::SYS_utimensat, Any),
    (libc::SYS_fstatfs, Any),
    (libc::SYS_ioctl, OneOf(1, TERMINAL)),
];

/// The KVM backend besides.
const BY_KVM: &[Row] = &[
    (libc::SYS_ioctl, OneOf(1, KVM)),
    (libc::SYS_sched_setaffinity, Any),
    (libc::SYS_getcpu, Any),
];

/// The ptrace backend besides: stubs are its own children and tracees.
const BY_PTRACE: &[Row] = &[
    (libc::SYS_ptrace, Any),
    (libc::SYS_wait4, Any),
    (libc::SYS_waitid, Any),
    (libc::SYS_kill, Any),
    (libc::SYS_pidfd_open, Any),
    (libc::SYS_pidfd_send_signal, Any),
    (libc::SYS_sched_setaffinity, Any),
    (libc::SYS_getcpu, Any),
];

fn rules(rows: &[Row]) -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules = Vec::new();
    for (_, when) in rows {
        match when {
            Any => return Ok(Vec::new()),
            Is(arg, value) => {
                let condition = SeccompCondition::new(*arg, Qword, SeccompCmpOp::Eq, *value)?;
                rules.push(SeccompRule::new(vec![condition])?);
            }
            OneOf(arg, values) => {
                for value in *values {
                    let value = u64::from(*value);
                    let condition = SeccompCondition::new(*arg, Dword, SeccompCmpOp::Eq, value)?;
                    rules.push(SeccompRule::new(vec![condition])?);
                }
            }
        }
    }
    Ok(rules)
}

/// The filter of the backend of this name.
fn allowed(backend: &str) -> Result<BpfProgram, BackendError> {
    let own = if backend == "kvm" { BY_KVM } else { BY_PTRACE };
    let mut calls: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    for row in COMMON.iter().chain(own) {
        calls.entry(row.0).or_default().push(*row);
    }
    let mut map = BTreeMap::new();
    for (call, rows) in calls {
        map.insert(call, rules(&rows)?);
    }
    let (refused, granted) = (SeccompAction::Trap, SeccompAction::Allow);
    SeccompFilter::new(map, refused, granted, TargetArch::x86_64)?.try_into()
}

/// Calls answered with an error instead of ending the monitor.
const ANSWERED: [(i64, i32); 2] =
    [(libc::SYS_clone3, libc::ENOSYS), (libc::SYS_openat, libc::EACCES)];

/// A filter that answers `call` with `errno` and leaves all else to the others.
fn answering(call: i64, errno: i32) -> Result<BpfProgram, BackendError> {
    let map = BTreeMap::from([(call, Vec::new())]);
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(map, SeccompAction::Allow, answer, TargetArch::x86_64)?.try_into()
}

/// Puts the filter on every thread of the process.
///
/// # Errors
/// [`SeccompError`].
pub fn install(backend: &str) -> Result<(), SeccompError> {
    name_refusals().map_err(SeccompError::Handler)?;
    for (call, errno) in ANSWERED {
        seccompiler::apply_filter_all_threads(&answering(call, errno)?)?;
    }
    seccompiler::apply_filter_all_threads(&allowed(backend)?)?;
    Ok(())
}

/// Ends the monitor with a line that names the call. The call itself has not been made. Where
/// SIGSYS is blocked the host kills the process without a word.
extern "C" fn refused(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let mut text =
        *b"trapgate: host call 000000 refused by the monitor's own filter (a bug in trapgate)\n";
    // SAFETY: the host passes a siginfo_t for SIGSYS, whose si_syscall lies at offset 24 of the
    // 128 bytes (sigaction(2)); it is aligned there.
    let mut number = unsafe { info.cast::<u8>().add(24).cast::<u32>().read() };
    for digit in text[20..26].iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
    // SAFETY: write(2) and exit_group(2) are async-signal-safe; the pointer and length are `text`'s.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::syscall(libc::SYS_exit_group, libc::c_long::from(exit::FAILURE));
    }
}

fn name_refusals() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = refused;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: `action` is initialised and its handler is async-signal-safe.
    let rc = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_build_and_leave_out_what_could_undo_them() {
        for backend in ["kvm", "ptrace"] {
            assert!(allowed(backend).is_ok(), "{backend}");
        }
        for (call, errno) in ANSWERED {
            assert!(answering(call, errno).is_ok());
        }
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_rt_sigaction,
            libc::SYS_open,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_seccomp,
            libc::SYS_process_vm_writev,
        ];
        for rows in [COMMON, BY_KVM, BY_PTRACE] {
            assert!(!rows.iter().any(|(call, _)| never.contains(call)));
        }
    }
}
