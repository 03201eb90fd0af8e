//! msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::sem::IpcPerm;
use crate::{
    call::Cx,
    error::{Errno, Restart, Stop, SysResult, Wait},
    ipc::{
        msg::{MAX_BYTES, MAX_MESSAGE, MAX_QUEUES, Message, MsgQueue, Select},
        seconds,
    },
    num::{Word, ret_i32},
};

const IPC_NOWAIT: i32 = 0o4000;
/// CAP_SYS_RESOURCE lets a queue grow; no further than this.
const MOST_BYTES: u64 = 1 << 20;

/// `struct msqid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct MsqidDs {
    perm: IpcPerm,
    stime: u64,
    rtime: u64,
    ctime: u64,
    cbytes: u64,
    qnum: u64,
    qbytes: u64,
    lspid: i32,
    lrpid: i32,
    unused: [u64; 2],
}

/// msgget(2).
pub fn msgget(cx: &mut Cx<'_>, key: i32, flags: i32) -> SysResult {
    let (kernel, creds) = (cx.kernel(), cx.task.creds());
    let now = kernel.host.realtime();
    let make = |id, perm| Ok(MsgQueue::new(id, perm, now));
    Ok(kernel.ipc.msgs.get_or_make(key, flags, &creds, MAX_QUEUES, |_| Ok(()), make)?)
}

/// The queue of a call; a waiting call keeps the one it found first, which may be removed.
fn queue(cx: &mut Cx<'_>, id: i32, want: u32) -> Result<Arc<MsgQueue>, Errno> {
    if let Some(queue) = cx.call.slot.as_ref().and_then(|s| s.downcast_ref::<Arc<MsgQueue>>()) {
        return Ok(queue.clone());
    }
    let queue = cx.kernel().ipc.msgs.get(id)?;
    let perm = queue.state().perm;
    if perm.permits(&cx.task.creds(), want) { Ok(queue) } else { Err(Errno::EACCES) }
}

fn wait(cx: &mut Cx<'_>, queue: &Arc<MsgQueue>) -> Stop {
    cx.call.slot = Some(Box::new(queue.clone()));
    // Never restarted behind a handler, whatever SA_RESTART says (signal(7)).
    Wait::on(queue.queue.clone()).restart(Restart::NoHandler).into()
}

/// msgsnd(2).
pub fn msgsnd(cx: &mut Cx<'_>, id: i32, addr: u64, size: usize, flags: i32) -> SysResult {
    let mm = cx.mm();
    let kind: i64 = mm.read_obj(addr)?;
    if size > MAX_MESSAGE || id < 0 || kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let mut text = vec![0; size];
    mm.read_bytes(addr.saturating_add(8), &mut text)?;
    let queue = queue(cx, id, 2)?;
    let charge = Some(cx.kernel().ipc.budget.take(size)?);
    let (pid, now) = (cx.task.process.pid, cx.kernel().host.realtime());
    match queue.send(Message { kind, text, charge }, pid, now) {
        Ok(()) => Ok(0),
        Err(Errno::EAGAIN) if flags & IPC_NOWAIT == 0 => Err(wait(cx, &queue)),
        Err(errno) => Err(errno.into()),
    }
}

