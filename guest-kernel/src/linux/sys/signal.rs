//! kill(2), sigaction(2), sigprocmask(2), sigsuspend(2), sigwaitinfo(2), sigaltstack(2) and kin.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::time::read_timespec;
use crate::{
    call::Cx,
    error::{Errno, Restart, Stop, SysResult, Wait},
    linux::{
        sigframe,
        siginfo::{RawSigInfo, RawStack, SI_TKILL, SI_USER},
    },
    num::Word,
    signal::{
        self, SigFields, SigInfo, SigSet, Signal,
        action::{Action, ActionFlags, Handler},
        number::SIGCHLD,
        send::may_signal,
    },
    task::{Task, process::Process, table::TaskTable},
};

/// `sizeof(sigset_t)` of the kernel.
const SET_SIZE: u64 = 8;

/// `struct kernel_sigaction`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RawAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

impl RawAction {
    fn decode(self) -> Action {
        let handler = match self.handler {
            0 => Handler::Default,
            1 => Handler::Ignore,
            at => Handler::Function(at),
        };
        Action {
            handler,
            flags: ActionFlags::from_bits_truncate(self.flags),
            mask: SigSet(self.mask).blockable(),
            restorer: self.restorer,
        }
    }
    fn encode(action: &Action) -> RawAction {
        let handler = match action.handler {
            Handler::Default => 0,
            Handler::Ignore => 1,
            Handler::Function(at) => at,
        };
        RawAction {
            handler,
            flags: action.flags.bits(),
            restorer: action.restorer,
            mask: action.mask.0,
        }
    }
}

