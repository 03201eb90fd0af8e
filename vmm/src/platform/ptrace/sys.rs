//! The host calls this backend makes on stubs, each wrapped once: ptrace(2), wait4(2), signals,
//! futexes. No policy.

use std::{io, mem::MaybeUninit, sync::atomic::AtomicU32, time::Duration};

use libc::{c_int, c_void, pid_t, siginfo_t, user_regs_struct};

/// A thread id on the host.
pub type Tid = pid_t;

/// What a wait(2) on a tracee found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A system-call stop (PTRACE_O_TRACESYSGOOD).
    Syscall,
    /// A signal-delivery stop.
    Signal(c_int),
    /// Any stop by PTRACE_EVENT, among them PTRACE_INTERRUPT's and group stops.
    Event,
    /// It no longer exists.
    Gone,
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// ptrace(2) for requests whose `addr` and `data` are plain numbers.
fn request(request: u32, tid: Tid, addr: u64, data: u64) -> io::Result<()> {
    // SAFETY: used below only with requests that take numbers, so no memory of ours is touched.
    check(unsafe { libc::ptrace(request, tid, addr, data) }).map(drop)
}

/// Becomes the tracer of `tid` without stopping it. It will be killed should this thread end.
pub fn seize(tid: Tid) -> io::Result<()> {
    let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
    request(libc::PTRACE_SEIZE, tid, 0, u64::from(options.cast_unsigned()))
}
/// Stops a seized tracee.
pub fn interrupt(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0)
}
/// Resumes a stopped tracee to its next system call (which is skipped), signal or event.
pub fn resume_emulated(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_SYSEMU, tid, 0, 0)
}
/// Resumes a stopped tracee, system calls and all.
pub fn resume_free(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_CONT, tid, 0, 0)
}
/// Lets go of a stopped tracee, delivering `signal` if not 0.
pub fn detach(tid: Tid, signal: c_int) -> io::Result<()> {
    request(libc::PTRACE_DETACH, tid, 0, u64::from(signal.cast_unsigned()))
}
/// The registers of a stopped tracee.
pub fn registers(tid: Tid) -> io::Result<user_regs_struct> {
    let mut regs = MaybeUninit::<user_regs_struct>::uninit();
    // SAFETY: PTRACE_GETREGS writes one user_regs_struct to `data`, which is as large and aligned.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, 0, regs.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so all of it is written; any bit pattern is valid.
    Ok(unsafe { regs.assume_init() })
}
/// Replaces the registers of a stopped tracee.
pub fn set_registers(tid: Tid, regs: &user_regs_struct) -> io::Result<()> {
    let data: *const user_regs_struct = regs;
    // SAFETY: PTRACE_SETREGS reads one user_regs_struct from `data`, which lives through the call.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, tid, 0, data) }).map(drop)
}
/// Replaces one register, named by its offset in `struct user`.
pub fn poke_user(tid: Tid, offset: usize, value: u64) -> io::Result<()> {
    request(libc::PTRACE_POKEUSER, tid, offset as u64, value)
}
/// The signal a tracee is stopped with.
pub fn signal_info(tid: Tid) -> io::Result<siginfo_t> {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    // SAFETY: PTRACE_GETSIGINFO writes one siginfo_t to `data`.
    check(unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr()) })?;
    // SAFETY: zeroed, then written by the call; any bit pattern is valid.
    Ok(unsafe { info.assume_init() })
}

const NT_X86_XSTATE: c_int = 0x202;

/// Reads the XSAVE area of a stopped tracee into `area`; returns its length.
pub fn xstate(tid: Tid, area: &mut [u8]) -> io::Result<usize> {
    let mut iov = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    let data: *mut libc::iovec = &raw mut iov;
    // SAFETY: PTRACE_GETREGSET writes at most `iov_len` bytes to `iov_base`, which is `area`.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGSET, tid, NT_X86_XSTATE, data) })?;
    Ok(iov.iov_len)
}
/// Replaces the XSAVE area of a stopped tracee; `area` is as long as [`xstate`] said.
pub fn set_xstate(tid: Tid, area: &[u8]) -> io::Result<()> {
    let base: *const u8 = area.as_ptr();
    let iov = libc::iovec { iov_base: base.cast_mut().cast::<c_void>(), iov_len: area.len() };
    let data: *const libc::iovec = &raw const iov;
    // SAFETY: PTRACE_SETREGSET only reads `iov_len` bytes from `iov_base`, which is `area`.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGSET, tid, NT_X86_XSTATE, data) }).map(drop)
}

/// Waits for the next stop of one tracee of this thread.
pub fn wait(tid: Tid) -> Status {
    loop {
        let mut status = 0;
        // SAFETY: wait4(2) writes one int to `status`; the usage pointer may be null.
        let rc = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        if rc < 0 {
            if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
                continue;
            }
            return Status::Gone;
        }
        if !libc::WIFSTOPPED(status) {
            return Status::Gone;
        }
        let signal = libc::WSTOPSIG(status);
        return if signal == libc::SIGTRAP | 0x80 {
            Status::Syscall
        } else if status >> 16 != 0 {
            Status::Event
        } else {
            Status::Signal(signal)
        };
    }
}
/// Collects a child or tracee that has ended or is about to; false if it still has to be waited for.
pub fn reap(tid: Tid) -> bool {
    // SAFETY: wait4(2) with null pointers writes nothing.
    unsafe { libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) != 0 }
}

/// Asks for no SIGCHLD when a tracee stops: every stop would send one, only to be ignored. Exits of
/// children still send it; the disposition stays as it is.
pub fn no_signal_for_stops() {
    // SAFETY: an all-zero sigaction is valid; sigaction(2) fills it, then reads it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut action);
        action.sa_flags |= libc::SA_NOCLDSTOP;
        libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut());
    }
}

/// Signals a thread of a stub. The caller knows that it has not been reaped.
pub fn thread_kill(pid: Tid, tid: Tid, signal: c_int) {
    // SAFETY: tgkill(2) touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
}
/// Signals a process. The caller knows that it has not been reaped.
pub fn kill(pid: Tid, signal: c_int) {
    // SAFETY: kill(2) touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}
/// This thread's id.
pub fn gettid() -> Tid {
    // SAFETY: gettid(2) cannot fail and touches no memory.
    unsafe { libc::gettid() }
}

/// Waits while `*word == value`, at most `timeout`; shared between processes.
pub fn futex_wait(word: &AtomicU32, value: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    // SAFETY: `word` and `timeout` live through the call, which only reads them.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const timeout);
    }
}
/// Wakes one waiter on `word`, in whichever process.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is only used as a key.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}
