//! Kernel timers: one host thread that calls targets when their time comes.
//!
//! Everything that expires without a task waiting for it (itimers, POSIX timers, timerfd, alarm)
//! is armed here; a task's own deadline is its park time-out instead.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use crate::{
    host::Host,
    wait::{Parker, Wake},
};

/// Called on the timer thread, with no kernel lock held; must not block for long.
pub trait Expire: Send + Sync {
    /// The deadline has passed. `now` is `CLOCK_MONOTONIC`.
    fn expire(&self, now: Duration);
}

/// Names an armed timer.
pub type TimerKey = (Duration, u64);

#[derive(Default)]
struct State {
    armed: BTreeMap<TimerKey, Weak<dyn Expire>>,
    sequence: u64,
    running: bool,
    closed: bool,
}

/// The timer queue.
pub struct Timers {
    host: Arc<dyn Host>,
    state: Mutex<State>,
    parker: Arc<Parker>,
}

impl Timers {
    /// An empty queue; its thread starts with the first timer.
    #[must_use]
    pub fn new(host: Arc<dyn Host>) -> Arc<Timers> {
        Arc::new(Timers { host, state: Mutex::default(), parker: Parker::new() })
    }
    /// `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.host.monotonic()
    }
    /// Calls `target` once at `deadline` (`CLOCK_MONOTONIC`) unless cancelled or dropped first.
    pub fn arm(self: &Arc<Self>, deadline: Duration, target: Weak<dyn Expire>) -> TimerKey {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sequence += 1;
        let key = (deadline, state.sequence);
        let first = state.armed.first_key_value().is_none_or(|(k, _)| key < *k);
        state.armed.insert(key, target);
        if !state.running && !state.closed {
            let timers = self.clone();
            let body = Box::new(move || timers.run());
            state.running = self.host.spawn("timers", body).is_ok();
        } else if first {
            self.parker.wake();
        }
        key
    }
    /// Disarms; harmless if it has expired.
    pub fn cancel(&self, key: TimerKey) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).armed.remove(&key);
    }
    /// Ends the thread and refuses further timers.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        state.armed.clear();
        drop(state);
        self.parker.wake();
    }
    fn run(&self) {
        loop {
            let now = self.host.monotonic();
            let (due, next) = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    state.running = false;
                    return;
                }
                let later = state.armed.split_off(&(now, u64::MAX));
                let due = std::mem::replace(&mut state.armed, later);
                (due, state.armed.first_key_value().map(|(k, _)| k.0))
            };
            for target in due.into_values() {
                if let Some(target) = target.upgrade() {
                    target.expire(now);
                }
            }
            let now = self.host.monotonic();
            self.parker.park(next.map(|at| at.saturating_sub(now)));
        }
    }
}
