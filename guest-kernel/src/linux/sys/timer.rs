//! timer_create(2) and timerfd_create(2) families.

use std::{sync::Arc, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::time::{ABSTIME, Clock, RawTime};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    fs::file::{OpenFile, OpenFlags},
    num::ret_i32,
    signal::number::SIGALRM,
    time::{
        Base, Setting,
        posix::{Notify, Recipient},
        timerfd::TimerFd,
    },
};

/// The used part of `struct sigevent`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SigEvent {
    value: u64,
    signal: i32,
    notify: i32,
    tid: i32,
    pad: [i32; 11],
}

const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD: i32 = 2;
const SIGEV_THREAD_ID: i32 = 4;

/// `struct itimerspec`: interval, then value.
type RawTimer = [RawTime; 2];

fn encode(setting: Setting) -> RawTimer {
    [RawTime::timespec(setting.interval), RawTime::timespec(setting.value)]
}
fn decode(raw: RawTimer) -> Result<Setting, Errno> {
    Ok(Setting { interval: raw[0].from_timespec()?, value: raw[1].from_timespec()? })
}

fn recipient(cx: &Cx<'_>, event: &SigEvent) -> Result<Recipient, Errno> {
    let signal_ok = (1..=64).contains(&event.signal);
    match event.notify {
        SIGEV_NONE => Ok(Recipient::Nobody),
        SIGEV_SIGNAL | SIGEV_THREAD if signal_ok => {
            Ok(Recipient::Process(Arc::downgrade(&cx.task.process)))
        }
        SIGEV_THREAD_ID if signal_ok => {
            let task = cx.kernel().tasks.task(event.tid);
            let own = task.filter(|t| Arc::ptr_eq(&t.process, &cx.task.process));
            Ok(Recipient::Thread(Arc::downgrade(&own.ok_or(Errno::EINVAL)?)))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// timer_create(2). As on Linux the number is taken first: a call that fails uses one up.
pub fn timer_create(cx: &mut Cx<'_>, clock: i32, event: u64, id: u64) -> SysResult {
    let mm = cx.mm();
    let event = if event == 0 { None } else { Some(mm.read_obj::<SigEvent>(event)?) };
    let clock = match Clock::find(cx, clock) {
        Ok(Clock::Raw | Clock::Realtime(true) | Clock::Monotonic(true)) => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        Err(errno) if clock >= 0 => return Err(errno.into()),
        found => found,
    };
    let process = &cx.task.process;
    let new = process.timers.posix.number()?;
    let to = match &event {
        Some(event) => recipient(cx, event)?,
        None => Recipient::Process(Arc::downgrade(process)),
    };
    mm.write_obj(id, &new)?;
    let clock = clock?;
    let realtime = matches!(clock, Clock::Realtime(_) | Clock::Tai);
    let base = match clock {
        Clock::Alarm => return Err(Errno::EOPNOTSUPP.into()),
        Clock::Process(task, kind) => Base::Process(Arc::downgrade(&task.process), kind),
        Clock::Thread(task, kind) => Base::Thread(Arc::downgrade(&task), kind),
        _ => Base::Monotonic,
    };
    let notify = Notify {
        to,
        signal: event.map_or(SIGALRM, |e| u8::try_from(e.signal).unwrap_or(SIGALRM)),
        value: event.map_or(u64::from(new.cast_unsigned()), |e| e.value),
        realtime,
    };
    process.timers.posix.create(process, base, new, notify);
    Ok(0)
}

/// When a new setting first expires, on the timer's own clock.
fn first_expiry(
    cx: &Cx<'_>,
    now: Duration,
    value: Duration,
    absolute: bool,
    realtime: bool,
) -> Option<Duration> {
    if value.is_zero() {
        return None;
    }
    Some(if !absolute {
        now.saturating_add(value)
    } else if realtime {
        now.saturating_add(value.saturating_sub(cx.kernel().host.realtime()))
    } else {
        value
    })
}

/// timer_settime(2).
pub fn timer_settime(cx: &mut Cx<'_>, id: i32, flags: u32, new: u64, old: u64) -> SysResult {
    let mm = cx.mm();
    if new == 0 {
        return Err(Errno::EINVAL.into());
    }
    let setting = decode(mm.read_obj(new)?)?;
    let timer = cx.task.process.timers.posix.get(id)?;
    cx.task.update_usage();
    let absolute = flags & ABSTIME != 0;
    let next = first_expiry(cx, timer.now(), setting.value, absolute, timer.is_realtime());
    let before = timer.set(next, setting.interval);
    if old != 0 {
        mm.write_obj(old, &encode(before))?;
    }
    Ok(0)
}

/// timer_gettime(2).
pub fn timer_gettime(cx: &mut Cx<'_>, id: i32, value: u64) -> SysResult {
    cx.task.update_usage();
    let setting = cx.task.process.timers.posix.get(id)?.get();
    cx.mm().write_obj(value, &encode(setting))?;
    Ok(0)
}

/// timer_getoverrun(2).
pub fn timer_getoverrun(cx: &mut Cx<'_>, id: i32) -> SysResult {
    Ok(ret_i32(cx.task.process.timers.posix.get(id)?.overrun()))
}

/// timer_delete(2).
pub fn timer_delete(cx: &mut Cx<'_>, id: i32) -> SysResult {
    cx.task.process.timers.posix.delete(id)?;
    Ok(0)
}

/// timerfd_create(2).
pub fn timerfd_create(cx: &mut Cx<'_>, clock: i32, flags: u32) -> SysResult {
    let open = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(open) {
        return Err(Errno::EINVAL.into());
    }
    let alarm = matches!(clock, 8 | 9);
    let realtime = match clock {
        0 | 8 => true,
        1 | 7 | 9 => false,
        _ => return Err(Errno::EINVAL.into()),
    };
    if alarm && !cx.task.creds().capable(cap::WAKE_ALARM) {
        return Err(Errno::EPERM.into());
    }
    let fd = TimerFd::new(cx.kernel(), realtime);
    let file = OpenFile::new(fd, open | OpenFlags::RDWR);
    Ok(ret_i32(cx.install(file, open.contains(OpenFlags::CLOEXEC))?))
}

/// timerfd_settime(2). The clocks are never set, so TFD_TIMER_CANCEL_ON_SET has nothing to do.
pub fn timerfd_settime(cx: &mut Cx<'_>, fd: i32, flags: u32, new: u64, old: u64) -> SysResult {
    const CANCEL_ON_SET: u32 = 2;
    let mm = cx.mm();
    let raw: RawTimer = mm.read_obj(new)?;
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let setting = decode(raw)?;
    let file = cx.files().get(fd)?;
    let timer = file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?;
    let absolute = flags & ABSTIME != 0;
    let next = first_expiry(cx, cx.now(), setting.value, absolute, timer.realtime);
    let before = timer.set(next, setting.interval);
    if old != 0 {
        mm.write_obj(old, &encode(before))?;
    }
    Ok(0)
}

/// timerfd_gettime(2).
pub fn timerfd_gettime(cx: &mut Cx<'_>, fd: i32, value: u64) -> SysResult {
    let file = cx.files().get(fd)?;
    let setting = file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?.get();
    cx.mm().write_obj(value, &encode(setting))?;
    Ok(0)
}
