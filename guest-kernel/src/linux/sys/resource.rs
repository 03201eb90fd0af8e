//! Limits and use: getrlimit(2), getrusage(2), times(2), getpriority(2).

use std::{sync::atomic::Ordering, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    num::ret_i32,
    task::{
        process::{Process, rlimit},
        status::Usage,
        table::TaskTable,
    },
};

/// `struct rusage` (getrusage(2)).
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawUsage {
    user: [i64; 2],
    system: [i64; 2],
    max_rss: i64,
    unused: [i64; 3],
    minor_faults: i64,
    more: [i64; 6],
    voluntary: i64,
    involuntary: i64,
}

fn timeval(time: Duration) -> [i64; 2] {
    [i64::try_from(time.as_secs()).unwrap_or(i64::MAX), i64::from(time.subsec_micros())]
}

impl From<&Usage> for RawUsage {
    fn from(usage: &Usage) -> RawUsage {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        RawUsage {
            user: timeval(usage.user),
            system: timeval(usage.system),
            max_rss: count(usage.max_rss),
            minor_faults: count(usage.minor_faults),
            voluntary: count(usage.voluntary),
            ..RawUsage::default()
        }
    }
}

/// getrusage(2).
pub fn getrusage(cx: &mut Cx<'_>, who: i32, addr: u64) -> SysResult {
    let task = cx.task;
    task.update_usage();
    let mut usage = match who {
        0 => task.process.usage(),
        -1 => task.process.children_usage(),
        1 => task.usage(),
        _ => return Err(Errno::EINVAL.into()),
    };
    if who != -1 {
        usage.max_rss = usage.max_rss.max(cx.mm().usage().resident >> 10);
    }
    cx.mm().write_obj(addr, &RawUsage::from(&usage))?;
    Ok(0)
}

/// times(2).
pub fn times(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let ticks = |time: Duration| i64::try_from(time.as_millis() / 10).unwrap_or(i64::MAX);
    cx.task.update_usage();
    if addr != 0 {
        let (own, children) = (cx.task.process.usage(), cx.task.process.children_usage());
        let buffer =
            [ticks(own.user), ticks(own.system), ticks(children.user), ticks(children.system)];
        cx.mm().write_obj(addr, &buffer)?;
    }
    Ok(ticks(cx.kernel().host.boottime()).cast_unsigned())
}

fn resource(number: u32) -> Result<usize, Errno> {
    usize::try_from(number).ok().filter(|n| *n < 16).ok_or(Errno::EINVAL)
}

