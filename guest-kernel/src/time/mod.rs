//! Clocks and timers beyond a task's own sleep: what timers count on, and the one kind of timer that
//! itimers, POSIX timers, timerfd and CPU limits are made of.
//!
//! Real-time clocks cannot be set here, so every instant is kept as `CLOCK_MONOTONIC`. CPU clocks
//! cannot interrupt: a timer on one looks again when it could have expired at the earliest.

pub mod itimer;
pub mod posix;
pub mod timerfd;
pub mod virtual_time;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use crate::{
    kernel::Kernel,
    task::{Task, process::Process},
    timer::{Expire, TimerKey, Timers},
};

/// Which part of a CPU time is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuKind {
    /// User and system.
    Total,
    /// User only.
    User,
}

/// A clock that timers count on.
#[derive(Clone)]
pub enum Base {
    /// `CLOCK_MONOTONIC`, and all real-time clocks once converted.
    Monotonic,
    /// CPU time of a process.
    Process(Weak<Process>, CpuKind),
    /// CPU time of a thread.
    Thread(Weak<Task>, CpuKind),
}

fn part((user, system): (Duration, Duration), kind: CpuKind) -> Duration {
    match kind {
        CpuKind::Total => user + system,
        CpuKind::User => user,
    }
}

/// CPU time of `process`, of which `current` is the calling thread if it is one of its own.
#[must_use]
pub fn process_cpu(process: &Process, kind: CpuKind, current: Option<&Task>) -> Duration {
    if let Some(task) = current {
        task.update_usage();
    }
    part(process.cpu_time(), kind)
}

/// CPU time of a thread; exact if it is the calling one.
#[must_use]
pub fn thread_cpu(task: &Task, kind: CpuKind, is_current: bool) -> Duration {
    if is_current {
        task.update_usage();
    }
    let usage = task.usage();
    part((usage.user, usage.system), kind)
}

impl Base {
    /// Now, on this clock.
    fn now(&self, timers: &Timers) -> Duration {
        match self {
            Base::Monotonic => timers.now(),
            Base::Process(process, kind) => {
                process.upgrade().map_or(Duration::ZERO, |p| process_cpu(&p, *kind, None))
            }
            Base::Thread(task, kind) => {
                task.upgrade().map_or(Duration::ZERO, |t| thread_cpu(&t, *kind, false))
            }
        }
    }
    /// Makes running threads publish their CPU time, which the next look then sees.
    fn sample(&self) {
        match self {
            Base::Monotonic => {}
            Base::Process(process, _) => {
                if let Some(process) = process.upgrade() {
                    process.tasks().iter().for_each(|task| task.notify());
                }
            }
            Base::Thread(task, _) => {
                if let Some(task) = task.upgrade() {
                    task.notify();
                }
            }
        }
    }
}

/// What a timer does when it expires. Called as [`Expire::expire`] is, with no lock held.
pub trait Target: Send + Sync {
    /// The timer expired under the setting of this generation; true to count the next interval at once, false if the target will call
    /// [`Timer::forward`].
    fn fire(&self, timer: &Arc<Timer>, generation: u64) -> bool;
}

#[derive(Default)]
struct State {
    /// On the base clock.
    next: Option<Duration>,
    interval: Duration,
    /// The last expiry, while the next interval is not yet counted.
    last: Option<Duration>,
    key: Option<TimerKey>,
    /// Counts settings.
    generation: u64,
}

/// What is left until a timer's expiry, and its interval; both zero when it is disarmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// Time until the next expiry.
    pub value: Duration,
    /// Period; zero for a single expiry.
    pub interval: Duration,
}

/// A timer.
pub struct Timer {
    me: Weak<Timer>,
    timers: Arc<Timers>,
    base: Base,
    target: Box<dyn Target>,
    state: Mutex<State>,
}

/// How often a timer on a CPU clock looks at the least.
const CPU_TICK: Duration = Duration::from_millis(4);
/// Bounds the load that a timer whose target re-arms at once can cause.
const SHORTEST: Duration = Duration::from_micros(50);