fn number(signal: i32) -> Result<Signal, Errno> {
    u8::try_from(signal).ok().filter(|s| (1..=64).contains(s)).ok_or(Errno::EINVAL)
}
fn number_or_probe(signal: i32) -> Result<Option<Signal>, Errno> {
    if signal == 0 { Ok(None) } else { number(signal).map(Some) }
}
fn check_size(size: u64) -> Result<(), Errno> {
    if size == SET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

/// rt_sigaction(2).
pub fn rt_sigaction(cx: &mut Cx<'_>, signal: i32, new: u64, old: u64, size: u64) -> SysResult {
    check_size(size)?;
    let mm = cx.mm();
    let action = if new == 0 { None } else { Some(mm.read_obj::<RawAction>(new)?.decode()) };
    let signal = number(signal)?;
    if action.is_some() && SigSet::UNBLOCKABLE.has(signal) {
        return Err(Errno::EINVAL.into());
    }
    let actions = cx.task.process.signals.actions();
    let before = match action {
        Some(action) => {
            let before = actions.set(signal, action);
            if action.ignores(signal) {
                // What is pending is dropped, even while it is blocked (POSIX).
                signal::discard(&cx.task.process, SigSet::one(signal));
            }
            before
        }
        None => actions.get(signal),
    };
    if old != 0 {
        mm.write_obj(old, &RawAction::encode(&before))?;
    }
    Ok(0)
}

/// rt_sigprocmask(2).
pub fn rt_sigprocmask(cx: &mut Cx<'_>, how: u32, new: u64, old: u64, size: u64) -> SysResult {
    const BLOCK: u32 = 0;
    const UNBLOCK: u32 = 1;
    const SETMASK: u32 = 2;
    check_size(size)?;
    let mm = cx.mm();
    let before = cx.task.signals.lock().mask;
    if new != 0 {
        let set = SigSet(mm.read_obj(new)?);
        let mask = match how {
            BLOCK => before | set,
            UNBLOCK => before - set,
            SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        signal::set_mask(cx.task, mask);
    }
    if old != 0 {
        mm.write_obj(old, &before.0)?;
    }
    Ok(0)
}

/// rt_sigpending(2).
pub fn rt_sigpending(cx: &mut Cx<'_>, set: u64, size: u64) -> SysResult {
    if size > SET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let shared = cx.task.process.signals.lock().pending.set();
    let pending = {
        let own = cx.task.signals.lock();
        (own.pending.set() | shared) & own.mask
    };
    cx.mm().write_bytes(set, &pending.0.to_le_bytes()[..size.size()])?;
    Ok(0)
}

/// rt_sigsuspend(2).
pub fn rt_sigsuspend(cx: &mut Cx<'_>, set: u64, size: u64) -> SysResult {
    check_size(size)?;
    if cx.call.tries == 0 {
        let mask = SigSet(cx.mm().read_obj(set)?);
        signal::set_temporary_mask(cx.task, mask);
    }
    Err(Wait { queues: vec![], deadline: None, restart: Restart::NoHandler }.into())
}

/// pause(2).
pub fn pause(_cx: &mut Cx<'_>) -> SysResult {
    Err(Wait { queues: vec![], deadline: None, restart: Restart::NoHandler }.into())
}

/// rt_sigtimedwait(2).
pub fn rt_sigtimedwait(cx: &mut Cx<'_>, set: u64, info: u64, timeout: u64, size: u64) -> SysResult {
    check_size(size)?;
    let mm = cx.mm();
    let wanted = SigSet(mm.read_obj(set)?).blockable();
    let limit = if timeout == 0 { None } else { Some(read_timespec(&mm, timeout)?) };
    if let Some(taken) = signal::take(cx.task, wanted) {
        if info != 0 {
            mm.write_obj(info, &RawSigInfo::encode(&taken))?;
        }
        return Ok(u64::from(taken.signal));
    }
    let deadline = cx.deadline_after(limit);
    if limit.is_some_and(|l| l.is_zero()) || deadline.is_some_and(|at| cx.now() >= at) {
        return Err(Errno::EAGAIN.into());
    }
    let queues = vec![cx.task.process.signals.arrivals.clone()];
    // Any other signal ends the wait, whatever its SA_RESTART.
    Err(Wait { queues, deadline, restart: Restart::Never }.into())
}

/// sigaltstack(2).
pub fn sigaltstack(cx: &mut Cx<'_>, new: u64, old: u64) -> SysResult {
    let mm = cx.mm();
    let sp = cx.regs.rsp;
    let before = sigframe::get_altstack(cx.task, sp);
    if new != 0 {
        let stack: RawStack = mm.read_obj(new)?;
        sigframe::set_altstack(cx.task, &stack, sp)?;
    }
    if old != 0 {
        mm.write_obj(old, &before)?;
    }
    Ok(0)
}

/// rt_sigreturn(2): a frame that cannot be used is SIGSEGV.
pub fn rt_sigreturn(cx: &mut Cx<'_>) -> SysResult {
    if sigframe::restore(cx.task, cx.regs, cx.cpu).is_err() {
        signal::force(cx.task, SigInfo::kernel(signal::number::SIGSEGV));
    }
    Err(Stop::Replaced)
}

/// restart_syscall(2): restarts happen in place, so there is never one to resume.
pub fn restart_syscall(_cx: &mut Cx<'_>) -> SysResult {
    Err(Errno::EINTR.into())
}

fn from_me(cx: &Cx<'_>, signal: Signal, code: i32) -> SigInfo {
    let fields = SigFields::Kill { pid: cx.task.process.pid, uid: cx.task.creds().uid };
    SigInfo { signal, code, errno: 0, fields }
}

/// Sends the calling thread a signal for what it has just done, as `send_sig(signal, current, 0)`
/// does: one that it seems to have sent itself.
pub(super) fn raise(cx: &Cx<'_>, signal: Signal) {
    cx.task.send(from_me(cx, signal, SI_USER));
}

/// The caller may send `signal` (or probe) `process`.
fn permitted(cx: &Cx<'_>, process: &Arc<Process>, signal: Option<Signal>) -> bool {
    if Arc::ptr_eq(process, &cx.task.process) {
        return true;
    }
    let me = cx.task.creds();
    match process.any_thread() {
        Some(target) => {
            let same_session = process.sid() == cx.task.process.sid();
            may_signal(&me, &target.creds(), signal.unwrap_or(SIGCHLD), same_session)
        }
        // A zombie hears nothing; init and the supervisor are root's.
        None => process.exit_status().is_some() || me.capable(crate::creds::cap::KILL),
    }
}

fn kill_one(cx: &Cx<'_>, process: &Arc<Process>, signal: Option<Signal>) -> Result<(), Errno> {
    if !permitted(cx, process, signal) {
        return Err(Errno::EPERM);
    }
    if let Some(signal) = signal {
        process.send(from_me(cx, signal, SI_USER));
    }
    Ok(())
}

/// kill(2).
pub fn kill(cx: &mut Cx<'_>, pid: i32, signal: i32) -> SysResult {
    let tasks = &cx.kernel().tasks;
    let signal_number = number_or_probe(signal);
    let members = match pid {
        1.. => {
            // A thread's id names its process.
            let process = tasks.process(pid).or_else(|| tasks.task(pid).map(|t| t.process.clone()));
            kill_one(cx, &process.ok_or(Errno::ESRCH)?, signal_number?)?;
            return Ok(0);
        }
        0 => tasks.group(cx.task.process.pgid()),
        -1 => {
            let me = cx.task.process.pid;
            let mut all = tasks.processes();
            all.retain(|p| p.pid > 1 && p.pid != me && p.any_thread().is_some());
            all
        }
        i32::MIN => return Err(Errno::ESRCH.into()),
        _ => tasks.group(-pid),
    };
    let signal_number = signal_number?;
    if members.is_empty() {
        return Err(Errno::ESRCH.into());
    }
    let mut refused = None;
    let mut sent = false;
    for process in members {
        match kill_one(cx, &process, signal_number) {
            Ok(()) => sent = true,
            Err(errno) => refused = Some(errno),
        }
    }
    match refused {
        Some(errno) if !sent && pid != -1 => Err(errno.into()),
        _ => Ok(0),
    }
}

/// The thread `tid`, of process `tgid` unless that is `None`.
fn thread(cx: &Cx<'_>, tgid: Option<i32>, tid: i32) -> Result<Arc<Task>, Errno> {
    if tid <= 0 || tgid.is_some_and(|t| t <= 0) {
        return Err(Errno::EINVAL);
    }
    let task = cx.kernel().tasks.task(tid).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|t| t != task.process.pid) {
        return Err(Errno::ESRCH);
    }
    Ok(task)
}

fn kill_thread(cx: &Cx<'_>, tgid: Option<i32>, tid: i32, signal: i32) -> SysResult {
    if TaskTable::is_phantom(tid) && tgid.is_none_or(|t| t == tid) {
        // As kill(2): the kernel's own processes take no signal.
        let signal = number_or_probe(signal)?;
        let process = cx.kernel().tasks.process(tid).ok_or(Errno::ESRCH)?;
        return if permitted(cx, &process, signal) { Ok(0) } else { Err(Errno::EPERM.into()) };
    }
    let task = thread(cx, tgid, tid)?;
    let signal = number_or_probe(signal)?;
    if !permitted(cx, &task.process, signal) {
        return Err(Errno::EPERM.into());
    }
    if let Some(signal) = signal {
        task.queue_signal(from_me(cx, signal, SI_TKILL), None)?;
    }
    Ok(0)
}

/// tkill(2).
pub fn tkill(cx: &mut Cx<'_>, tid: i32, signal: i32) -> SysResult {
    kill_thread(cx, None, tid, signal)
}
/// tgkill(2).
pub fn tgkill(cx: &mut Cx<'_>, tgid: i32, tid: i32, signal: i32) -> SysResult {
    kill_thread(cx, Some(tgid), tid, signal)
}

/// What a program says a signal is.
fn read_info(cx: &Cx<'_>, signal: i32, info: u64) -> Result<RawSigInfo, Errno> {
    let raw: RawSigInfo = cx.mm().read_obj(info)?;
    if raw.is_cut(signal) { Err(Errno::E2BIG) } else { Ok(raw) }
}

/// It must not pass for kill(2)'s or the kernel's, except to the caller itself.
fn may_claim(cx: &Cx<'_>, target: i32, raw: &RawSigInfo) -> Result<(), Errno> {
    let forged = raw.code >= 0 || raw.code == SI_TKILL;
    if forged && target != cx.task.tid { Err(Errno::EPERM) } else { Ok(()) }
}

/// rt_sigqueueinfo(2).
pub fn rt_sigqueueinfo(cx: &mut Cx<'_>, pid: i32, signal: i32, info: u64) -> SysResult {
    let raw = read_info(cx, signal, info)?;
    may_claim(cx, pid, &raw)?;
    let tasks = &cx.kernel().tasks;
    let process = tasks.process(pid).or_else(|| tasks.task(pid).map(|t| t.process.clone()));
    let process = process.ok_or(Errno::ESRCH)?;
    let signal = number_or_probe(signal)?;
    if !permitted(cx, &process, signal) {
        return Err(Errno::EPERM.into());
    }
    if let Some(signal) = signal {
        process.queue_signal(raw.decode(signal), None)?;
    }
    Ok(0)
}

/// rt_tgsigqueueinfo(2).
pub fn rt_tgsigqueueinfo(
    cx: &mut Cx<'_>,
    tgid: i32,
    tid: i32,
    signal: i32,
    info: u64,
) -> SysResult {
    let raw = read_info(cx, signal, info)?;
    if tid <= 0 || tgid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    may_claim(cx, tid, &raw)?;
    let task = thread(cx, Some(tgid), tid)?;
    let signal = number_or_probe(signal)?;
    if !permitted(cx, &task.process, signal) {
        return Err(Errno::EPERM.into());
    }
    if let Some(signal) = signal {
        task.queue_signal(raw.decode(signal), None)?;
    }
    Ok(0)
}
