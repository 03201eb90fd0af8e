//! semget(2), semop(2), semctl(2).

use std::{sync::Arc, sync::PoisonError};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::time::RawTime;
use crate::{
    call::Cx,
    error::{Errno, Restart, SysResult, Wait},
    ipc::{
        Perm, seconds,
        sem::{MAX_IN_SET, MAX_SETS, MAX_VALUE, Operation, Refusal, SemSet, UndoList, Waiting},
        sequence,
    },
    num::{Word, ret_i32},
    task::Task,
};

/// Most operations of a call (SEMOPM).
const MAX_OPERATIONS: usize = 500;

/// `struct ipc64_perm`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct IpcPerm {
    key: i32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    cuid: u32,
    cgid: u32,
    pub(super) mode: u32,
    seq: u16,
    pad: [u16; 3],
    unused: [u64; 2],
}

impl IpcPerm {
    pub(super) fn new(perm: &Perm, id: i32) -> IpcPerm {
        let Perm { key, uid, gid, cuid, cgid, mode } = *perm;
        IpcPerm { key, uid, gid, cuid, cgid, mode, seq: sequence(id), ..IpcPerm::default() }
    }
}

/// `struct semid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SemidDs {
    perm: IpcPerm,
    otime: u64,
    unused1: u64,
    ctime: u64,
    unused2: u64,
    nsems: u64,
    unused: [u64; 2],
}

/// semget(2).
pub fn semget(cx: &mut Cx<'_>, key: i32, count: i32, flags: i32) -> SysResult {
    if !(0..=MAX_IN_SET).contains(&count) {
        return Err(Errno::EINVAL.into());
    }
    let (kernel, creds) = (cx.kernel(), cx.task.creds());
    let wanted = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let fits = |set: &SemSet| {
        if wanted > set.state().sems.len() { Err(Errno::EINVAL) } else { Ok(()) }
    };
    let now = kernel.host.realtime();
    let make = |id: i32, perm: Perm| match wanted {
        0 => Err(Errno::EINVAL),
        count => SemSet::new(id, perm, count, now, &kernel.ipc.sem_count),
    };
    Ok(kernel.ipc.sems.get_or_make(key, flags, &creds, MAX_SETS, fits, make)?)
}

/// The task's list of what it owes, made at the first SEM_UNDO.
pub(crate) fn undo_list(task: &Task) -> Arc<UndoList> {
    let mut slot = task.sem_undo.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = || UndoList::new(task.kernel.fresh_id(), task.process.pid);
    slot.get_or_insert_with(fresh).clone()
}

/// semop(2).
pub fn semop(cx: &mut Cx<'_>, id: i32, operations: u64, count: usize) -> SysResult {
    operate(cx, id, operations, count, 0)
}

/// semtimedop(2).
pub fn semtimedop(cx: &mut Cx<'_>, id: i32, at: u64, count: usize, timeout: u64) -> SysResult {
    operate(cx, id, at, count, timeout)
}

/// In Linux's order: what cannot be read, then what makes no sense, then what there is not.
fn operate(cx: &mut Cx<'_>, id: i32, at: u64, count: usize, timeout: u64) -> SysResult {
    const NOWAIT: u16 = 0o4000;
    const UNDO: u16 = 0x1000;
    let limit = if timeout == 0 { None } else { Some(cx.mm().read_obj::<RawTime>(timeout)?) };
    if count > MAX_OPERATIONS {
        return Err(Errno::E2BIG.into());
    }
    let mut raw = vec![[0u16; 3]; count];
    cx.mm().read_bytes(at, raw.as_mut_bytes())?;
    if count == 0 || id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let limit = limit.map(RawTime::from_timespec).transpose()?;
    let decode = |[number, change, flags]: [u16; 3]| Operation {
        number,
        change: change.cast_signed(),
        nowait: flags & NOWAIT != 0,
        undo: flags & UNDO != 0,
    };
    let operations: Vec<Operation> = raw.into_iter().map(decode).collect();
    let waited = cx.call.slot.as_ref().and_then(|s| s.downcast_ref::<Waiting>());
    let set = match waited {
        Some(waiting) => waiting.set.clone(),
        None => {
            let set = cx.kernel().ipc.sems.get(id)?;
            let alters = operations.iter().any(|op| op.change != 0);
            let (perm, size) = {
                let state = set.state();
                (state.perm, state.sems.len())
            };
            if operations.iter().any(|op| usize::from(op.number) >= size) {
                return Err(Errno::EFBIG.into());
            }
            if !perm.permits(&cx.task.creds(), if alters { 2 } else { 4 }) {
                return Err(Errno::EACCES.into());
            }
            set
        }
    };
    let list = operations.iter().any(|op| op.undo).then(|| undo_list(cx.task));
    let now = cx.kernel().host.realtime();
    match set.operate(&operations, cx.task.process.pid, list.as_deref(), now) {
        Ok(()) => Ok(0),
        Err(Refusal::Errno(errno)) => Err(errno.into()),
        Err(Refusal::Blocks(number, zero)) => {
            let deadline = cx.deadline_after(limit);
            if deadline.is_some_and(|d| cx.now() >= d) {
                return Err(Errno::EAGAIN.into());
            }
            let on = (number, zero);
            let slot = cx.call.slot.as_ref().and_then(|s| s.downcast_ref::<Waiting>());
            if slot.is_none_or(|w| w.on != on) {
                cx.call.slot = Some(Box::new(Waiting::new(&set, on)));
            }
            Err(Wait::on(set.queue.clone()).until(deadline).restart(Restart::Never).into())
        }
    }
}

