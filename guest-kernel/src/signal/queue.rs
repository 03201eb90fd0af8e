//! Pending signals: a standard signal at most once, real-time ones in order.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use super::{SigFields, SigInfo, Signal, set::SigSet};

/// First real-time signal as the kernel counts them.
pub const SIGRTMIN: Signal = 32;

/// Hears that a queued signal was taken, and may complete what it says (a timer's overrun).
pub trait Source: Send + Sync {
    /// `info` is about to be delivered. Called with signal locks held: must only look at its own
    /// state. False drops the signal (a deleted timer's).
    fn taken(&self, info: &mut SigInfo) -> bool;
    /// The signal was dropped from its queue. Called like `taken`.
    fn lost(&self) {}
}

/// Queued signals per real user, for RLIMIT_SIGPENDING (setrlimit(2)).
#[derive(Default)]
pub struct Charges {
    users: Mutex<HashMap<u32, u64>>,
}

/// One queued signal's share of its user's limit, given back when dropped.
pub struct Charge {
    charges: Arc<Charges>,
    user: u32,
}

impl Charges {
    /// Takes one unit for `user` unless `limit` are in use.
    #[must_use]
    pub fn take(self: &Arc<Self>, user: u32, limit: u64) -> Option<Charge> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let used = users.entry(user).or_default();
        if *used >= limit {
            return None;
        }
        *used += 1;
        Some(Charge { charges: self.clone(), user })
    }
    /// Units in use by `user` (`/proc/PID/status` SigQ).
    #[must_use]
    pub fn used(&self, user: u32) -> u64 {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(&user).copied().unwrap_or(0)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut users = self.charges.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = users.get_mut(&self.user) {
            *used -= 1;
            if *used == 0 {
                users.remove(&self.user);
            }
        }
    }
}

/// A queued signal.
pub struct Entry {
    /// What it says.
    pub info: SigInfo,
    /// Who wants to hear when it is taken.
    pub source: Option<Arc<dyn Source>>,
    /// Its share of RLIMIT_SIGPENDING.
    pub charge: Option<Charge>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            source.lost();
        }
    }
}

/// A queue of pending signals, a thread's own or a process's.
#[derive(Default)]
pub struct Queue {
    set: SigSet,
    entries: VecDeque<Entry>,
}

impl Queue {
    /// The signals in it.
    #[must_use]
    pub fn set(&self) -> SigSet {
        self.set
    }
    /// Appends.
    pub fn push(&mut self, entry: Entry) {
        self.set.insert(entry.info.signal);
        self.entries.push_back(entry);
    }
    /// Marks `signal` pending without information, when its user's limit is reached (kill(2) never
    /// fails for that): it is delivered as if SI_USER by nobody.
    pub fn mark(&mut self, signal: Signal) {
        self.set.insert(signal);
    }
    /// Removes the next signal that is in `wanted`.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        // A fault's own record (si_code > 0) precedes a synchronous signal that was merely sent.
        let faults = wanted & self.set & SigSet::SYNCHRONOUS;
        if !faults.is_empty() {
            let fault = |e: &Entry| faults.has(e.info.signal) && e.info.code > 0;
            if let Some(index) = self.entries.iter().position(fault)
                && let Some(info) = self.remove(index)
            {
                return Some(info);
            }
        }
        while let Some(signal) = (self.set & wanted).next() {
            match self.entries.iter().position(|e| e.info.signal == signal) {
                Some(index) => {
                    if let Some(info) = self.remove(index) {
                        return Some(info);
                    }
                }
                None => {
                    self.set.remove(signal);
                    let fields = SigFields::Kill { pid: 0, uid: 0 };
                    return Some(SigInfo { signal, code: 0, errno: 0, fields });
                }
            }
        }
        None
    }
    fn remove(&mut self, index: usize) -> Option<SigInfo> {
        let mut entry = self.entries.remove(index)?;
        let signal = entry.info.signal;
        if !self.entries.iter().any(|e| e.info.signal == signal) {
            self.set.remove(signal);
        }
        match entry.source.take() {
            Some(source) => source.taken(&mut entry.info).then_some(entry.info),
            None => Some(entry.info),
        }
    }
    /// Drops every signal in `set`.
    pub fn flush(&mut self, set: SigSet) {
        if (self.set & set).is_empty() {
            return;
        }
        self.entries.retain(|e| !set.has(e.info.signal));
        self.set = self.set - set;
    }
    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(signal: Signal, value: u64) -> Entry {
        let fields = SigFields::Queue { pid: 1, uid: 0, value };
        Entry { info: SigInfo { signal, code: -1, errno: 0, fields }, source: None, charge: None }
    }

    #[test]
    fn real_time_signals_keep_their_order() {
        let mut queue = Queue::default();
        for (signal, value) in [(40, 1), (35, 2), (40, 3), (10, 4)] {
            queue.push(entry(signal, value));
        }
        let taken: Vec<_> = std::iter::from_fn(|| queue.take(SigSet::ALL)).collect();
        let values: Vec<_> = taken
            .iter()
            .map(|i| match i.fields {
                SigFields::Queue { value, .. } => (i.signal, value),
                _ => (0, 0),
            })
            .collect();
        assert_eq!(values, [(10, 4), (35, 2), (40, 1), (40, 3)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn only_wanted_signals_are_taken() {
        let mut queue = Queue::default();
        queue.push(entry(10, 1));
        queue.mark(12);
        assert!(queue.take(SigSet::one(11)).is_none());
        assert_eq!(queue.take(SigSet::one(12)).map(|i| i.code), Some(0));
        queue.flush(SigSet::one(10));
        assert!(queue.is_empty());
    }

    #[test]
    fn charges_are_given_back() {
        let charges = Arc::new(Charges::default());
        let first = charges.take(7, 1);
        assert!(first.is_some() && charges.take(7, 1).is_none());
        drop(first);
        assert_eq!(charges.used(7), 0);
    }
}
