//! sched(7): policies and affinity are kept and shown; the host schedules all tasks alike.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    num::Word,
    task::{Task, table::TaskTable},
};

const FIFO: u32 = 1;
const RR: u32 = 2;
const IDLE: u32 = 5;
/// SCHED_RESET_ON_FORK.
const RESET: u32 = 0x4000_0000;

/// The task a call asks about; `None` for a process of the kernel's own.
fn shown(cx: &Cx<'_>, pid: i32) -> Result<Option<Arc<Task>>, Errno> {
    match pid {
        0 => Ok(Some(cx.task.clone())),
        pid if pid < 0 => Err(Errno::EINVAL),
        pid if TaskTable::is_phantom(pid) => Ok(None),
        pid => cx.kernel().tasks.task(pid).map(Some).ok_or(Errno::ESRCH),
    }
}
/// The task a call changes. The kernel's own processes are nobody's to change.
fn target(cx: &Cx<'_>, pid: i32) -> Result<Arc<Task>, Errno> {
    shown(cx, pid)?.ok_or(Errno::EPERM)
}
/// Policy and priority, as they are shown.
fn policy_of(cx: &Cx<'_>, pid: i32) -> Result<(u32, i32), Errno> {
    Ok(shown(cx, pid)?.map_or((0, 0), |t| (t.policy.load(Relaxed), t.priority.load(Relaxed))))
}
fn may_change(cx: &Cx<'_>, task: &Task) -> Result<(), Errno> {
    let (me, other) = (cx.task.creds(), task.creds());
    let same = me.euid == other.euid || me.euid == other.uid;
    if same || me.capable(cap::SYS_NICE) { Ok(()) } else { Err(Errno::EPERM) }
}

/// sched_yield(2).
pub fn sched_yield(_cx: &mut Cx<'_>) -> SysResult {
    std::thread::yield_now();
    Ok(0)
}

