//! Making, naming, ending and waiting for processes.

use crate::{
    linux::{
        sys::{clone, exec, process, resource, wait},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(39, getpid() => process::getpid, Full),
    row!(56, clone(flags: Flags("clone"), stack: Addr, parent_tid: Addr, child_tid: Addr, tls: Addr)
        => clone::clone, Partial, "namespaces: EPERM"),
    row!(57, fork() => clone::fork, Full),
    row!(58, vfork() => clone::vfork, Full),
    row!(59, execve(pathname: Path, argv: StrArray, envp: Addr) => exec::execve, Partial,
        "no file capabilities"),
    row!(60, exit(status: Int) => process::exit, Full),
    row!(61, wait4(pid: Pid, wstatus: StructOut("int"), options: Flags("wait"),
        rusage: StructOut("rusage")) => wait::wait4, Full),
    row!(97, getrlimit(resource: Enum("rlimit"), rlim: StructOut("rlimit"))
        => resource::getrlimit, Full),
    row!(98, getrusage(who: Int, usage: StructOut("rusage")) => resource::getrusage, Partial,
        "no block I/O or swap counts; other threads' CPU time is as of their last wait"),
    row!(100, times(buf: StructOut("tms")) => resource::times, Full),
    row!(109, setpgid(pid: Pid, pgid: Pid) => process::setpgid, Full),
    row!(110, getppid() => process::getppid, Full),
    row!(111, getpgrp() => process::getpgrp, Full),
    row!(112, setsid() => process::setsid, Full),
    row!(121, getpgid(pid: Pid) => process::getpgid, Full),
    row!(124, getsid(pid: Pid) => process::getsid, Full),
    row!(140, getpriority(which: Int, who: Int) => resource::getpriority, Full),
    row!(141, setpriority(which: Int, who: Int, prio: Int) => resource::setpriority, Partial,
        "kept and shown; the host schedules all alike"),
    row!(160, setrlimit(resource: Enum("rlimit"), rlim: StructIn("rlimit"))
        => resource::setrlimit, Partial, "CPU, RSS, CORE and RTTIME are not enforced"),
    row!(186, gettid() => process::gettid, Full),
    row!(218, set_tid_address(tidptr: Addr) => process::set_tid_address, Full),
    row!(231, exit_group(status: Int) => process::exit_group, Full),
    row!(247, waitid(idtype: Int, id: Int, infop: StructOut("siginfo"), options: Flags("wait"),
        rusage: StructOut("rusage")) => wait::waitid, Full),
    row!(302, prlimit64(pid: Pid, resource: Enum("rlimit"), new_limit: StructIn("rlimit"),
        old_limit: StructOut("rlimit")) => resource::prlimit64, Partial,
        "CPU, RSS, CORE and RTTIME are not enforced"),
    row!(322, execveat(dirfd: DirFd, pathname: Path, argv: StrArray, envp: Addr, flags: Flags("at"))
        => exec::execveat, Partial, "no file capabilities"),
    row!(424, pidfd_send_signal(pidfd: Fd, sig: Signal, info: StructIn("siginfo"), flags: Hex)
        => process::pidfd_send_signal, Full),
    row!(434, pidfd_open(pid: Pid, flags: Hex) => process::pidfd_open, Partial,
        "no PIDFD_THREAD"),
    row!(435, clone3(cl_args: StructIn("clone_args"), size: Size) => clone::clone3, Partial,
        "namespaces, set_tid: EPERM; cgroups: EINVAL"),
    row!(438, pidfd_getfd(pidfd: Fd, targetfd: Fd, flags: Hex) => process::pidfd_getfd, Partial,
        "permission by user ids alone"),
];
