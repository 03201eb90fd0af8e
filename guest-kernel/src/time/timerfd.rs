//! Timer descriptors (timerfd_create(2)).

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use super::{Base, Setting, Target, Timer};
use crate::{
    call::Cx,
    error::{Errno, Stop, SysResult},
    fs::{
        buf::Sink,
        file::{FileOps, OpenFile, Ready},
    },
    kernel::Kernel,
    wait::WaitQueue,
};

/// A timer that reads as a count of expiries.
pub struct TimerFd {
    timer: OnceLock<Arc<Timer>>,
    /// It follows `CLOCK_REALTIME`.
    pub realtime: bool,
    ticks: Mutex<Ticks>,
    queue: Arc<WaitQueue>,
}

/// Expiries nobody has read yet, and the setting they are of.
#[derive(Default)]
struct Ticks {
    count: u64,
    generation: u64,
}

struct Tick(Weak<TimerFd>);

impl Target for Tick {
    fn fire(&self, _timer: &Arc<Timer>, generation: u64) -> bool {
        if let Some(fd) = self.0.upgrade() {
            {
                let mut ticks = fd.ticks();
                if generation < ticks.generation {
                    return false;
                }
                // The first expiry of a setting may come before `set` has returned.
                if ticks.generation < generation {
                    *ticks = Ticks { count: 0, generation };
                }
                ticks.count += 1;
            }
            fd.queue.wake();
        }
        // The next interval is counted when somebody reads.
        false
    }
}

impl TimerFd {
    /// A disarmed one.
    #[must_use]
    pub fn new(kernel: &Kernel, realtime: bool) -> Arc<TimerFd> {
        let fd = Arc::new(TimerFd {
            timer: OnceLock::new(),
            realtime,
            ticks: Mutex::default(),
            queue: WaitQueue::new(),
        });
        let target = Box::new(Tick(Arc::downgrade(&fd)));
        let _ = fd.timer.set(Timer::new(kernel, Base::Monotonic, target));
        fd
    }
    fn ticks(&self) -> MutexGuard<'_, Ticks> {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Arms for `next` (`CLOCK_MONOTONIC`); the old setting.
    pub fn set(&self, next: Option<Duration>, interval: Duration) -> Setting {
        let Some(timer) = self.timer.get() else { return Setting::default() };
        let old = timer.set(next, interval);
        let generation = timer.generation();
        let mut ticks = self.ticks();
        // An expiry of the new setting that was quicker than we are has begun its count already.
        if ticks.generation < generation {
            *ticks = Ticks { count: 0, generation };
        }
        old
    }
    /// Its setting. Expiries so far stay counted.
    #[must_use]
    pub fn get(&self) -> Setting {
        self.timer.get().map_or(Setting::default(), |timer| timer.get())
    }
}

/// TFD_IOC_SET_TICKS.
const SET_TICKS: u32 = 0x4008_5400;

impl FileOps for TimerFd {
    fn moves(&self) -> (bool, bool) {
        (true, false)
    }
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        if dst.left() < 8 {
            return Err(Errno::EINVAL);
        }
        let ticks = std::mem::take(&mut self.ticks().count);
        if ticks == 0 {
            return Err(Errno::EAGAIN);
        }
        let missed = self.timer.get().map_or(0, |timer| timer.forward());
        dst.put(&ticks.saturating_add(missed).to_ne_bytes())
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        if self.ticks().count > 0 { Ready::IN | Ready::RDNORM } else { Ready::empty() }
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.queue.clone())
    }
    fn ioctl(&self, cx: &mut Cx<'_>, _file: &OpenFile, command: u32, arg: u64) -> SysResult {
        if command != SET_TICKS {
            return Err(Stop::Errno(Errno::ENOTTY));
        }
        let ticks: u64 = cx.mm().read_obj(arg)?;
        if ticks == 0 {
            return Err(Stop::Errno(Errno::EINVAL));
        }
        self.ticks().count = ticks;
        self.queue.wake();
        Ok(0)
    }
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        // `noop_llseek()`.
        Ok(0)
    }
    fn positioned(&self) -> bool {
        false
    }
    fn describe(&self) -> String {
        "anon_inode:[timerfd]".to_owned()
    }
    /// Which of the boot-time clocks was asked for, and the flags of the last setting, are not kept.
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let Setting { value, interval } = self.get();
        let time = |t: Duration| format!("({}, {})", t.as_secs(), t.subsec_nanos());
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 00\nit_value: {}\nit_interval: {}\n",
            u8::from(!self.realtime),
            self.ticks().count,
            time(value),
            time(interval)
        )
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