/// Real-time policies take priorities 1 to 99, the others 0.
fn check(policy: u32, priority: i32) -> Result<(), Errno> {
    match policy {
        FIFO | RR if (1..=99).contains(&priority) => Ok(()),
        0 | 3 | IDLE if priority == 0 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}
fn set(cx: &Cx<'_>, task: &Task, policy: u32, priority: i32) -> Result<(), Errno> {
    let real = policy & !RESET;
    check(real, priority)?;
    may_change(cx, task)?;
    if matches!(real, FIFO | RR) && !cx.task.creds().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    task.policy.store(policy, Relaxed);
    task.priority.store(priority, Relaxed);
    Ok(())
}

/// sched_setscheduler(2).
pub fn sched_setscheduler(cx: &mut Cx<'_>, pid: i32, policy: i32, param: u64) -> SysResult {
    let policy = u32::try_from(policy).map_err(|_| Errno::EINVAL)?;
    if param == 0 || pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority: i32 = cx.mm().read_obj(param)?;
    let task = target(cx, pid)?;
    set(cx, &task, policy, priority)?;
    Ok(0)
}
/// sched_getscheduler(2).
pub fn sched_getscheduler(cx: &mut Cx<'_>, pid: i32) -> SysResult {
    Ok(u64::from(policy_of(cx, pid)?.0))
}
/// sched_setparam(2).
pub fn sched_setparam(cx: &mut Cx<'_>, pid: i32, param: u64) -> SysResult {
    if param == 0 || pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority: i32 = cx.mm().read_obj(param)?;
    let task = target(cx, pid)?;
    set(cx, &task, task.policy.load(Relaxed), priority)?;
    Ok(0)
}
/// sched_getparam(2).
pub fn sched_getparam(cx: &mut Cx<'_>, pid: i32, param: u64) -> SysResult {
    if param == 0 {
        return Err(Errno::EINVAL.into());
    }
    let (_, priority) = policy_of(cx, pid)?;
    cx.mm().write_obj(param, &priority)?;
    Ok(0)
}
/// sched_get_priority_max(2).
pub fn sched_get_priority_max(_cx: &mut Cx<'_>, policy: i32) -> SysResult {
    match policy {
        1 | 2 => Ok(99),
        0 | 3 | 5..=7 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}
/// sched_get_priority_min(2).
pub fn sched_get_priority_min(_cx: &mut Cx<'_>, policy: i32) -> SysResult {
    match policy {
        1 | 2 => Ok(1),
        0 | 3 | 5..=7 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}
/// sched_rr_get_interval(2).
pub fn sched_rr_get_interval(cx: &mut Cx<'_>, pid: i32, addr: u64) -> SysResult {
    let nanos: i64 = match policy_of(cx, pid)?.0 & !RESET {
        FIFO => 0,
        RR => 100_000_000,
        _ => 4_000_000,
    };
    cx.mm().write_obj(addr, &[0i64, nanos])?;
    Ok(0)
}

/// All CPUs the guest sees; the host has at most 1024 that we count.
fn all_cpus(cx: &Cx<'_>) -> Vec<u8> {
    let cpus = cx.kernel().config.cpus.clamp(1, 1024);
    let mut mask = vec![0u8; cpus.div_ceil(64) * 8];
    for cpu in 0..cpus {
        mask[cpu / 8] |= 1 << (cpu % 8);
    }
    mask
}
/// For the affinity calls a negative pid is one that nobody has.
fn no_pid(errno: Errno) -> Errno {
    if errno == Errno::EINVAL { Errno::ESRCH } else { errno }
}
/// sched_setaffinity(2): kept and shown.
pub fn sched_setaffinity(cx: &mut Cx<'_>, pid: i32, len: u32, addr: u64) -> SysResult {
    let all = all_cpus(cx);
    let mut mask = vec![0; all.len()];
    let len = len.size().min(mask.len());
    cx.mm().read_bytes(addr, &mut mask[..len])?;
    let task = target(cx, pid).map_err(no_pid)?;
    may_change(cx, &task)?;
    for (byte, allowed) in mask.iter_mut().zip(&all) {
        *byte &= allowed;
    }
    if mask.iter().all(|b| *b == 0) {
        return Err(Errno::EINVAL.into());
    }
    task.set_affinity(mask);
    Ok(0)
}
/// sched_getaffinity(2), the raw call: the bytes written.
pub fn sched_getaffinity(cx: &mut Cx<'_>, pid: i32, len: u32, addr: u64) -> SysResult {
    let all = all_cpus(cx);
    if len.size() < all.len() || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    let mask = shown(cx, pid).map_err(no_pid)?.and_then(|t| t.affinity()).unwrap_or(all);
    cx.mm().write_bytes(addr, &mask)?;
    Ok(mask.len() as u64)
}
/// getcpu(2): CPU 0 of node 0; a task has no CPU of its own that it could be told of.
pub fn getcpu(cx: &mut Cx<'_>, cpu: u64, node: u64) -> SysResult {
    let mm = cx.mm();
    for addr in [cpu, node] {
        if addr != 0 {
            mm.write_obj(addr, &0u32)?;
        }
    }
    Ok(0)
}

/// The first version of `struct sched_attr` (sched_setattr(2)).
const ATTR_SIZE: usize = 48;

/// sched_setattr(2); deadlines are refused.
pub fn sched_setattr(cx: &mut Cx<'_>, pid: i32, addr: u64, flags: u32) -> SysResult {
    /// SCHED_FLAG_ALL, and of it SCHED_FLAG_UTIL_CLAMP.
    const FLAGS: u32 = 0x7f;
    const CLAMP: u32 = 0x60;
    if addr == 0 || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let size: u32 = mm.read_obj(addr)?;
    if (size != 0 && size.size() < ATTR_SIZE) || size > 4096 {
        mm.write_obj(addr, &(ATTR_SIZE as u64).low_u32())?;
        return Err(Errno::E2BIG.into());
    }
    // size, policy, flags (8 bytes), nice, priority.
    let [_, policy, flags, high, nice, priority]: [u32; 6] = mm.read_obj(addr)?;
    // There is no clamping of utilisation, whose fields are the second version's.
    if flags & !FLAGS != 0 || high != 0 || flags & CLAMP != 0 && size.size() < ATTR_SIZE + 8 {
        return Err(Errno::EINVAL.into());
    }
    if flags & CLAMP != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let task = target(cx, pid)?;
    set(cx, &task, policy, priority.cast_signed())?;
    if !matches!(policy, FIFO | RR) {
        task.nice.store(nice.cast_signed().clamp(-20, 19), Relaxed);
    }
    Ok(0)
}
/// sched_getattr(2).
pub fn sched_getattr(cx: &mut Cx<'_>, pid: i32, addr: u64, size: u32, flags: u32) -> SysResult {
    if addr == 0 || pid < 0 || flags != 0 || size.size() < ATTR_SIZE || size > 4096 {
        return Err(Errno::EINVAL.into());
    }
    let (policy, priority) = policy_of(cx, pid)?;
    let nice = shown(cx, pid)?.map_or(0, |t| t.nice.load(Relaxed));
    let words = [
        48u32,
        policy & !RESET,
        0,
        0,
        nice.cast_unsigned(),
        priority.cast_unsigned(),
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    cx.mm().write_obj(addr, &words)?;
    Ok(0)
}