fn describe(set: &SemSet) -> SemidDs {
    let state = set.state();
    SemidDs {
        perm: IpcPerm::new(&state.perm, set.id),
        otime: seconds(state.times.0),
        ctime: seconds(state.times.1),
        nsems: state.sems.len() as u64,
        ..SemidDs::default()
    }
}

const SETVAL: i32 = 16;

/// semctl(2): what concerns sets as a whole; [`values`] has the rest.
pub fn semctl(cx: &mut Cx<'_>, id: i32, number: i32, command: i32, arg: u64) -> SysResult {
    const RMID: i32 = 0;
    const SET: i32 = 1;
    const STAT: i32 = 2;
    const INFO: i32 = 3;
    const SEM_STAT: i32 = 18;
    const SEM_INFO: i32 = 19;
    const SEM_STAT_ANY: i32 = 20;
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let (kernel, mm, creds) = (cx.kernel().clone(), cx.mm(), cx.task.creds());
    let sems = &kernel.ipc.sems;
    match command {
        RMID => {
            sems.remove(id, &creds)?;
            Ok(0)
        }
        INFO | SEM_INFO => {
            let all = 1_024_000_000;
            let mut info = [all, MAX_SETS, all, all, MAX_IN_SET, 500, 500, 20, MAX_VALUE];
            let mut last = MAX_VALUE;
            if command == SEM_INFO {
                let list = sems.list();
                info[7] = list.len().low_i32();
                last = list.iter().map(|(_, s)| s.state().sems.len().low_i32()).sum();
            }
            mm.write_obj(arg, &info)?;
            mm.write_obj(arg.saturating_add(36), &last)?;
            Ok(sems.highest())
        }
        SEM_STAT | SEM_STAT_ANY | STAT => {
            let (id, set) = if command == STAT { (0, sems.get(id)?) } else { sems.by_index(id)? };
            let perm = set.state().perm;
            if command != SEM_STAT_ANY && !perm.permits(&creds, 4) {
                return Err(Errno::EACCES.into());
            }
            mm.write_obj(arg, &describe(&set))?;
            Ok(ret_i32(id))
        }
        SET => {
            let new: SemidDs = mm.read_obj(arg)?;
            let set = sems.get(id)?;
            let mut state = set.state();
            if !state.perm.owned_by(&creds) {
                return Err(Errno::EPERM.into());
            }
            state.perm.change(new.perm.uid, new.perm.gid, new.perm.mode);
            state.times.1 = kernel.host.realtime();
            Ok(0)
        }
        // Said before there being no such set.
        SETVAL if !(0..=MAX_VALUE).contains(&arg.low_i32()) => Err(Errno::ERANGE.into()),
        _ => values(cx, &*sems.get(id)?, number, command, arg),
    }
}

/// GETVAL and its like.
fn values(cx: &Cx<'_>, set: &SemSet, number: i32, command: i32, arg: u64) -> SysResult {
    const GETPID: i32 = 11;
    const GETVAL: i32 = 12;
    const GETALL: i32 = 13;
    const GETNCNT: i32 = 14;
    const GETZCNT: i32 = 15;
    const SETALL: i32 = 17;
    let (mm, now, pid) = (cx.mm(), cx.kernel().host.realtime(), cx.task.process.pid);
    let want = if matches!(command, SETVAL | SETALL) { 2 } else { 4 };
    if !(GETPID..=SETALL).contains(&command) {
        return Err(Errno::EINVAL.into());
    }
    let (perm, count) = {
        let state = set.state();
        (state.perm, state.sems.len())
    };
    let index = usize::try_from(number).ok().filter(|n| *n < count).ok_or(Errno::EINVAL);
    if command == SETVAL {
        index?;
    }
    if !perm.permits(&cx.task.creds(), want) {
        return Err(Errno::EACCES.into());
    }
    match command {
        GETALL => {
            let all: Vec<u16> =
                set.state().sems.iter().map(|s| s.value.cast_unsigned().low_u16()).collect();
            mm.write_bytes(arg, all.as_bytes())?;
            return Ok(0);
        }
        SETALL => {
            let mut all = vec![0u16; count];
            mm.read_bytes(arg, all.as_mut_bytes())?;
            set.set(0, &all, pid, now)?;
            return Ok(0);
        }
        _ => {}
    }
    let index = index?;
    if command == SETVAL {
        let value = u16::try_from(arg.low_i32()).map_err(|_| Errno::ERANGE)?;
        set.set(index, &[value], pid, now)?;
        return Ok(0);
    }
    let sem = set.state().sems[index];
    Ok(match command {
        GETPID => ret_i32(sem.pid),
        GETVAL => ret_i32(sem.value),
        GETNCNT => u64::from(sem.decreasing),
        GETZCNT => u64::from(sem.for_zero),
        _ => return Err(Errno::EINVAL.into()),
    })
}
