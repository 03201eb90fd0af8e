//! poll(2) and select(2).
//!
//! Each try asks every file; if none is ready the call waits on all their queues at once. What the
//! caller passed in is read again at each try, so a retry needs no memory but the deadline.

use std::{sync::Arc, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{epoll::millis, path::file};
use crate::{
    call::Cx,
    error::{Errno, Restart, Stop, SysResult, Wait},
    fs::file::{OpenFlags, Ready},
    num::Word,
    signal::{deliver::set_temporary_mask, set::SigSet},
    task::process::rlimit,
    wait::WaitQueue,
};

/// `struct pollfd` of poll(2).
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct PollFd {
    fd: i32,
    events: u16,
    revents: u16,
}

/// `struct timespec`, and `struct timeval` with another unit.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Time {
    seconds: i64,
    fraction: i64,
}

/// Reads a `struct timespec`.
///
/// # Errors
/// EFAULT; EINVAL for a negative time or too many nanoseconds.
pub(super) fn read_timespec(cx: &Cx<'_>, addr: u64) -> Result<Duration, Errno> {
    let time: Time = cx.mm().read_obj(addr)?;
    let seconds = u64::try_from(time.seconds).map_err(|_| Errno::EINVAL)?;
    let nanos = u32::try_from(time.fraction).map_err(|_| Errno::EINVAL)?;
    if nanos >= 1_000_000_000 {
        return Err(Errno::EINVAL);
    }
    Ok(Duration::new(seconds, nanos))
}

