//! What has to be recorded of a program, and whether it needs a process of its own, from its calls.

use super::{desc::Descs, encode::Options, prog::Program};

/// Calls that leave more behind than is undone in the process for the next program: new processes, an end,
/// identity and limits that cannot be regained.
const FRESH: &[&str] = &[
    "clone",
    "clone3",
    "fork",
    "vfork",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "setsid",
    "setpgid",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
    "capset",
    "setrlimit",
    "prlimit64",
    "prctl",
    "personality",
    "unshare",
    "setns",
    "chroot",
    "pivot_root",
    "setpriority",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
    "sched_setaffinity",
    "ioprio_set",
    "set_tid_address",
    "set_robust_list",
    "arch_prctl",
    "set_mempolicy",
    "kill",
    "tkill",
    "tgkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_send_signal",
    "timer_create",
    "mlockall",
];
/// Calls after which mappings are of interest.
const MAPPINGS: &[&str] = &[
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "brk",
    "shmat",
    "shmdt",
    "madvise",
    "mlock",
    "munlock",
    "mlock2",
    "mlockall",
    "munlockall",
    "remap_file_pages",
    "pkey_mprotect",
    "msync",
    "mbind",
];
/// Calls after which signal masks, actions and pending signals are.
const SIGNALS: &[&str] = &[
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigpending",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "kill",
    "tkill",
    "tgkill",
    "sigaltstack",
    "signalfd",
    "signalfd4",
    "ppoll",
    "pselect6",
    "epoll_pwait",
    "epoll_pwait2",
    "pidfd_send_signal",
];
/// Calls after which identity, children, directories and timers are.
const PROCESS: &[&str] = &[
    "setsid",
    "setpgid",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
    "umask",
    "chdir",
    "fchdir",
    "chroot",
    "alarm",
    "setitimer",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "wait4",
    "waitid",
    "capset",
];

/// The options a program is run with.
#[must_use]
pub fn of(program: &Program, descs: &Descs) -> Options {
    let calls: Vec<&str> = program.calls.iter().map(|call| descs.get(call.desc).call()).collect();
    let any = |list: &[&str]| calls.iter().any(|call| list.contains(call));
    let mut paths = false;
    for call in &program.calls {
        paths |= descs.get(call.desc).args.iter().any(super::desc::Type::is_path);
    }
    Options {
        fresh: any(FRESH) || program.calls.iter().any(|call| call.is_async),
        fds: true,
        vmas: any(MAPPINGS),
        signals: any(SIGNALS),
        files: paths,
        process: any(PROCESS),
        patience: 0,
    }
}
