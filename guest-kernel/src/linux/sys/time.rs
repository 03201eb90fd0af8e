//! clock_gettime(2), nanosleep(2), getitimer(2), alarm(2), adjtimex(2) and kin.

use std::{sync::Arc, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    call::Cx,
    error::{Errno, Restart, SysResult, Wait},
    mm::Mm,
    task::Task,
    time::{CpuKind, Setting, itimer::Which, process_cpu, thread_cpu},
};

/// `struct timespec`, and `struct timeval` with microseconds.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawTime {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds or microseconds.
    pub fraction: i64,
}

impl RawTime {
    /// As `struct timespec`.
    #[must_use]
    pub fn timespec(time: Duration) -> RawTime {
        RawTime { seconds: seconds(time), fraction: i64::from(time.subsec_nanos()) }
    }
    /// As `struct timeval`.
    #[must_use]
    pub fn timeval(time: Duration) -> RawTime {
        RawTime { seconds: seconds(time), fraction: i64::from(time.subsec_micros()) }
    }
    /// What a `struct timespec` says.
    ///
    /// # Errors
    /// EINVAL for a negative time or too many nanoseconds.
    pub fn from_timespec(self) -> Result<Duration, Errno> {
        let seconds = u64::try_from(self.seconds).map_err(|_| Errno::EINVAL)?;
        match u32::try_from(self.fraction) {
            Ok(nanos) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
            _ => Err(Errno::EINVAL),
        }
    }
    /// What a `struct timeval` says.
    ///
    /// # Errors
    /// EINVAL for a negative time or too many microseconds.
    pub fn from_timeval(self) -> Result<Duration, Errno> {
        let seconds = u64::try_from(self.seconds).map_err(|_| Errno::EINVAL)?;
        match u32::try_from(self.fraction) {
            Ok(micros) if micros < 1_000_000 => Ok(Duration::new(seconds, micros * 1000)),
            _ => Err(Errno::EINVAL),
        }
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// What a time limit counts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockTime {
    /// The call's start.
    Relative,
    /// An instant of `CLOCK_MONOTONIC`.
    Monotonic,
    /// An instant of `CLOCK_REALTIME`.
    Realtime,
}

/// Reads a `struct timespec`.
///
/// # Errors
/// EFAULT; EINVAL for a negative time or too many nanoseconds.
pub fn read_timespec(mm: &Mm, addr: u64) -> Result<Duration, Errno> {
    mm.read_obj::<RawTime>(addr)?.from_timespec()
}

/// A clock of clock_gettime(2).
#[derive(Clone)]
pub enum Clock {
    /// CLOCK_REALTIME; true for the coarse one.
    Realtime(bool),
    /// CLOCK_MONOTONIC; true for the coarse one.
    Monotonic(bool),
    /// CLOCK_MONOTONIC_RAW.
    Raw,
    /// CLOCK_BOOTTIME.
    Boottime,
    /// CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM: there is no device that could wake a machine, and
    /// Linux has these clocks only where there is one.
    Alarm,
    /// CLOCK_TAI.
    Tai,
    /// CPU time of the process of this thread.
    Process(Arc<Task>, CpuKind),
    /// CPU time of this thread.
    Thread(Arc<Task>, CpuKind),
}

impl Clock {
    /// The clock `id`, or the CPU clock of the process or thread it encodes.
    ///
    /// # Errors
    /// EINVAL.
    pub fn find(cx: &Cx<'_>, id: i32) -> Result<Clock, Errno> {
        const PER_THREAD: i32 = 4;
        let me = || cx.task.clone();
        Ok(match id {
            0 => Clock::Realtime(false),
            1 => Clock::Monotonic(false),
            2 => Clock::Process(me(), CpuKind::Total),
            3 => Clock::Thread(me(), CpuKind::Total),
            4 => Clock::Raw,
            5 => Clock::Realtime(true),
            6 => Clock::Monotonic(true),
            7 => Clock::Boottime,
            8 | 9 => Clock::Alarm,
            11 => Clock::Tai,
            10 | 12.. => return Err(Errno::EINVAL),
            _ => {
                let kind = match id & 3 {
                    0 | 2 => CpuKind::Total,
                    1 => CpuKind::User,
                    _ => return Err(Errno::EINVAL),
                };
                let tasks = &cx.kernel().tasks;
                let task = match !(id >> 3) {
                    0 => Some(me()),
                    tid if id & PER_THREAD != 0 => {
                        tasks.task(tid).filter(|t| Arc::ptr_eq(&t.process, &cx.task.process))
                    }
                    pid => tasks.process(pid).and_then(|p| p.any_thread()),
                };
                let task = task.ok_or(Errno::EINVAL)?;
                if id & PER_THREAD != 0 {
                    Clock::Thread(task, kind)
                } else {
                    Clock::Process(task, kind)
                }
            }
        })
    }
    /// As [`Clock::find`], of those that show a time.
    ///
    /// # Errors
    /// EINVAL.
    fn readable(cx: &Cx<'_>, id: i32) -> Result<Clock, Errno> {
        match Clock::find(cx, id)? {
            Clock::Alarm => Err(Errno::EINVAL),
            clock => Ok(clock),
        }
    }
    /// The time on it.
    #[must_use]
    pub fn now(&self, cx: &Cx<'_>) -> Duration {
        let host = &cx.kernel().host;
        match self {
            Clock::Realtime(_) | Clock::Tai => host.realtime(),
            Clock::Monotonic(_) | Clock::Raw => host.monotonic(),
            Clock::Boottime | Clock::Alarm => host.boottime(),
            Clock::Process(task, kind) => {
                let own = Arc::ptr_eq(&task.process, &cx.task.process);
                process_cpu(&task.process, *kind, own.then_some(&**cx.task))
            }
            Clock::Thread(task, kind) => thread_cpu(task, *kind, Arc::ptr_eq(task, cx.task)),
        }
    }
    /// Its resolution.
    fn resolution(&self) -> Duration {
        match self {
            Clock::Realtime(true) | Clock::Monotonic(true) => Duration::from_millis(4),
            _ => Duration::from_nanos(1),
        }
    }
    /// An instant of this real-time clock as `CLOCK_MONOTONIC`; `None` for other clocks.
    #[must_use]
    pub fn to_monotonic(&self, cx: &Cx<'_>, at: Duration) -> Option<Duration> {
        match self {
            Clock::Monotonic(false) => Some(at),
            Clock::Realtime(false) | Clock::Tai | Clock::Boottime => {
                Some(cx.now().saturating_add(at.saturating_sub(self.now(cx))))
            }
            _ => None,
        }
    }
}

/// clock_gettime(2).
pub fn clock_gettime(cx: &mut Cx<'_>, id: i32, time: u64) -> SysResult {
    let now = Clock::readable(cx, id)?.now(cx);
    cx.mm().write_obj(time, &RawTime::timespec(now))?;
    Ok(0)
}

/// clock_getres(2).
pub fn clock_getres(cx: &mut Cx<'_>, id: i32, res: u64) -> SysResult {
    let resolution = Clock::readable(cx, id)?.resolution();
    if res != 0 {
        cx.mm().write_obj(res, &RawTime::timespec(resolution))?;
    }
    Ok(0)
}

/// clock_settime(2): refused, the clocks are the host's.
pub fn clock_settime(cx: &mut Cx<'_>, id: i32, time: u64) -> SysResult {
    let clock = Clock::find(cx, id)?;
    if !matches!(clock, Clock::Realtime(false) | Clock::Process(..) | Clock::Thread(..)) {
        return Err(Errno::EINVAL.into());
    }
    read_timespec(&cx.mm(), time)?;
    Err(Errno::EPERM.into())
}

/// gettimeofday(2). The time zone is UTC.
pub fn gettimeofday(cx: &mut Cx<'_>, time: u64, zone: u64) -> SysResult {
    let mm = cx.mm();
    if time != 0 {
        mm.write_obj(time, &RawTime::timeval(cx.kernel().host.realtime()))?;
    }
    if zone != 0 {
        mm.write_obj(zone, &0u64)?;
    }
    Ok(0)
}

/// settimeofday(2): refused, the clocks are the host's.
pub fn settimeofday(cx: &mut Cx<'_>, time: u64, _zone: u64) -> SysResult {
    if time != 0 {
        cx.mm().read_obj::<RawTime>(time)?.from_timeval()?;
    }
    Err(Errno::EPERM.into())
}

/// time(2).
pub fn time(cx: &mut Cx<'_>, out: u64) -> SysResult {
    let now = cx.kernel().host.realtime().as_secs();
    if out != 0 {
        cx.mm().write_obj(out, &now)?;
    }
    Ok(now)
}

/// Sleeps until `deadline`; when a signal handler interrupts, stores what is left at `remaining`.
fn sleep_until(cx: &mut Cx<'_>, deadline: Duration, remaining: u64, absolute: bool) -> SysResult {
    let now = cx.now();
    if now >= deadline {
        return Ok(0);
    }
    if cx.call.interrupted && remaining != 0 {
        // Harmless if no handler runs: the sleep then goes on.
        cx.mm().write_obj(remaining, &RawTime::timespec(deadline - now))?;
    }
    let restart = if absolute { Restart::NoHandler } else { Restart::KeepDeadline };
    Err(Wait { queues: vec![], deadline: Some(deadline), restart }.into())
}

/// nanosleep(2).
pub fn nanosleep(cx: &mut Cx<'_>, time: u64, remaining: u64) -> SysResult {
    let deadline = match cx.call.deadline {
        Some(deadline) => deadline,
        None => {
            let limit = read_timespec(&cx.mm(), time)?;
            cx.deadline_after(Some(limit)).unwrap_or(Duration::MAX)
        }
    };
    sleep_until(cx, deadline, remaining, false)
}

/// TIMER_ABSTIME.
pub const ABSTIME: u32 = 1;

/// clock_nanosleep(2).
pub fn clock_nanosleep(
    cx: &mut Cx<'_>,
    id: i32,
    flags: u32,
    time: u64,
    remaining: u64,
) -> SysResult {
    let absolute = flags & ABSTIME != 0;
    let remaining = if absolute { 0 } else { remaining };
    let clock = Clock::find(cx, id)?;
    match &clock {
        Clock::Raw | Clock::Realtime(true) | Clock::Monotonic(true) => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        Clock::Thread(task, _) if Arc::ptr_eq(task, cx.task) => {
            return Err(if id < 0 { Errno::EINVAL } else { Errno::EOPNOTSUPP }.into());
        }
        _ => {}
    }
    let limit = read_timespec(&cx.mm(), time)?;
    if let Clock::Alarm = clock {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if let Clock::Process(..) | Clock::Thread(..) = clock {
        return cpu_sleep(cx, &clock, limit, absolute, remaining);
    }
    let deadline = match cx.call.deadline {
        Some(deadline) => deadline,
        None if absolute => clock.to_monotonic(cx, limit).ok_or(Errno::EOPNOTSUPP)?,
        None => cx.started().saturating_add(limit),
    };
    cx.call.deadline = Some(deadline);
    sleep_until(cx, deadline, remaining, absolute)
}

/// Sleeps on a CPU clock by looking at it now and then. `Call::deadline` holds the target on that
/// clock.
fn cpu_sleep(
    cx: &mut Cx<'_>,
    clock: &Clock,
    limit: Duration,
    absolute: bool,
    remaining: u64,
) -> SysResult {
    let now = clock.now(cx);
    let from = if absolute { Duration::ZERO } else { now };
    let target = *cx.call.deadline.get_or_insert(from.saturating_add(limit));
    if now >= target {
        return Ok(0);
    }
    if cx.call.interrupted && remaining != 0 {
        cx.mm().write_obj(remaining, &RawTime::timespec(target - now))?;
    }
    if let Clock::Process(task, _) | Clock::Thread(task, _) = clock {
        for other in task.process.tasks() {
            if !Arc::ptr_eq(&other, cx.task) {
                other.notify();
            }
        }
    }
    let look = (target - now).clamp(Duration::from_millis(2), Duration::from_millis(50));
    let deadline = Some(cx.now().saturating_add(look));
    Err(Wait { queues: vec![], deadline, restart: Restart::KeepDeadline }.into())
}

fn which(which: u32) -> Result<Which, Errno> {
    match which {
        0 => Ok(Which::Real),
        1 => Ok(Which::Virtual),
        2 => Ok(Which::Prof),
        _ => Err(Errno::EINVAL),
    }
}

/// `struct itimerval` and `struct itimerspec`: interval, then value.
type RawTimer = [RawTime; 2];

fn itimerval(setting: Setting) -> RawTimer {
    [RawTime::timeval(setting.interval), RawTime::timeval(setting.value)]
}

/// getitimer(2).
pub fn getitimer(cx: &mut Cx<'_>, kind: u32, value: u64) -> SysResult {
    let setting = cx.task.process.timers.interval(which(kind)?);
    cx.mm().write_obj(value, &itimerval(setting))?;
    Ok(0)
}

/// setitimer(2).
pub fn setitimer(cx: &mut Cx<'_>, kind: u32, new: u64, old: u64) -> SysResult {
    let mm = cx.mm();
    let setting = if new == 0 {
        Setting::default()
    } else {
        let [interval, value] = mm.read_obj::<RawTimer>(new)?;
        Setting { value: value.from_timeval()?, interval: interval.from_timeval()? }
    };
    let process = &cx.task.process;
    cx.task.update_usage();
    let before = process.timers.set_interval(process, which(kind)?, setting);
    if old != 0 {
        mm.write_obj(old, &itimerval(before))?;
    }
    Ok(0)
}

/// alarm(2).
pub fn alarm(cx: &mut Cx<'_>, seconds: u32) -> SysResult {
    let value = Duration::from_secs(u64::from(seconds));
    let setting = Setting { value, interval: Duration::ZERO };
    let process = &cx.task.process;
    let left = process.timers.set_interval(process, Which::Real, setting).value;
    // Rounded, but never to 0 while an alarm was pending.
    let up = left.subsec_micros() >= 500_000 || (left.as_secs() == 0 && !left.is_zero());
    Ok(left.as_secs() + u64::from(up))
}

/// `struct timex` in words of eight bytes.
const TIMEX_WORDS: usize = 26;

/// adjtimex(2).
pub fn adjtimex(cx: &mut Cx<'_>, buf: u64) -> SysResult {
    const UNSYNCHRONISED: u64 = 5;
    const STA_UNSYNC: u64 = 0x40;
    let mm = cx.mm();
    let mut timex: [u64; TIMEX_WORDS] = mm.read_obj(buf)?;
    if crate::num::Word::low_u32(timex[0]) != 0 {
        return Err(Errno::EPERM.into());
    }
    timex = [0; TIMEX_WORDS];
    let now = cx.kernel().host.realtime();
    timex[3] = 16_000_000; // maxerror
    timex[4] = 16_000_000; // esterror
    timex[5] = STA_UNSYNC; // status
    timex[6] = 2; // constant
    timex[7] = 1; // precision
    timex[8] = 32_768_000; // tolerance
    timex[9] = now.as_secs();
    timex[10] = u64::from(now.subsec_micros());
    timex[11] = 10_000; // tick
    mm.write_obj(buf, &timex)?;
    Ok(UNSYNCHRONISED)
}

/// clock_adjtime(2).
pub fn clock_adjtime(cx: &mut Cx<'_>, id: i32, buf: u64) -> SysResult {
    match Clock::find(cx, id)? {
        Clock::Realtime(false) => adjtimex(cx, buf),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}
