//! epoll_create(2), epoll_ctl(2), epoll_wait(2).

use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    path::file,
    poll::{read_timespec, with_mask},
};
use crate::{
    call::Cx,
    epoll::{Epoll, Interest, Mode},
    error::{Errno, Restart, SysResult, Wait},
    fs::file::{OpenFile, OpenFlags, Ready},
    num::ret_i32,
};

/// `struct epoll_event` of epoll_ctl(2): packed on x86-64.
#[repr(C, packed)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct EpollEvent {
    events: u32,
    data: u64,
}

const CTL_ADD: i32 = 1;
const CTL_DEL: i32 = 2;
const CTL_MOD: i32 = 3;
/// The largest `maxevents` (EP_MAX_EVENTS).
const MAX_EVENTS: i32 = i32::MAX / 12;

/// epoll_create(2).
pub fn epoll_create(cx: &mut Cx<'_>, size: i32) -> SysResult {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    epoll_create1(cx, 0)
}

/// epoll_create1(2).
pub fn epoll_create1(cx: &mut Cx<'_>, flags: u32) -> SysResult {
    if flags & !OpenFlags::CLOEXEC.bits() != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = OpenFile::new(Epoll::new(), OpenFlags::RDWR);
    Ok(ret_i32(cx.install(file, flags != 0)?))
}

/// Splits the word of `struct epoll_event`, refusing what EPOLLEXCLUSIVE excludes.
fn interest(event: EpollEvent, op: i32) -> Result<Interest, Errno> {
    let mode = Mode::from_bits_truncate(event.events);
    let events = Ready::from_bits_truncate(event.events) | Ready::ERR | Ready::HUP;
    if mode.contains(Mode::EXCLUSIVE) {
        let allowed = (Ready::IN | Ready::OUT | Ready::ERR | Ready::HUP).bits()
            | (Mode::EXCLUSIVE | Mode::WAKEUP | Mode::EDGE).bits();
        if op == CTL_MOD || event.events & !allowed != 0 {
            return Err(Errno::EINVAL);
        }
    }
    Ok(Interest { events, mode, data: event.data })
}

/// epoll_ctl(2).
pub fn epoll_ctl(cx: &mut Cx<'_>, epfd: i32, op: i32, fd: i32, event: u64) -> SysResult {
    let event = match op {
        CTL_DEL => EpollEvent { events: 0, data: 0 },
        _ => cx.mm().read_obj(event)?,
    };
    let (set, file) = (file(cx, epfd)?, file(cx, fd)?);
    if file.ops.queue().is_none() {
        return Err(Errno::EPERM.into());
    }
    let epoll = set.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    if std::sync::Arc::ptr_eq(&set, &file) {
        return Err(Errno::EINVAL.into());
    }
    match op {
        CTL_ADD => epoll.add(fd, &file, interest(event, op)?, &cx.kernel().epoll_nesting)?,
        CTL_MOD => epoll.modify(fd, &file, interest(event, op)?)?,
        CTL_DEL => epoll.remove(fd, &file)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// Collects events, or waits for some until `timeout` is over.
fn wait_for(
    cx: &mut Cx<'_>,
    epfd: i32,
    events: u64,
    max: i32,
    timeout: Option<Duration>,
) -> SysResult {
    let set = file(cx, epfd)?;
    if !(1..=MAX_EVENTS).contains(&max) {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let size = size_of::<EpollEvent>() as u64;
    if !mm.in_user_range(events, u64::from(max.cast_unsigned()) * size) {
        return Err(Errno::EFAULT.into());
    }
    let epoll = set.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    let count = epoll.collect(usize::try_from(max).unwrap_or(0), |nth, ready, data| {
        let at = events.checked_add(nth as u64 * size).ok_or(Errno::EFAULT)?;
        mm.write_obj(at, &EpollEvent { events: ready.bits(), data })
    })?;
    if count > 0 || timeout == Some(Duration::ZERO) {
        return Ok(count as u64);
    }
    let deadline = cx.deadline_after(timeout);
    if deadline.is_some_and(|d| cx.now() >= d) {
        return Ok(0);
    }
    let queue = set.ops.queue().ok_or(Errno::EINVAL)?;
    Err(Wait::on(queue).until(deadline).restart(Restart::Never).into())
}

/// The time-out in milliseconds of poll(2) and epoll_wait(2); negative is none.
pub fn millis(timeout: i32) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// epoll_wait(2).
pub fn epoll_wait(cx: &mut Cx<'_>, epfd: i32, events: u64, max: i32, timeout: i32) -> SysResult {
    wait_for(cx, epfd, events, max, millis(timeout))
}

/// epoll_pwait(2).
pub fn epoll_pwait(
    cx: &mut Cx<'_>,
    epfd: i32,
    events: u64,
    max: i32,
    timeout: i32,
    mask: u64,
    size: u64,
) -> SysResult {
    with_mask(cx, mask, size, |cx| wait_for(cx, epfd, events, max, millis(timeout)))
}

/// epoll_pwait2(2).
pub fn epoll_pwait2(
    cx: &mut Cx<'_>,
    epfd: i32,
    events: u64,
    max: i32,
    timeout: u64,
    mask: u64,
    size: u64,
) -> SysResult {
    let timeout = if timeout == 0 { None } else { Some(read_timespec(cx, timeout)?) };
    with_mask(cx, mask, size, |cx| wait_for(cx, epfd, events, max, timeout))
}
