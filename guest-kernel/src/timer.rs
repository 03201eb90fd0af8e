//! Kernel timers: one host thread that calls targets when their time comes.
//!
//! Everything that expires without a task waiting for it (itimers, POSIX timers, timerfd, alarm)
//! is armed here; a task's own deadline is its park time-out instead. In virtual time there is no such
//! thread: whoever moves the clock calls them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use crate::{
    host::Host,
    time::virtual_time::VirtualTime,
    wait::{Parker, Wake},
};

/// Called on the timer thread, or in virtual time on any, with no kernel lock held; must not block for long.
pub trait Expire: Send + Sync {
    /// The deadline has passed. `now` is `CLOCK_MONOTONIC`.
    fn expire(&self, now: Duration);
}

/// Names an armed timer.
pub type TimerKey = (Duration, u64);

#[derive(Default)]
struct State {
    armed: BTreeMap<TimerKey, Weak<dyn Expire>>,
    /// Those for whose sake virtual time does not jump.
    patient: BTreeMap<TimerKey, Weak<dyn Expire>>,
    sequence: u64,
    running: bool,
    closed: bool,
}

/// The timer queue.
pub struct Timers {
    host: Arc<dyn Host>,
    state: Mutex<State>,
    parker: Arc<Parker>,
    virtual_time: Option<Arc<VirtualTime>>,
}

/// Those of `armed` whose time has come.
fn take_due(
    armed: &mut BTreeMap<TimerKey, Weak<dyn Expire>>,
    now: Duration,
) -> BTreeMap<TimerKey, Weak<dyn Expire>> {
    let later = armed.split_off(&(now, u64::MAX));
    std::mem::replace(armed, later)
}

impl Timers {
    /// An empty queue; its thread starts with the first timer.
    #[must_use]
    pub fn new(host: Arc<dyn Host>) -> Arc<Timers> {
        let virtual_time = host.virtual_time();
        let (state, parker) = (Mutex::default(), Parker::new());
        let timers = Arc::new(Timers { host, state, parker, virtual_time });
        if let Some(time) = &timers.virtual_time {
            time.drive(Arc::downgrade(&timers));
        }
        timers
    }
    /// Its clock moves by what the guest does alone.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.virtual_time.is_some()
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
        if self.is_virtual() {
            if !state.closed {
                state.armed.insert(key, target);
            }
            return key;
        }
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
    /// The same for a target that wants to look again if anything has been done by `deadline`: virtual
    /// time does not jump there while everybody waits.
    pub fn arm_patiently(
        self: &Arc<Self>,
        deadline: Duration,
        target: Weak<dyn Expire>,
    ) -> TimerKey {
        let key = self.arm(deadline, target);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_virtual()
            && let Some(target) = state.armed.remove(&key)
        {
            state.patient.insert(key, target);
        }
        key
    }
    /// Disarms; harmless if it has expired.
    pub fn cancel(&self, key: TimerKey) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.armed.remove(&key).is_none() {
            state.patient.remove(&key);
        }
    }
    /// When the first expires to which virtual time jumps.
    pub(crate) fn next(&self) -> Option<Duration> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.armed.first_key_value().map(|(key, _)| key.0)
    }
    /// Calls what is due at `now`, the patient as well if somebody runs.
    pub(crate) fn expire(&self, now: Duration, busy: bool) {
        let due = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut due = take_due(&mut state.armed, now);
            if busy {
                due.append(&mut take_due(&mut state.patient, now));
            }
            due
        };
        for target in due.into_values().filter_map(|target| target.upgrade()) {
            target.expire(now);
        }
    }
    /// Ends the thread and refuses further timers.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        state.armed.clear();
        state.patient.clear();
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
                let due = take_due(&mut state.armed, now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{testing, wait::Parker};

    const SECOND: Duration = Duration::from_secs(1);

    /// Keeps when it expired.
    struct Note(&'static str, Arc<Mutex<Vec<(&'static str, Duration)>>>);

    impl Expire for Note {
        fn expire(&self, now: Duration) {
            self.1.lock().unwrap().push((self.0, now));
        }
    }

    #[test]
    fn in_virtual_time_whoever_moves_the_clock_calls_them() {
        let time = VirtualTime::new();
        let timers = Timers::new(testing::host_in(&time));
        let noted = Arc::default();
        let [soon, once, never, patient] = ["soon", "once", "never", "patient"]
            .map(|name| -> Arc<dyn Expire> { Arc::new(Note(name, Arc::clone(&noted))) });
        let start = timers.now();
        let at = |seconds| start + SECOND * seconds;
        timers.arm(start + Duration::from_nanos(1500), Arc::downgrade(&soon));
        timers.arm(at(7), Arc::downgrade(&once));
        let key = timers.arm(at(8), Arc::downgrade(&never));
        timers.arm_patiently(at(5), Arc::downgrade(&patient));
        timers.arm_patiently(at(100), Arc::downgrade(&patient));
        let seen = || std::mem::take(&mut *noted.lock().unwrap());

        // A task's calls: its second passes the first timer.
        time.begin();
        time.step();
        assert_eq!(seen(), []);
        time.step();
        assert_eq!(seen(), [("soon", start + Duration::from_micros(2))]);
        // It sleeps: time jumps to the next but for the patient, which is told when somebody runs again.
        timers.cancel(key);
        Parker::counted(time.clone()).park(Some(SECOND * 9));
        assert_eq!(seen(), [("once", at(7))]);
        time.step();
        assert_eq!(seen().first().map(|note| note.0), Some("patient"));
        // Nobody runs: there is nothing to jump to.
        let end = timers.now();
        time.end();
        assert_eq!(timers.now(), end);
        timers.close();
    }
}
