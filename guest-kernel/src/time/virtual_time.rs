//! Virtual time (`--virtual-time`): clocks that only the guest's own doings move.
//!
//! They begin at fixed moments. Each system call moves them on by [`STEP`], so that a loop which polls a
//! clock ends; when everybody waits they jump to the earliest time limit or timer.
//!
//! Who runs is counted here. A task counts from before its thread is started until after its last act
//! ([`VirtualTime::begin`], [`VirtualTime::end`]), except while it sleeps in its [`Parker`]. The waker
//! counts it again, before it can sleep itself, so a task that was woken and has not run yet is never
//! taken for one that waits. Whoever brings the count to zero jumps, and counts as running meanwhile.
//!
//! There is no timer thread: timers expire on the thread that moved the clock, in its system call or its
//! sleep, so that a program of one thread meets a signal at the same call in every run.
//!
//! Locks: a parker's, then this one's, then that of the timers. None is held while somebody is woken.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    timer::Timers,
    wait::{Parker, Wake},
};

/// How far a system call moves the clocks.
pub const STEP: Duration = Duration::from_micros(1);
/// `CLOCK_MONOTONIC` at the beginning; not zero, which some programs take for "not yet".
const MONOTONIC: Duration = Duration::from_secs(1);
/// `CLOCK_REALTIME` at the beginning: 2024-01-01T00:00:00Z.
pub const REALTIME: Duration = Duration::from_secs(1_704_067_200);

/// What lies beyond this (some 285 years) never comes: a sleep so long is one for ever.
const END: Duration = Duration::from_secs(9_000_000_000);

/// Names a sleeper; the number keeps those of one moment in order.
pub type Sleep = (Duration, u64);

#[derive(Default)]
struct State {
    running: usize,
    /// By time limit; [`Duration::MAX`] is none.
    asleep: BTreeMap<Sleep, Arc<Parker>>,
    sleeps: u64,
}

impl State {
    /// Those whose limit has come; they run from now on.
    fn take_due(&mut self, now: Duration) -> BTreeMap<Sleep, Arc<Parker>> {
        if self.asleep.first_key_value().is_none_or(|((limit, _), _)| *limit > now) {
            return BTreeMap::new();
        }
        let later = self.asleep.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.asleep, later);
        self.running += due.len();
        due
    }
}

/// The clocks of a VM with virtual time, and who keeps them from jumping.
#[derive(Default)]
pub struct VirtualTime {
    /// Nanoseconds since the beginning.
    passed: AtomicU64,
    state: Mutex<State>,
    timers: OnceLock<Weak<Timers>>,
}