impl Timer {
    /// A disarmed timer.
    #[must_use]
    pub fn new(kernel: &Kernel, base: Base, target: Box<dyn Target>) -> Arc<Timer> {
        let timers = kernel.timers.clone();
        Arc::new_cyclic(|me| Timer {
            me: me.clone(),
            timers,
            base,
            target,
            state: Mutex::default(),
        })
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Its clock, now.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.base.now(&self.timers)
    }
    /// Counts settings; a target may tell an expiry of an earlier one.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.state().generation
    }
    fn arm(&self, state: &mut State) {
        if let Some(key) = state.key.take() {
            self.timers.cancel(key);
        }
        let Some(next) = state.next else { return };
        let target: Weak<dyn Expire> = self.me.clone();
        let timers = &self.timers;
        let left = next.saturating_sub(self.now());
        state.key = Some(match self.base {
            Base::Monotonic => timers.arm(next, target),
            // CPU time is then what calls take, and never more than passes; those who wait have none.
            _ if timers.is_virtual() => {
                timers.arm_patiently(timers.now().saturating_add(left), target)
            }
            _ => {
                let look = (left / 4).max(CPU_TICK).min(Duration::from_secs(1));
                timers.arm(timers.now().saturating_add(look), target)
            }
        });
    }
    /// Expires at `next` (on its clock) and every `interval` after; `None` disarms. The setting it
    /// replaces.
    pub fn set(&self, next: Option<Duration>, interval: Duration) -> Setting {
        let now = self.now();
        let mut state = self.state();
        let old = Self::setting(&state, now);
        state.generation += 1;
        state.next = next;
        state.interval = if next.is_some() { interval } else { Duration::ZERO };
        state.last = None;
        self.arm(&mut state);
        old
    }
    /// What is set now.
    #[must_use]
    pub fn get(&self) -> Setting {
        let now = self.now();
        Self::setting(&self.state(), now)
    }
    fn setting(state: &State, now: Duration) -> Setting {
        let value = match (state.next, state.last) {
            (Some(next), _) => next.saturating_sub(now).max(Duration::from_nanos(1)),
            (None, Some(last)) if !state.interval.is_zero() => {
                let late = remainder(now.saturating_sub(last), state.interval);
                state.interval - late
            }
            _ => Duration::ZERO,
        };
        Setting { value, interval: state.interval }
    }
    /// Counts the interval in which now lies and arms for its end; how many intervals went by since
    /// the last expiry. Does nothing unless an expiry waits for this.
    pub fn forward(&self) -> u64 {
        let now = self.now();
        let mut state = self.state();
        let Some(last) = state.last.take() else { return 0 };
        if state.interval.is_zero() {
            return 0;
        }
        let (missed, next) = next_expiry(last, state.interval, now);
        state.next = Some(next);
        self.arm(&mut state);
        missed
    }
    /// Intervals that went by since the last expiry, which still waits for [`Timer::forward`].
    #[must_use]
    pub fn missed(&self) -> u64 {
        let now = self.now();
        let state = self.state();
        match state.last {
            Some(last) if !state.interval.is_zero() => next_expiry(last, state.interval, now).0,
            _ => 0,
        }
    }
}

fn remainder(time: Duration, interval: Duration) -> Duration {
    let nanos = time.as_nanos() % interval.as_nanos().max(1);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// Whole intervals between `last` and `now`, and the first expiry after `now`.
fn next_expiry(last: Duration, interval: Duration, now: Duration) -> (u64, Duration) {
    let late = now.saturating_sub(last);
    let missed = u64::try_from(late.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u64::MAX);
    let into = remainder(late, interval);
    (missed, now.max(last).saturating_sub(into).saturating_add(interval))
}

impl Expire for Timer {
    fn expire(&self, _now: Duration) {
        let now = self.now();
        let generation = {
            let mut state = self.state();
            state.key = None;
            let Some(next) = state.next else { return };
            if now < next {
                self.arm(&mut state);
                drop(state);
                // In virtual time every call publishes it.
                if !self.timers.is_virtual() {
                    self.base.sample();
                }
                return;
            }
            state.next = None;
            state.last = Some(next);
            state.generation
        };
        let Some(me) = self.me.upgrade() else { return };
        if self.target.fire(&me, generation) {
            self.forward();
            let mut state = self.state();
            let soonest = now.saturating_add(SHORTEST);
            if state.next.is_some_and(|next| next < soonest) {
                state.next = Some(soonest);
                self.arm(&mut state);
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = state.key.take() {
            self.timers.cancel(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_stay_on_their_grid() {
        let ms = Duration::from_millis;
        assert_eq!(next_expiry(ms(100), ms(10), ms(100)), (0, ms(110)));
        assert_eq!(next_expiry(ms(100), ms(10), ms(135)), (3, ms(140)));
        assert_eq!(next_expiry(ms(100), ms(10), ms(140)), (4, ms(150)));
        assert_eq!(next_expiry(ms(100), ms(10), ms(90)), (0, ms(110)));
    }
}
