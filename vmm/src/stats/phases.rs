//! How long the parts of a run took.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use trapgate_kernel::host::Host;

/// One part of a run.
#[derive(Clone, Serialize)]
pub struct Phase {
    /// Its key.
    pub name: &'static str,
    /// How long it took.
    pub microseconds: u64,
}

/// The parts of a run, one after the other without gaps.
pub struct Phases {
    clock: Arc<dyn Host>,
    first: Duration,
    last: Duration,
    done: Vec<Phase>,
}

impl Phases {
    /// The first phase begins.
    #[must_use]
    pub fn begin(clock: Arc<dyn Host>) -> Phases {
        let first = clock.monotonic();
        Phases { clock, first, last: first, done: Vec::new() }
    }
    /// The current phase, which turns out to have been `name`, ends; the next begins.
    pub fn end(&mut self, name: &'static str) {
        self.end_at(name, self.clock.monotonic());
    }
    /// The same, at a moment that another thread took.
    pub fn end_at(&mut self, name: &'static str, now: Duration) {
        let now = now.max(self.last);
        let microseconds = u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX);
        self.done.push(Phase { name, microseconds });
        self.last = now;
    }
    /// All of them so far.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.last - self.first
    }
    /// Those that have ended.
    #[must_use]
    pub fn done(&self) -> &[Phase] {
        &self.done
    }
}