/// msgrcv(2).
pub fn msgrcv(
    cx: &mut Cx<'_>,
    id: i32,
    addr: u64,
    size: usize,
    kind: i64,
    flags: i32,
) -> SysResult {
    const NOERROR: i32 = 0o10000;
    const EXCEPT: i32 = 0o20000;
    const COPY: i32 = 0o40000;
    if id < 0 || (size as u64).cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    let select = if flags & COPY != 0 {
        if flags & EXCEPT != 0 || flags & IPC_NOWAIT == 0 {
            return Err(Errno::EINVAL.into());
        }
        Select::Copy(kind.cast_unsigned())
    } else if kind < 0 {
        Select::Lowest(kind.checked_neg().unwrap_or(i64::MAX))
    } else {
        Select::Type(kind, flags & EXCEPT != 0)
    };
    let queue = queue(cx, id, 4)?;
    let (pid, now) = (cx.task.process.pid, cx.kernel().host.realtime());
    let message = match queue.receive(select, size, flags & NOERROR != 0, pid, now) {
        Ok(message) => message,
        Err(Errno::EAGAIN) if flags & IPC_NOWAIT == 0 => return Err(wait(cx, &queue)),
        Err(Errno::EAGAIN) => return Err(Errno::ENOMSG.into()),
        Err(errno) => return Err(errno.into()),
    };
    let mm = cx.mm();
    let text = &message.text[..message.text.len().min(size)];
    mm.write_obj(addr, &message.kind)?;
    mm.write_bytes(addr.saturating_add(8), text)?;
    Ok(text.len() as u64)
}

fn describe(queue: &MsgQueue) -> MsqidDs {
    let state = queue.state();
    MsqidDs {
        perm: IpcPerm::new(&state.perm, queue.id),
        stime: seconds(state.times[0]),
        rtime: seconds(state.times[1]),
        ctime: seconds(state.times[2]),
        cbytes: state.bytes,
        qnum: state.count(),
        qbytes: state.limit,
        lspid: state.pids[0],
        lrpid: state.pids[1],
        ..MsqidDs::default()
    }
}

/// msgctl(2).
pub fn msgctl(cx: &mut Cx<'_>, id: i32, command: i32, arg: u64) -> SysResult {
    const RMID: i32 = 0;
    const SET: i32 = 1;
    const STAT: i32 = 2;
    const INFO: i32 = 3;
    const MSG_STAT: i32 = 11;
    const MSG_INFO: i32 = 12;
    const MSG_STAT_ANY: i32 = 13;
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL.into());
    }
    let (kernel, mm, creds) = (cx.kernel().clone(), cx.mm(), cx.task.creds());
    let msgs = &kernel.ipc.msgs;
    match command {
        RMID => {
            msgs.remove(id, &creds)?;
            Ok(0)
        }
        INFO | MSG_INFO => {
            let mut info =
                [512_000, 16384, MAX_MESSAGE.low_i32(), MAX_BYTES.low_i32(), MAX_QUEUES, 16];
            let mut headers = 16384;
            if command == MSG_INFO {
                let list = msgs.list();
                info[0] = list.len().low_i32();
                info[1] = list.iter().map(|(_, q)| q.state().count()).sum::<u64>().low_i32();
                headers = list.iter().map(|(_, q)| q.state().bytes).sum::<u64>().low_i32();
            }
            mm.write_obj(arg, &info)?;
            mm.write_obj(arg.saturating_add(24), &[headers, 0xffff])?;
            Ok(msgs.highest())
        }
        MSG_STAT | MSG_STAT_ANY | STAT => {
            let (id, queue) = if command == STAT { (0, msgs.get(id)?) } else { msgs.by_index(id)? };
            let perm = queue.state().perm;
            if command != MSG_STAT_ANY && !perm.permits(&creds, 4) {
                return Err(Errno::EACCES.into());
            }
            mm.write_obj(arg, &describe(&queue))?;
            Ok(ret_i32(id))
        }
        SET => {
            let new: MsqidDs = mm.read_obj(arg)?;
            let queue = msgs.get(id)?;
            let mut state = queue.state();
            let grows = new.qbytes > MAX_BYTES && !creds.capable(crate::creds::cap::SYS_RESOURCE);
            if !state.perm.owned_by(&creds) || grows {
                return Err(Errno::EPERM.into());
            }
            state.perm.change(new.perm.uid, new.perm.gid, new.perm.mode);
            state.limit = new.qbytes.min(MOST_BYTES);
            state.times[2] = kernel.host.realtime();
            drop(state);
            // There may be room now.
            queue.queue.wake();
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