/// Reads a `struct timeval` as select(2) does: whole seconds among the microseconds count.
fn read_timeval(cx: &Cx<'_>, addr: u64) -> Result<Duration, Errno> {
    let time: Time = cx.mm().read_obj(addr)?;
    let seconds = time.seconds.checked_add(time.fraction / 1_000_000).ok_or(Errno::EINVAL)?;
    let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    let micros = u64::try_from(time.fraction % 1_000_000).map_err(|_| Errno::EINVAL)?;
    Ok(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

/// Runs `body` with the caller's signal mask replaced by the one at `mask`, if any; what interrupts
/// the wait runs under the new mask and returns to the old one.
pub(super) fn with_mask(
    cx: &mut Cx<'_>,
    mask: u64,
    size: u64,
    body: impl FnOnce(&mut Cx<'_>) -> SysResult,
) -> SysResult {
    if mask != 0 {
        if size != 8 {
            return Err(Errno::EINVAL.into());
        }
        let mask: u64 = cx.mm().read_obj(mask)?;
        set_temporary_mask(cx.task, SigSet(mask));
    }
    body(cx)
}

/// Waits on `queues` for something to become ready, or says that time is up.
fn sleep(
    cx: &mut Cx<'_>,
    timeout: Option<Duration>,
    queues: Vec<Arc<WaitQueue>>,
    restart: Restart,
) -> Result<(), Stop> {
    if timeout == Some(Duration::ZERO) {
        return Ok(());
    }
    let deadline = cx.deadline_after(timeout);
    if deadline.is_some_and(|d| cx.now() >= d) {
        return Ok(());
    }
    Err(Wait { queues, deadline, restart }.into())
}

/// The shared part of poll(2) and ppoll(2).
fn poll_for(cx: &mut Cx<'_>, fds: u64, count: u32, timeout: Option<Duration>) -> SysResult {
    if u64::from(count) > cx.task.process.limit(rlimit::NOFILE) {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let mut list = vec![PollFd::default(); count.size()];
    mm.read_bytes(fds, list.as_mut_bytes())?;
    let mut queues = Vec::new();
    let mut ready_count = 0;
    for entry in &mut list {
        entry.revents = 0;
        if entry.fd < 0 {
            continue;
        }
        let ready = match file(cx, entry.fd) {
            Err(_) => Ready::NVAL,
            Ok(file) => {
                queues.extend(file.ops.queue());
                let wanted = Ready::from_bits_truncate(u32::from(entry.events));
                file.ops.poll(&file) & (wanted | Ready::ERR | Ready::HUP)
            }
        };
        entry.revents = ready.bits().low_u16();
        ready_count += u64::from(!ready.is_empty());
    }
    if ready_count == 0 {
        sleep(cx, timeout, queues, Restart::KeepDeadline)?;
    }
    // In this order: where the list is empty, any number may stand for its address.
    for (entry, at) in list.iter().zip((fds..).step_by(size_of::<PollFd>())) {
        // Only the answer is written: another thread may watch the rest.
        mm.write_obj(at + 6, &entry.revents)?;
    }
    Ok(ready_count)
}

/// poll(2).
pub fn poll(cx: &mut Cx<'_>, fds: u64, count: u32, timeout: i32) -> SysResult {
    poll_for(cx, fds, count, millis(timeout))
}

/// ppoll(2).
pub fn ppoll(
    cx: &mut Cx<'_>,
    fds: u64,
    count: u32,
    timeout: u64,
    mask: u64,
    size: u64,
) -> SysResult {
    let limit = if timeout == 0 { None } else { Some(read_timespec(cx, timeout)?) };
    let result = with_mask(cx, mask, size, |cx| poll_for(cx, fds, count, limit));
    write_remaining(cx, result, limit, timeout, 1)
}

/// Tells the caller how much of its time-out was left, as Linux does for all but poll(2).
fn write_remaining(
    cx: &mut Cx<'_>,
    result: SysResult,
    limit: Option<Duration>,
    addr: u64,
    nanos_per_unit: u32,
) -> SysResult {
    if let (Some(limit), Ok(_)) = (limit, &result) {
        let end = cx.started().saturating_add(limit);
        let left = end.saturating_sub(cx.now()).min(limit);
        let time = Time {
            seconds: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            fraction: i64::from(left.subsec_nanos() / nanos_per_unit),
        };
        // The result stands even if the time-out lies in read-only memory.
        let _ = cx.mm().write_obj(addr, &time);
    }
    result
}

/// What select(2) takes for readable, writable, exceptional (its POLLIN_SET and so on).
const SETS: [Ready; 3] = [
    Ready::IN
        .union(Ready::RDNORM)
        .union(Ready::RDBAND)
        .union(Ready::HUP)
        .union(Ready::ERR)
        .union(Ready::NVAL),
    Ready::OUT.union(Ready::WRNORM).union(Ready::WRBAND).union(Ready::ERR).union(Ready::NVAL),
    Ready::PRI.union(Ready::NVAL),
];

/// The shared part of select(2) and pselect6(2). `sets` are the guest addresses of the read, write
/// and exception sets, 0 for none.
fn select_for(cx: &mut Cx<'_>, count: i32, sets: [u64; 3], timeout: Option<Duration>) -> SysResult {
    // Bits beyond the table cannot be open descriptors; Linux ignores them too.
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?.min(cx.files().capacity());
    let bytes = count.div_ceil(64) * 8;
    let mm = cx.mm();
    let mut wanted = [Vec::new(), Vec::new(), Vec::new()];
    for (set, addr) in wanted.iter_mut().zip(sets) {
        set.resize(bytes, 0u8);
        if addr != 0 {
            mm.read_bytes(addr, set)?;
        }
    }
    let mut queues = Vec::new();
    let mut result = [vec![0u8; bytes], vec![0u8; bytes], vec![0u8; bytes]];
    let mut ready_count = 0;
    for fd in 0..count {
        let (byte, bit) = (fd / 8, 1u8 << (fd % 8));
        if wanted.iter().all(|set| set[byte] & bit == 0) {
            continue;
        }
        let file = cx.files().get(fd.low_i32())?;
        let ready = if file.flags().contains(OpenFlags::PATH) {
            Ready::NVAL
        } else {
            queues.extend(file.ops.queue());
            file.ops.poll(&file)
        };
        for ((want, got), class) in wanted.iter().zip(&mut result).zip(SETS) {
            if want[byte] & bit != 0 && ready.intersects(class) {
                got[byte] |= bit;
                ready_count += 1;
            }
        }
    }
    if ready_count == 0 {
        sleep(cx, timeout, queues, Restart::NoHandler)?;
    }
    for (set, addr) in result.iter().zip(sets) {
        if addr != 0 {
            mm.write_bytes(addr, set)?;
        }
    }
    Ok(ready_count)
}

/// select(2).
pub fn select(
    cx: &mut Cx<'_>,
    count: i32,
    read: u64,
    write: u64,
    except: u64,
    timeout: u64,
) -> SysResult {
    let limit = if timeout == 0 { None } else { Some(read_timeval(cx, timeout)?) };
    let result = select_for(cx, count, [read, write, except], limit);
    write_remaining(cx, result, limit, timeout, 1000)
}

/// pselect6(2): select with a `timespec` and a signal mask.
pub fn pselect6(
    cx: &mut Cx<'_>,
    count: i32,
    read: u64,
    write: u64,
    except: u64,
    timeout: u64,
    mask: u64,
) -> SysResult {
    let limit = if timeout == 0 { None } else { Some(read_timespec(cx, timeout)?) };
    let [mask, size] = if mask == 0 { [0, 8] } else { cx.mm().read_obj::<[u64; 2]>(mask)? };
    let result =
        with_mask(cx, mask, size, |cx| select_for(cx, count, [read, write, except], limit));
    write_remaining(cx, result, limit, timeout, 1)
}
