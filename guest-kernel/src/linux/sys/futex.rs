//! futex(2), futex_waitv(2), set_robust_list(2).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::time::{ClockTime, read_timespec};
use crate::{
    call::Cx,
    error::{Errno, Restart, Stop, SysResult, Wait},
    futex::{ANY, Futexes, Key, Requeue, Waiting, pi::Locked},
    num::Word,
    task::Tid,
};

/// Commands and flags of futex(2).
mod op {
    pub const WAIT: u32 = 0;
    pub const WAKE: u32 = 1;
    pub const REQUEUE: u32 = 3;
    pub const CMP_REQUEUE: u32 = 4;
    pub const WAKE_OP: u32 = 5;
    pub const LOCK_PI: u32 = 6;
    pub const UNLOCK_PI: u32 = 7;
    pub const TRYLOCK_PI: u32 = 8;
    pub const WAIT_BITSET: u32 = 9;
    pub const WAKE_BITSET: u32 = 10;
    pub const WAIT_REQUEUE_PI: u32 = 11;
    pub const LOCK_PI2: u32 = 13;
    pub const PRIVATE: u32 = 128;
    pub const CLOCK_REALTIME: u32 = 256;
}

/// A wait's time limit as a `CLOCK_MONOTONIC` instant.
fn limit(cx: &mut Cx<'_>, clock: ClockTime, time: Duration) -> Duration {
    if let Some(deadline) = cx.call.deadline {
        return deadline;
    }
    let deadline = match clock {
        ClockTime::Relative => cx.started().saturating_add(time),
        ClockTime::Monotonic => time,
        ClockTime::Realtime => {
            let left = time.saturating_sub(cx.kernel().host.realtime());
            cx.now().saturating_add(left)
        }
    };
    cx.call.deadline = Some(deadline);
    deadline
}

fn key(cx: &Cx<'_>, addr: u64, private: bool) -> Result<Key, Errno> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    cx.mm().futex_key(addr, !private)
}

/// `val` counts as Linux counts it: at least one waiter is considered.
fn at_least_one(count: u32) -> usize {
    usize::try_from(count.cast_signed()).unwrap_or(1).max(1)
}

