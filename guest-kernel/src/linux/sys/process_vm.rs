//! process_vm_readv(2) and process_vm_writev(2).

use std::sync::Arc;

use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    mm::Mm,
    num::Word,
};

const IOV_MAX: u64 = 1024;
const PIECE: usize = 64 << 10;

fn read_iovec(mm: &Mm, at: u64, count: u64) -> Result<Vec<(u64, u64)>, Errno> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut list = Vec::new();
    let mut total = 0u64;
    for i in 0..count {
        let entry: [u64; 2] = mm.read_obj(at.checked_add(16 * i).ok_or(Errno::EFAULT)?)?;
        total = total.checked_add(entry[1]).ok_or(Errno::EINVAL)?;
        if total > i64::MAX.cast_unsigned() {
            return Err(Errno::EINVAL);
        }
        list.push((entry[0], entry[1]));
    }
    Ok(list)
}

/// The memory of `pid`, if the caller may look at it (`PTRACE_MODE_ATTACH`).
fn target(cx: &Cx<'_>, pid: i32) -> Result<Arc<Mm>, Errno> {
    let task = cx.kernel().tasks.task(pid).ok_or(Errno::ESRCH)?;
    let (ours, theirs) = (cx.task.creds(), task.creds());
    let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|id| *id == ours.uid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|id| *id == ours.gid);
    if !same && !ours.capable(cap::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    task.try_mm().ok_or(Errno::ESRCH)
}

fn transfer(cx: &mut Cx<'_>, args: [u64; 6], write: bool) -> SysResult {
    let [pid, local, local_count, remote, remote_count, flags] = args;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let own = cx.mm();
    let local = read_iovec(&own, local, local_count)?;
    let remote = read_iovec(&own, remote, remote_count)?;
    if local.iter().all(|v| v.1 == 0) || remote.iter().all(|v| v.1 == 0) {
        return Ok(0);
    }
    let other = target(cx, pid.low_i32())?;
    let (from, to) = if write { (&own, &other) } else { (&other, &own) };
    let (sources, sinks) = if write { (local, remote) } else { (remote, local) };
    let mut done = 0u64;
    let mut buffer = vec![0; PIECE];
    let (mut source, mut sink) = (sources.into_iter(), sinks.into_iter());
    let (mut s, mut d) = ((0, 0), (0, 0));
    loop {
        while s.1 == 0 {
            let Some(next) = source.next() else { return Ok(done) };
            s = next;
        }
        while d.1 == 0 {
            let Some(next) = sink.next() else { return Ok(done) };
            d = next;
        }
        if cx.task.must_exit() {
            return Ok(done);
        }
        let want = s.1.min(d.1).min(PIECE as u64).size();
        let got = from.read_partial(s.0, &mut buffer[..want]);
        let put = to.write_partial(d.0, &buffer[..got]);
        done += put as u64;
        if put < want {
            return if done == 0 { Err(Errno::EFAULT.into()) } else { Ok(done) };
        }
        s = (s.0.wrapping_add(put as u64), s.1 - put as u64);
        d = (d.0.wrapping_add(put as u64), d.1 - put as u64);
    }
}

/// process_vm_readv(2).
pub fn readv(
    cx: &mut Cx<'_>,
    pid: u64,
    local: u64,
    local_count: u64,
    remote: u64,
    remote_count: u64,
    flags: u64,
) -> SysResult {
    transfer(cx, [pid, local, local_count, remote, remote_count, flags], false)
}
/// process_vm_writev(2).
pub fn writev(
    cx: &mut Cx<'_>,
    pid: u64,
    local: u64,
    local_count: u64,
    remote: u64,
    remote_count: u64,
    flags: u64,
) -> SysResult {
    transfer(cx, [pid, local, local_count, remote, remote_count, flags], true)
}
