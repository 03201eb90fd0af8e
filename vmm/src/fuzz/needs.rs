//! What has to be recorded of a program, and whether it needs a process of its own, from its calls.

use trapgate_kernel::linux::table::Kind;

use super::{
    desc::{Desc, Descs, Type},
    encode::Options,
    prog::{Arg, Program},
    rng::Rng,
};

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
        paths |= descs.get(call.desc).args.iter().any(Type::is_path);
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

/// Calls whose effects reach further than a program, or that answer by the machine's own lights: not made by
/// chance where Linux itself is a target. The sandbox denies the dangerous ones anyway.
const NOT_NATIVE: &[&str] = &[
    // The sandbox's filter cannot see its flags.
    "clone3",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "ptrace",
    "reboot",
    "syslog",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
    "sethostname",
    "setdomainname",
    "unshare",
    "setns",
    "vhangup",
    "personality",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "sync",
    "pkey_mprotect",
    "pkey_alloc",
    "pkey_free",
    "get_mempolicy",
    "set_mempolicy",
    "mbind",
    "migrate_pages",
    "move_pages",
    "sysinfo",
    "statfs",
    "fstatfs",
    "sched_getaffinity",
    "sched_setaffinity",
    "execve",
    "execveat",
    "restart_syscall",
    "rt_sigreturn",
    "getrusage",
    "get_robust_list",
    "arch_prctl",
    "ioperm",
    "iopl",
];
/// Calls that often end or stop the program, so that little is seen of what comes after.
const RARE: &[&str] = &[
    "exit",
    "exit_group",
    "pause",
    "rt_sigsuspend",
    "vfork",
    "clone",
    "clone3",
    "kill",
    "tkill",
    "tgkill",
    "alarm",
    "setitimer",
    "flock",
    "rt_sigtimedwait",
    "accept",
    "accept4",
    "semop",
    "semtimedop",
    "msgrcv",
    "mq_timedreceive",
    "mq_timedsend",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_send_signal",
    "close_range",
    "setrlimit",
    "prlimit64",
    "mlockall",
    "futex_waitv",
    "getdents",
    "getdents64",
    "times",
    "clock_nanosleep",
    "nanosleep",
    "set_tid_address",
    "select",
    "pselect6",
    "poll",
    "ppoll",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "wait4",
    "waitid",
    "recvmmsg",
    "sendfile",
    "copy_file_range",
    "splice",
    "tee",
    "vmsplice",
    "prctl",
    "futex",
    "setpriority",
];

/// May be made by chance where Linux itself runs it.
#[must_use]
pub fn is_native(call: &str) -> bool {
    !NOT_NATIVE.contains(&call)
}

/// Needs a process of its own.
#[must_use]
pub fn is_fresh(call: &str) -> bool {
    FRESH.contains(&call)
}

/// To be made now and then only.
#[must_use]
pub fn is_rare(call: &str) -> bool {
    RARE.contains(&call)
}

/// Facts that vary from run to run by their nature: a call, and what about it ([`super::outcome::Key::kind`]).
const VARYING: &[(&str, &str)] = &[
    ("clock_gettime", "memory"),
    ("gettimeofday", "memory"),
    ("time", "return"),
    ("times", "return"),
    ("getrandom", "memory"),
    ("getitimer", "memory"),
    ("setitimer", "memory"),
    ("timer_gettime", "memory"),
    ("timer_settime", "memory"),
    ("timerfd_gettime", "memory"),
    ("timerfd_settime", "memory"),
    ("alarm", "return"),
    ("clock_getres", "memory"),
    ("getcpu", "memory"),
    ("sched_rr_get_interval", "memory"),
    ("adjtimex", "memory"),
    ("clock_adjtime", "memory"),
    ("sysinfo", "memory"),
    ("getdents", "memory"),
    ("getdents64", "memory"),
];

/// Says nothing about a kernel.
#[must_use]
pub fn varies(call: &str, kind: &str) -> bool {
    VARYING.contains(&(call, kind))
}