impl VirtualTime {
    /// At the beginning of time.
    #[must_use]
    pub fn new() -> Arc<VirtualTime> {
        Arc::default()
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::Relaxed))
    }
    /// `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        MONOTONIC + self.passed()
    }
    /// `CLOCK_REALTIME`.
    #[must_use]
    pub fn realtime(&self) -> Duration {
        REALTIME + self.passed()
    }
    /// These expire by it.
    pub(crate) fn drive(&self, timers: Weak<Timers>) {
        // A clock belongs to one kernel.
        let _ = self.timers.set(timers);
    }
    fn timers(&self) -> Option<Arc<Timers>> {
        self.timers.get().and_then(Weak::upgrade)
    }
    /// One more runs: called before its thread is started.
    pub(crate) fn begin(&self) {
        self.state().running += 1;
    }
    /// One fewer, for ever.
    pub(crate) fn end(&self) {
        self.state().running -= 1;
        self.settle();
    }
    /// A system call begins: the clocks go on, and what is due by then happens here and now. No lock of
    /// the kernel may be held.
    pub(crate) fn step(&self) {
        let step = u64::try_from(STEP.as_nanos()).unwrap_or_default();
        self.passed.fetch_add(step, Ordering::Relaxed);
        let now = self.monotonic();
        let due = self.state().take_due(now);
        if let Some(timers) = self.timers() {
            timers.expire(now, true);
        }
        due.into_values().for_each(|parker| parker.wake());
    }
    /// `parker`'s owner, which runs, sleeps until `timeout` from now; `None` if that is over. The parker's
    /// lock is held; without it [`VirtualTime::settle`] is to be called next.
    pub(crate) fn sleep(&self, parker: Arc<Parker>, timeout: Option<Duration>) -> Option<Sleep> {
        let limit = timeout.map_or(Duration::MAX, |t| self.monotonic().saturating_add(t));
        let mut state = self.state();
        // A step after this look finds the sleeper.
        if limit <= self.monotonic() {
            return None;
        }
        state.sleeps += 1;
        let sleep = (limit, state.sleeps);
        state.asleep.insert(sleep, parker);
        state.running -= 1;
        Some(sleep)
    }
    /// Somebody wakes the owner of this sleep: it runs from now on, unless it does already.
    pub(crate) fn rouse(&self, sleep: Sleep) {
        let mut state = self.state();
        if state.asleep.remove(&sleep).is_some() {
            state.running += 1;
        }
    }
    /// If everybody waits, jumps to what comes first, until somebody runs or nothing is to come.
    pub(crate) fn settle(&self) {
        loop {
            let (now, due, timers) = {
                let mut state = self.state();
                if state.running > 0 {
                    return;
                }
                let timers = self.timers();
                let limit = state.asleep.first_key_value().map(|((limit, _), _)| *limit);
                let timer = timers.as_ref().and_then(|timers| timers.next());
                let next = limit.into_iter().chain(timer).min().filter(|next| *next < END);
                let Some(next) = next else { return };
                let passed = next.saturating_sub(MONOTONIC).as_nanos();
                self.passed.fetch_max(u64::try_from(passed).unwrap_or_default(), Ordering::Relaxed);
                let due = state.take_due(next);
                state.running += 1;
                (next, due, timers)
            };
            if let Some(timers) = timers {
                timers.expire(now, false);
            }
            due.into_values().for_each(|parker| parker.wake());
            self.state().running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{atomic::AtomicUsize, mpsc::channel},
        thread,
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs `body` as a task of `time`.
    fn task(
        time: &Arc<VirtualTime>,
        body: impl FnOnce(&Arc<Parker>) + Send + 'static,
    ) -> (Arc<Parker>, thread::JoinHandle<()>) {
        time.begin();
        let (parker, time) = (Parker::counted(time.clone()), time.clone());
        let own = parker.clone();
        let thread = thread::spawn(move || {
            body(&own);
            time.end();
        });
        (parker, thread)
    }

    #[test]
    fn a_call_takes_a_step() {
        let time = VirtualTime::new();
        assert_eq!((time.monotonic(), time.realtime()), (MONOTONIC, REALTIME));
        time.step();
        time.step();
        assert_eq!(time.monotonic(), MONOTONIC + STEP * 2);
        assert_eq!(time.realtime(), REALTIME + STEP * 2);
    }

    #[test]
    fn a_lone_sleeper_sleeps_as_long_as_it_says() {
        let time = VirtualTime::new();
        let (_, thread) = task(&time, |parker| {
            assert!(parker.park(Some(1000 * SECOND)));
            assert!(parker.park(Some(SECOND)));
        });
        thread.join().unwrap();
        assert_eq!(time.monotonic(), MONOTONIC + 1001 * SECOND);
    }

    #[test]
    fn a_step_wakes_whom_it_reaches() {
        let time = VirtualTime::new();
        let (done, gone) = channel();
        let (_, sleeper) = task(&time, move |parker| {
            parker.park(Some(STEP * 3));
            done.send(()).unwrap();
        });
        let stepping = time.clone();
        let (_, runner) = task(&time, move |_| {
            // It runs, so only its steps move the clock.
            while gone.try_recv().is_err() {
                stepping.step();
                thread::yield_now();
            }
        });
        sleeper.join().unwrap();
        runner.join().unwrap();
        assert!(time.monotonic() < MONOTONIC + SECOND);
    }

    /// Two wake each other in turn: the clock never jumps to their limits, for one of them always runs or
    /// has been woken.
    #[test]
    fn the_woken_run() {
        const TURNS: usize = 20_000;
        let time = VirtualTime::new();
        let turn = Arc::new(AtomicUsize::new(0));
        let parkers = [Parker::counted(time.clone()), Parker::counted(time.clone())];
        // Both before either is started: the first alone would be everybody.
        time.begin();
        time.begin();
        let threads: Vec<_> = (0..2)
            .map(|me| {
                let (time, turn, parkers) = (time.clone(), turn.clone(), parkers.clone());
                thread::spawn(move || {
                    loop {
                        let at = turn.load(Ordering::SeqCst);
                        if at >= TURNS {
                            break;
                        }
                        if at % 2 == me {
                            turn.store(at + 1, Ordering::SeqCst);
                            parkers[1 - me].wake();
                        } else {
                            parkers[me].park(Some(SECOND));
                        }
                    }
                    time.end();
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(time.monotonic(), MONOTONIC);
    }

    #[test]
    fn nobody_jumps_for_those_who_wait_for_ever() {
        let time = VirtualTime::new();
        let (parker, thread) = task(&time, |parker| assert!(parker.park(None)));
        while !parker.is_sleeping() {
            thread::yield_now();
        }
        assert_eq!(time.monotonic(), MONOTONIC);
        parker.wake();
        thread.join().unwrap();
        assert_eq!(time.monotonic(), MONOTONIC);
    }
}