fn change(cx: &Cx<'_>, target: &Process, resource: usize, new: [u64; 2]) -> Result<(), Errno> {
    const NR_OPEN: u64 = 1 << 20;
    let [soft, hard] = new;
    if soft > hard {
        return Err(Errno::EINVAL);
    }
    if resource == rlimit::NOFILE && hard > NR_OPEN {
        return Err(Errno::EPERM);
    }
    let old = target.limits()[resource];
    if hard > old.1 && !cx.task.creds().capable(cap::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    target.set_limit(resource, soft, hard);
    if resource == rlimit::CPU
        && let Some(process) = cx.kernel().tasks.process(target.pid)
    {
        process.timers.watch_limit(&process);
    }
    if resource == rlimit::STACK
        && let Some(mm) = target.any_thread().and_then(|t| t.try_mm())
    {
        mm.set_stack_limit(soft);
    }
    Ok(())
}

/// getrlimit(2).
pub fn getrlimit(cx: &mut Cx<'_>, number: u32, addr: u64) -> SysResult {
    let (soft, hard) = cx.task.process.limits()[resource(number)?];
    cx.mm().write_obj(addr, &[soft, hard])?;
    Ok(0)
}
/// setrlimit(2).
pub fn setrlimit(cx: &mut Cx<'_>, number: u32, addr: u64) -> SysResult {
    let new: [u64; 2] = cx.mm().read_obj(addr)?;
    let resource = resource(number)?;
    change(cx, &cx.task.process, resource, new)?;
    Ok(0)
}
/// prlimit(2).
pub fn prlimit64(cx: &mut Cx<'_>, pid: i32, number: u32, new: u64, old: u64) -> SysResult {
    let wanted: Option<[u64; 2]> = if new == 0 { None } else { Some(cx.mm().read_obj(new)?) };
    let own = &cx.task.process;
    let target = if pid == 0 {
        own.clone()
    } else {
        cx.kernel().tasks.process_of(pid).ok_or(Errno::ESRCH)?
    };
    if target.pid != own.pid {
        let me = cx.task.creds();
        // The kernel's own processes have no thread and are nobody's to change.
        let Some(other) = target.any_thread().map(|t| t.creds()) else {
            let phantom = TaskTable::is_phantom(target.pid);
            if !phantom || wanted.is_some() || !me.capable(cap::SYS_RESOURCE) {
                return Err(if phantom { Errno::EPERM } else { Errno::ESRCH }.into());
            }
            let (soft, hard) = target.limits()[resource(number)?];
            if old != 0 {
                cx.mm().write_obj(old, &[soft, hard])?;
            }
            return Ok(0);
        };
        let same = [other.uid, other.euid, other.suid].iter().all(|u| *u == me.uid)
            && [other.gid, other.egid, other.sgid].iter().all(|g| *g == me.gid);
        if !same && !me.capable(cap::SYS_RESOURCE) {
            return Err(Errno::EPERM.into());
        }
    }
    let resource = resource(number)?;
    let (soft, hard) = target.limits()[resource];
    if let Some(wanted) = wanted {
        change(cx, &target, resource, wanted)?;
    }
    if old != 0 {
        cx.mm().write_obj(old, &[soft, hard])?;
    }
    Ok(0)
}

/// Of getpriority(2): one process.
pub const PRIO_PROCESS: u32 = 0;
/// A process group.
pub const PRIO_PGRP: u32 = 1;
/// All processes of a user.
pub const PRIO_USER: u32 = 2;

/// The tasks getpriority(2) and ioprio_get(2) mean.
///
/// # Errors
/// EINVAL for an unknown kind, ESRCH if there are none.
pub fn chosen(
    cx: &Cx<'_>,
    which: u32,
    who: i32,
) -> Result<Vec<std::sync::Arc<crate::task::Task>>, Errno> {
    let tasks = &cx.kernel().tasks;
    let found = match which {
        PRIO_PROCESS if who == 0 => vec![cx.task.clone()],
        PRIO_PROCESS => tasks.task(who).into_iter().collect(),
        PRIO_PGRP => {
            let pgid = if who == 0 { cx.task.process.pgid() } else { who };
            tasks.group(pgid).iter().flat_map(|p| p.tasks()).collect()
        }
        PRIO_USER => {
            let uid = if who == 0 { cx.task.creds().uid } else { who.cast_unsigned() };
            let all = tasks.processes().into_iter().flat_map(|p| p.tasks());
            all.filter(|t| t.creds().uid == uid).collect::<Vec<_>>()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

/// getpriority(2), the raw call: 20 minus the nice value.
pub fn getpriority(cx: &mut Cx<'_>, which: u32, who: i32) -> SysResult {
    if which == PRIO_PROCESS && TaskTable::is_phantom(who) {
        return Ok(20);
    }
    let found = chosen(cx, which, who)?;
    let nice = found.iter().map(|t| t.nice.load(Ordering::Relaxed)).min().unwrap_or(0);
    Ok(ret_i32(20 - nice))
}
/// setpriority(2): the value is kept; the host schedules all tasks alike.
pub fn setpriority(cx: &mut Cx<'_>, which: u32, who: i32, nice: i32) -> SysResult {
    let nice = nice.clamp(-20, 19);
    let me = cx.task.creds();
    if which == PRIO_PROCESS && TaskTable::is_phantom(who) {
        return Err(Errno::EPERM.into());
    }
    for task in chosen(cx, which, who)? {
        let other = task.creds();
        if me.euid != other.euid && me.euid != other.uid && !me.capable(cap::SYS_NICE) {
            return Err(Errno::EPERM.into());
        }
        let floor = 20 - i32::try_from(task.process.limit(rlimit::NICE).min(40)).unwrap_or(40);
        let lower = nice < task.nice.load(Ordering::Relaxed);
        if lower && nice < floor && !me.capable(cap::SYS_NICE) {
            return Err(Errno::EACCES.into());
        }
        task.nice.store(nice, Ordering::Relaxed);
    }
    Ok(0)
}
