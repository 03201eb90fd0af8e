//! Signals.

use crate::{
    linux::{
        sys::{signal, signalfd},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(13, rt_sigaction(signum: Signal, act: StructIn("sigaction"), oldact: StructOut("sigaction"),
        sigsetsize: Size) => signal::rt_sigaction, Full),
    row!(14, rt_sigprocmask(how: Enum("sigprocmask"), set: StructIn("sigset"),
        oldset: StructOut("sigset"), sigsetsize: Size) => signal::rt_sigprocmask, Full),
    row!(15, rt_sigreturn() => signal::rt_sigreturn, Full),
    row!(34, pause() => signal::pause, Full),
    row!(62, kill(pid: Pid, sig: Signal) => signal::kill, Full),
    row!(127, rt_sigpending(set: StructOut("sigset"), sigsetsize: Size)
        => signal::rt_sigpending, Full),
    row!(128, rt_sigtimedwait(set: StructIn("sigset"), info: StructOut("siginfo"),
        timeout: StructIn("timespec"), sigsetsize: Size) => signal::rt_sigtimedwait, Full),
    row!(129, rt_sigqueueinfo(tgid: Pid, sig: Signal, info: StructIn("siginfo"))
        => signal::rt_sigqueueinfo, Full),
    row!(130, rt_sigsuspend(mask: StructIn("sigset"), sigsetsize: Size)
        => signal::rt_sigsuspend, Full),
    row!(131, sigaltstack(ss: StructIn("stack"), old_ss: StructOut("stack"))
        => signal::sigaltstack, Full),
    row!(200, tkill(tid: Pid, sig: Signal) => signal::tkill, Full),
    row!(219, restart_syscall() => signal::restart_syscall, Full),
    row!(234, tgkill(tgid: Pid, tid: Pid, sig: Signal) => signal::tgkill, Full),
    row!(297, rt_tgsigqueueinfo(tgid: Pid, tid: Pid, sig: Signal, info: StructIn("siginfo"))
        => signal::rt_tgsigqueueinfo, Full),
    row!(282, signalfd(fd: Fd, mask: StructIn("sigset"), sizemask: Size)
        => signalfd::signalfd, Partial, "reads the signals of the thread that made it"),
    row!(289, signalfd4(fd: Fd, mask: StructIn("sigset"), sizemask: Size, flags: Flags("signalfd"))
        => signalfd::signalfd4, Partial, "reads the signals of the thread that made it"),
];
