//! ioprio_get(2), ioprio_set(2): kept and shown; there is no disk to schedule for.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::resource::{PRIO_PGRP, PRIO_PROCESS, PRIO_USER, chosen};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    num::Word as _,
    task::{Task, table::TaskTable},
};

const NONE: u16 = 0;
const REALTIME: u16 = 1;
const BEST_EFFORT: u16 = 2;
const IDLE: u16 = 3;

fn class(priority: u16) -> u16 {
    // Three bits of class, ten of hints, three of level.
    priority >> 13
}

/// IOPRIO_WHO_PROCESS, _PGRP and _USER, as the numbers of getpriority(2).
fn targets(cx: &Cx<'_>, which: u32, who: i32) -> Result<Vec<Arc<Task>>, Errno> {
    let which = match which {
        1 => PRIO_PROCESS,
        2 => PRIO_PGRP,
        3 => PRIO_USER,
        _ => return Err(Errno::EINVAL),
    };
    chosen(cx, which, who)
}

/// ioprio_get(2): the highest of those asked for.
pub fn ioprio_get(cx: &mut Cx<'_>, which: u32, who: i32) -> SysResult {
    // Linux: one process shows what was set, a group what is used.
    if which == 1 {
        if TaskTable::is_phantom(who) {
            return Ok(0);
        }
        let found = targets(cx, which, who)?;
        return Ok(u64::from(found[0].io_priority.load(Relaxed)));
    }
    let found = targets(cx, which, who)?;
    let best = found.iter().map(|task| effective(task)).min_by_key(|p| (class(*p), p & 0x1fff));
    Ok(u64::from(best.unwrap_or(0)))
}

/// What a task without a class gets: best effort, by its nice value.
fn effective(task: &Task) -> u16 {
    let set = task.io_priority.load(Relaxed);
    if class(set) != NONE {
        return set;
    }
    let level = (task.nice.load(Relaxed) + 20) / 5;
    BEST_EFFORT << 13 | u16::try_from(level.clamp(0, 7)).unwrap_or(4)
}

/// ioprio_set(2).
pub fn ioprio_set(cx: &mut Cx<'_>, which: u32, who: i32, priority: i32) -> SysResult {
    let me = cx.task.creds();
    let priority = priority.cast_unsigned().low_u16();
    match class(priority) {
        NONE if priority & 7 != 0 => return Err(Errno::EINVAL.into()),
        REALTIME if !me.capable(cap::SYS_NICE) && !me.capable(cap::SYS_ADMIN) => {
            return Err(Errno::EPERM.into());
        }
        NONE | REALTIME | BEST_EFFORT | IDLE => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    if which == 1 && TaskTable::is_phantom(who) {
        return Err(Errno::EPERM.into());
    }
    for task in targets(cx, which, who)? {
        let other = task.creds();
        if other.uid != me.euid && other.uid != me.uid && !me.capable(cap::SYS_NICE) {
            return Err(Errno::EPERM.into());
        }
        task.io_priority.store(priority, Relaxed);
    }
    Ok(0)
}
