//! Counters behind `--stats`.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::table::NUMBERS;
use crate::{mm::rewrite::Refusal, num::Word, platform::Exit};

/// One call's counters.
#[derive(Default)]
pub struct CallStat {
    /// Calls made.
    pub calls: AtomicU64,
    /// Calls that returned an errno.
    pub errors: AtomicU64,
    /// Nanoseconds in handlers, waits excluded.
    pub nanos: AtomicU64,
}

/// The VM's counters.
pub struct Stats {
    calls: Vec<CallStat>,
    /// Calls with no row at all.
    pub unknown: AtomicU64,
    /// Exits for a system call.
    pub call_exits: AtomicU64,
    /// Exits by exception vector.
    pub faults: [AtomicU64; 256],
    /// Exits for no reason of the guest's: kicks, and calls answered while their gate left.
    pub interrupted: AtomicU64,
    /// Calls that servers answered and that came from rewritten sites.
    pub jumped: AtomicU64,
    /// When the first task was about to enter the guest, by the host's monotonic clock.
    pub first_entry: OnceLock<Duration>,
    /// Page faults that copied a frame, or took it over from the last other user.
    pub cow: AtomicU64,
    /// Signals delivered to handlers.
    pub signals: AtomicU64,
    /// Call sites rewritten.
    pub rewritten: AtomicU64,
    /// Call sites that were to be rewritten and were not, in the order of [`Refusal::ALL`].
    pub refused: [AtomicU64; Refusal::ALL.len()],
}

impl Default for Stats {
    fn default() -> Stats {
        let mut calls = Vec::new();
        calls.resize_with(NUMBERS, CallStat::default);
        Stats {
            calls,
            unknown: AtomicU64::new(0),
            call_exits: AtomicU64::new(0),
            faults: [const { AtomicU64::new(0) }; 256],
            interrupted: AtomicU64::new(0),
            jumped: AtomicU64::new(0),
            first_entry: OnceLock::new(),
            cow: AtomicU64::new(0),
            signals: AtomicU64::new(0),
            rewritten: AtomicU64::new(0),
            refused: Default::default(),
        }
    }
}

impl Stats {
    /// Whether the next call `number` should be timed, and how many it then stands for: looking at the clock
    /// twice costs as much as the cheapest calls. Of the first 64 each is timed, then one in 16.
    #[must_use]
    pub fn timing(&self, number: u64) -> Option<u32> {
        const ALL: u64 = 64;
        const ONE_IN: u32 = 16;
        let calls = self.calls.get(number.size())?.calls.load(Ordering::Relaxed);
        match calls {
            ..ALL => Some(1),
            _ if calls.is_multiple_of(u64::from(ONE_IN)) => Some(ONE_IN),
            _ => None,
        }
    }
    /// Counts one finished call.
    pub fn count(&self, number: u64, error: bool, spent: Duration) {
        let Some(stat) = self.calls.get(number.size()) else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        };
        stat.calls.fetch_add(1, Ordering::Relaxed);
        if error {
            stat.errors.fetch_add(1, Ordering::Relaxed);
        }
        if !spent.is_zero() {
            let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
            stat.nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }
    /// Counts a return from guest code.
    pub fn count_exit(&self, exit: Exit) {
        let counter = match exit {
            Exit::Syscall => &self.call_exits,
            Exit::Fault(fault) => &self.faults[usize::from(fault.vector)],
            Exit::Interrupted => &self.interrupted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts a site that was rewritten, or why it was not.
    pub fn count_site(&self, refused: Option<Refusal>) {
        let index = refused.and_then(|why| Refusal::ALL.iter().position(|r| *r == why));
        index.map_or(&self.rewritten, |i| &self.refused[i]).fetch_add(1, Ordering::Relaxed);
    }
    /// Counters by call number.
    pub fn calls(&self) -> impl Iterator<Item = (u64, &CallStat)> {
        (0u64..).zip(self.calls.iter())
    }
}
