//! Clocks, sleeps and timers.

use crate::{
    linux::{
        sys::{time, timer},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(35, nanosleep(req: StructIn("timespec"), rem: StructOut("timespec"))
        => time::nanosleep, Full),
    row!(36, getitimer(which: Enum("itimer"), curr_value: StructOut("itimerval"))
        => time::getitimer, Full),
    row!(37, alarm(seconds: Uint) => time::alarm, Full),
    row!(38, setitimer(which: Enum("itimer"), new_value: StructIn("itimerval"),
        old_value: StructOut("itimerval")) => time::setitimer, Partial,
        "ITIMER_VIRTUAL and ITIMER_PROF are sampled every few milliseconds"),
    row!(96, gettimeofday(tv: StructOut("timeval"), tz: StructOut("timezone")) => time::gettimeofday, Full),
    row!(159, adjtimex(buf: StructIn("timex")) => time::adjtimex, Partial, "read-only"),
    row!(164, settimeofday(tv: StructIn("timeval"), tz: StructIn("timezone")) => time::settimeofday, Stub,
        "the clocks are the host's: EPERM"),
    row!(201, time(tloc: StructOut("time")) => time::time, Full),
    row!(227, clock_settime(clockid: Enum("clock"), tp: StructIn("timespec"))
        => time::clock_settime, Stub, "the clocks are the host's: EPERM"),
    row!(228, clock_gettime(clockid: Enum("clock"), tp: StructOut("timespec"))
        => time::clock_gettime, Full),
    row!(229, clock_getres(clockid: Enum("clock"), res: StructOut("timespec"))
        => time::clock_getres, Full),
    row!(230, clock_nanosleep(clockid: Enum("clock"), flags: Hex, request: StructIn("timespec"),
        remain: StructOut("timespec")) => time::clock_nanosleep, Full),
    row!(305, clock_adjtime(clk_id: Enum("clock"), buf: StructIn("timex")) => time::clock_adjtime, Partial,
        "read-only"),
    row!(222, timer_create(clockid: Enum("clock"), sevp: StructIn("sigevent"), timerid: StructOut("timer"))
        => timer::timer_create, Partial, "CPU clocks are sampled every few milliseconds"),
    row!(223, timer_settime(timerid: Id("timer"), flags: Hex, new_value: StructIn("itimerspec"),
        old_value: StructOut("itimerspec")) => timer::timer_settime, Full),
    row!(224, timer_gettime(timerid: Id("timer"), curr_value: StructOut("itimerspec"))
        => timer::timer_gettime, Full),
    row!(225, timer_getoverrun(timerid: Id("timer")) => timer::timer_getoverrun, Full),
    row!(226, timer_delete(timerid: Id("timer")) => timer::timer_delete, Full),
    row!(283, timerfd_create(clockid: Enum("clock"), flags: Flags("timerfd"))
        => timer::timerfd_create, Full),
    row!(286, timerfd_settime(fd: Fd, flags: Hex, new_value: StructIn("itimerspec"),
        old_value: StructOut("itimerspec")) => timer::timerfd_settime, Full),
    row!(287, timerfd_gettime(fd: Fd, curr_value: StructOut("itimerspec"))
        => timer::timerfd_gettime, Full),
];