/// futex(2). Deviation: no priorities are inherited; FUTEX_WAIT_REQUEUE_PI and
/// FUTEX_CMP_REQUEUE_PI are ENOSYS.
pub fn futex(
    cx: &mut Cx<'_>,
    addr: u64,
    operation: u32,
    value: u32,
    timeout: u64,
    addr2: u64,
    value3: u32,
) -> SysResult {
    let command = operation & !(op::PRIVATE | op::CLOCK_REALTIME);
    let private = operation & op::PRIVATE != 0;
    let realtime = operation & op::CLOCK_REALTIME != 0;
    let clock = match command {
        op::WAIT => ClockTime::Relative,
        op::LOCK_PI => ClockTime::Realtime,
        _ if realtime => ClockTime::Realtime,
        _ => ClockTime::Monotonic,
    };
    let timed =
        matches!(command, op::WAIT | op::WAIT_BITSET | op::LOCK_PI | op::LOCK_PI2) && timeout != 0;
    let time = if timed { Some(read_timespec(&cx.mm(), timeout)?) } else { None };
    if realtime && !matches!(command, op::WAIT_BITSET | op::WAIT_REQUEUE_PI | op::LOCK_PI2) {
        return Err(Errno::ENOSYS.into());
    }
    let deadline = time.map(|time| limit(cx, clock, time));
    // In the other commands the time-out's place holds a second count.
    let count2 = timeout.low_u32();
    let futexes = cx.kernel().futexes.clone();
    match command {
        op::WAIT | op::WAIT_BITSET => {
            let bitset = if command == op::WAIT { ANY } else { value3 };
            wait_on(cx, addr, private, value, bitset, deadline)
        }
        op::WAKE | op::WAKE_BITSET => {
            let bitset = if command == op::WAKE { ANY } else { value3 };
            if bitset == 0 {
                return Err(Errno::EINVAL.into());
            }
            let key = key(cx, addr, private)?;
            Ok(futexes.wake(&key, at_least_one(value), bitset) as u64)
        }
        op::REQUEUE | op::CMP_REQUEUE => {
            let expected = (command == op::CMP_REQUEUE).then_some(value3);
            requeue(cx, [addr, addr2], private, [value, count2], expected)
        }
        op::WAKE_OP => wake_op(cx, [addr, addr2], private, [value, count2], value3),
        op::LOCK_PI | op::LOCK_PI2 => lock_pi(cx, addr, private, deadline, false),
        op::TRYLOCK_PI => lock_pi(cx, addr, private, None, true),
        op::UNLOCK_PI => {
            let key = key(cx, addr, private)?;
            futexes.unlock_pi(&cx.mm(), addr, &key, cx.task.tid)?;
            Ok(0)
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// What a retry finds: the answer, or a further wait. The waiters lie in the call's slot.
fn resume(
    cx: &mut Cx<'_>,
    deadline: Option<Duration>,
    value: impl Fn(usize) -> u64,
) -> Option<SysResult> {
    let now = cx.now();
    let interrupted = cx.call.interrupted;
    let waiting = cx.call.slot.as_ref()?.downcast_ref::<Waiting>()?;
    let expired = deadline.is_some_and(|at| now >= at);
    let woken = if expired || interrupted { waiting.give_up() } else { waiting.woken() };
    let queues = waiting.waiters.iter().map(|w| w.queue.clone()).collect();
    if interrupted {
        // If no handler runs, the retry looks at the word again, as a restarted call does.
        cx.call.slot = None;
    }
    Some(match woken {
        Some(index) => Ok(value(index)),
        None if expired => Err(Errno::ETIMEDOUT.into()),
        None => Err(wait(queues, deadline)),
    })
}

fn wait(queues: Vec<Arc<crate::wait::WaitQueue>>, deadline: Option<Duration>) -> Stop {
    let restart = if deadline.is_some() { Restart::KeepDeadline } else { Restart::IfSaRestart };
    Wait { queues, deadline, restart }.into()
}

fn wait_on(
    cx: &mut Cx<'_>,
    addr: u64,
    private: bool,
    expected: u32,
    bitset: u32,
    deadline: Option<Duration>,
) -> SysResult {
    if let Some(answer) = resume(cx, deadline, |_| 0) {
        return answer;
    }
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = key(cx, addr, private)?;
    let mm = cx.mm();
    let futexes = cx.kernel().futexes.clone();
    let waiter = futexes.enqueue(key, bitset, || {
        if mm.load_u32(addr)? == expected { Ok(()) } else { Err(Errno::EAGAIN) }
    })?;
    let queues = vec![waiter.queue.clone()];
    cx.call.slot = Some(Box::new(Waiting::new(&futexes, vec![waiter])));
    Err(wait(queues, deadline))
}

fn requeue(
    cx: &mut Cx<'_>,
    addrs: [u64; 2],
    private: bool,
    counts: [u32; 2],
    expected: Option<u32>,
) -> SysResult {
    let count = |n: u32| usize::try_from(n.cast_signed()).map_err(|_| Errno::EINVAL);
    let amount = Requeue { wake: count(counts[0])?, moved: count(counts[1])? };
    let from = key(cx, addrs[0], private)?;
    let to = key(cx, addrs[1], private)?;
    let mm = cx.mm();
    let (woken, moved) = cx.kernel().futexes.requeue(&from, &to, amount, || match expected {
        Some(value) if mm.load_u32(addrs[0])? != value => Err(Errno::EAGAIN),
        _ => Ok(()),
    })?;
    // FUTEX_REQUEUE counts the same way: Linux returns both together.
    Ok((woken + moved) as u64)
}

/// FUTEX_OP: what to do to the second word, and when to wake its waiters.
fn wake_op(
    cx: &mut Cx<'_>,
    addrs: [u64; 2],
    private: bool,
    counts: [u32; 2],
    encoded: u32,
) -> SysResult {
    let first = key(cx, addrs[0], private)?;
    let second = key(cx, addrs[1], private)?;
    let signed12 = |bits: u32| ((bits << 20).cast_signed() >> 20).cast_unsigned();
    let mut argument = signed12(encoded >> 12);
    let compared = signed12(encoded).cast_signed();
    if encoded >> 28 & 8 != 0 {
        argument = 1u32.wrapping_shl(argument);
    }
    let modify = match encoded >> 28 & 7 {
        0 => |_: u32, argument: u32| argument,
        1 => u32::wrapping_add,
        2 => |word, argument| word | argument,
        3 => |word, argument: u32| word & !argument,
        4 => |word, argument| word ^ argument,
        _ => return Err(Errno::ENOSYS.into()),
    };
    let compare: Option<fn(&i32, &i32) -> bool> = match encoded >> 24 & 15 {
        0 => Some(i32::eq),
        1 => Some(i32::ne),
        2 => Some(i32::lt),
        3 => Some(i32::le),
        4 => Some(i32::gt),
        5 => Some(i32::ge),
        _ => None,
    };
    let mm = cx.mm();
    let counts = counts.map(at_least_one);
    let woken = cx.kernel().futexes.wake_op([&first, &second], counts, || {
        let old = mm.update_u32(addrs[1], |word| Some(modify(word, argument)))?;
        // An unknown comparison is noticed once the word is changed.
        Ok(compare.ok_or(Errno::ENOSYS)?(&old.cast_signed(), &compared))
    })?;
    Ok(woken as u64)
}

fn lock_pi(
    cx: &mut Cx<'_>,
    addr: u64,
    private: bool,
    deadline: Option<Duration>,
    try_only: bool,
) -> SysResult {
    if let Some(answer) = resume(cx, deadline, |_| 0) {
        // Signals leave the wait for a lock alone (ERESTARTNOINTR).
        return answer.map_err(|stop| match stop {
            Stop::Wait(wait) => Stop::Wait(wait.restart(Restart::Killable)),
            other => other,
        });
    }
    let key = key(cx, addr, private)?;
    let futexes = cx.kernel().futexes.clone();
    let exists = |tid: Tid| {
        cx.kernel().tasks.task(tid).is_some() || crate::task::table::TaskTable::is_phantom(tid)
    };
    match futexes.lock_pi(&cx.mm(), addr, key, cx.task.tid, try_only, exists)? {
        Locked::Owned => Ok(0),
        Locked::Queued(waiter) => {
            let queues = vec![waiter.queue.clone()];
            cx.call.slot = Some(Box::new(Waiting::new(&futexes, vec![waiter])));
            Err(Wait { queues, deadline, restart: Restart::Killable }.into())
        }
    }
}

/// `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct WaitV {
    value: u64,
    addr: u64,
    flags: u32,
    reserved: u32,
}

/// FUTEX2_SIZE_U32, the only size Linux has.
const SIZE_U32: u32 = 2;
/// FUTEX_WAITV_MAX.
const WAITV_MAX: u32 = 128;

/// futex_waitv(2).
pub fn futex_waitv(
    cx: &mut Cx<'_>,
    list: u64,
    count: u32,
    flags: u32,
    timeout: u64,
    clock: i32,
) -> SysResult {
    const CLOCK_REALTIME: i32 = 0;
    const CLOCK_MONOTONIC: i32 = 1;
    if flags != 0 || count == 0 || count > WAITV_MAX || list == 0 {
        return Err(Errno::EINVAL.into());
    }
    let deadline = if timeout == 0 {
        None
    } else {
        let clock = match clock {
            CLOCK_REALTIME => ClockTime::Realtime,
            CLOCK_MONOTONIC => ClockTime::Monotonic,
            _ => return Err(Errno::EINVAL.into()),
        };
        let time = read_timespec(&cx.mm(), timeout)?;
        Some(limit(cx, clock, time))
    };
    if let Some(answer) = resume(cx, deadline, |index| index as u64) {
        return answer;
    }
    let mm = cx.mm();
    let futexes: Arc<Futexes> = cx.kernel().futexes.clone();
    let mut wanted = Vec::new();
    for index in 0..u64::from(count) {
        let at = list.checked_add(index * size_of::<WaitV>() as u64).ok_or(Errno::EFAULT)?;
        let entry: WaitV = mm.read_obj(at)?;
        if entry.flags & !op::PRIVATE != SIZE_U32
            || entry.reserved != 0
            || u32::try_from(entry.value).is_err()
        {
            return Err(Errno::EINVAL.into());
        }
        wanted.push(entry);
    }
    let mut waiting = Waiting::new(&futexes, Vec::new());
    for entry in wanted {
        let key = key(cx, entry.addr, entry.flags & op::PRIVATE != 0)?;
        let queued = futexes.enqueue(key, ANY, || {
            let same = mm.load_u32(entry.addr)? == entry.value.low_u32();
            if same { Ok(()) } else { Err(Errno::EAGAIN) }
        });
        match queued {
            Ok(waiter) => waiting.waiters.push(waiter),
            // A wake-up that one of the earlier waiters got must not be lost.
            Err(errno) => return waiting.give_up().map(|i| i as u64).ok_or(errno.into()),
        }
    }
    let queues = waiting.waiters.iter().map(|w| w.queue.clone()).collect();
    cx.call.slot = Some(Box::new(waiting));
    Err(wait(queues, deadline))
}

/// `sizeof(struct robust_list_head)`.
const ROBUST_HEAD: u64 = 24;

/// set_robust_list(2).
pub fn set_robust_list(cx: &mut Cx<'_>, head: u64, len: u64) -> SysResult {
    if len != ROBUST_HEAD {
        return Err(Errno::EINVAL.into());
    }
    cx.task.robust_list.store(head, Ordering::Relaxed);
    Ok(0)
}

/// get_robust_list(2).
pub fn get_robust_list(cx: &mut Cx<'_>, tid: i32, head: u64, len: u64) -> SysResult {
    let task = if tid == 0 { Some(cx.task.clone()) } else { cx.kernel().tasks.task(tid) };
    let phantom = crate::task::table::TaskTable::is_phantom(tid);
    let task = task.ok_or(if phantom { Errno::EPERM } else { Errno::ESRCH })?;
    let (me, other) = (cx.task.creds(), task.creds());
    if me.fsuid != other.uid && !me.capable(crate::creds::cap::SYS_PTRACE) {
        return Err(Errno::EPERM.into());
    }
    let mm = cx.mm();
    mm.write_obj(len, &ROBUST_HEAD)?;
    mm.write_obj(head, &task.robust_list.load(Ordering::Relaxed))?;
    Ok(0)
}