/// Names (or their beginnings) of calls whose descriptors `call` is for; none: any.
#[must_use]
pub fn makers(call: &str) -> &'static [&'static str] {
    match call {
        "bind" | "connect" | "listen" | "accept" | "accept4" | "getsockname" | "getpeername"
        | "setsockopt" | "getsockopt" | "sendto" | "recvfrom" | "sendmsg" | "recvmsg"
        | "sendmmsg" | "recvmmsg" | "shutdown" => {
            &["socket$", "socketpair$unix", "socketpair", "socket", "accept"]
        }
        "epoll_ctl" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2" => {
            &["epoll_create1", "openat", "pipe2", "eventfd2"]
        }
        "timerfd_settime" | "timerfd_gettime" => &["timerfd_create"],
        "inotify_add_watch" | "inotify_rm_watch" => &["inotify_init1"],
        "mq_timedsend" | "mq_timedreceive" | "mq_notify" | "mq_getsetattr" => &["mq_open"],
        "pidfd_send_signal" | "pidfd_getfd" => &["pidfd_open"],
        "fchdir" => &["openat", "open"],
        "splice" | "tee" | "vmsplice" => &["pipe2", "openat"],
        _ => &[],
    }
}

/// Takes the worst out of a call's arguments: waits without an end, and what would end the run's meaning.
pub fn tame(desc: &Desc, args: &mut [Arg], rng: &mut Rng) {
    let name = desc.call();
    for (index, kind) in desc.args.iter().enumerate() {
        let is_timeout = matches!(kind, Type::Pointer(_, to) if matches!(**to, Type::Struct("timespec" | "timeval", _)))
            && matches!(
                name,
                "ppoll"
                    | "pselect6"
                    | "select"
                    | "rt_sigtimedwait"
                    | "futex"
                    | "futex_waitv"
                    | "semtimedop"
                    | "epoll_pwait2"
                    | "recvmmsg"
                    | "mq_timedsend"
                    | "mq_timedreceive"
                    | "nanosleep"
                    | "clock_nanosleep"
            );
        let (secs, nanos) = (Arg::Value(0), Arg::Value(*rng.pick(&[0, 0, 1000, 1_000_000])));
        match (&mut args[index], desc.row.args.get(index).map_or("", |arg| arg.0)) {
            // Now and then a wait may be without end: the executor's patience ends it.
            (arg @ Arg::Value(_), _) if is_timeout && rng.chance(63, 64) => {
                *arg = Arg::Pointer(0x7ff0 * 8, Some(Box::new(Arg::Group(vec![secs, nanos]))));
            }
            (Arg::Pointer(_, Some(to)), _) if is_timeout => {
                if let Arg::Group(values) = &mut **to
                    && let Some(Arg::Value(seconds)) = values.first_mut()
                    && seconds.cast_signed() > 0
                    && rng.chance(63, 64)
                {
                    *seconds = 0;
                }
            }
            (Arg::Value(value), "timeout")
                if value.cast_signed() != 0 && matches!(kind, Type::Number(_, Kind::Int)) =>
            {
                *value = if rng.chance(1, 64) { *value } else { *value & 1 };
            }
            _ => {}
        }
    }
    let or = |args: &mut [Arg], index: usize, bits: u64| {
        if let Some(Arg::Value(value)) = args.get_mut(index) {
            *value |= bits;
        }
    };
    let mostly = rng.chance(7, 8);
    match name {
        // SOCK_NONBLOCK, O_NONBLOCK, WNOHANG, LOCK_NB, IPC_NOWAIT, MSG_DONTWAIT.
        "socket" | "socketpair" if mostly => or(args, 1, 0o4000),
        "accept4" if mostly => or(args, 3, 0o4000),
        "pipe2" | "eventfd2" | "signalfd4" | "timerfd_create" if mostly => {
            let last = args.len() - 1;
            or(args, last, 0o4000);
        }
        "inotify_init1" if mostly => or(args, 0, 0o4000),
        "mq_open" if mostly => or(args, 1, 0o4000),
        "open" if mostly => or(args, 1, 0o4000),
        "openat" if mostly => or(args, 2, 0o4000),
        "wait4" if mostly => or(args, 2, 1),
        "waitid" if mostly => or(args, 3, 1),
        "flock" if mostly => or(args, 1, 4),
        "msgrcv" if mostly => or(args, 4, 0o4000),
        "msgsnd" if mostly => or(args, 3, 0o4000),
        "recvfrom" | "sendto" if mostly => or(args, 3, 0x40),
        "recvmsg" | "sendmsg" if mostly => or(args, 2, 0x40),
        // A limit of nothing leaves nothing to see.
        "clone" if desc.name == "clone" => {
            if let Some(Arg::Value(flags)) = args.first_mut() {
                // Only what makes a process that soon ends by itself; namespaces are refused.
                *flags &= 0x7c02_1100 ^ 0x4100;
                *flags |= 17;
            }
            if let Some(stack) = args.get_mut(1) {
                *stack = Arg::Value(0);
            }
        }
        _ => {}
    }
}
