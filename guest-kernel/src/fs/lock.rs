//! File locks: flock(2), fcntl(2) record locks and open-file-description locks, per inode.
//!
//! All three kinds are ranges with an owner; flock locks cover the whole file and live in a list of
//! their own, so that the kinds do not see each other. A waiter is retried whenever a lock goes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::wait::WaitQueue;

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A descriptor table (F_SETLK): its address, and the process id that F_GETLK reports.
    Table(usize, i32),
    /// An open file description (flock, F_OFD_SETLK): its address.
    File(usize),
}

impl Owner {
    fn same(self, other: Owner) -> bool {
        match (self, other) {
            (Owner::Table(a, _), Owner::Table(b, _)) | (Owner::File(a), Owner::File(b)) => a == b,
            _ => false,
        }
    }
}

/// A lock on `[start, end)`; `end` is `u64::MAX` for the rest of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    /// Who holds it.
    pub owner: Owner,
    /// Exclusive, else shared.
    pub write: bool,
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Lock {
    fn overlaps(&self, other: &Lock) -> bool {
        self.start < other.end && other.start < self.end
    }
    fn conflicts(&self, other: &Lock) -> bool {
        !self.owner.same(other.owner) && (self.write || other.write) && self.overlaps(other)
    }
}

#[derive(Default)]
struct State {
    records: Vec<Lock>,
    whole: Vec<Lock>,
}

/// The locks of one inode.
#[derive(Default)]
pub struct LockList {
    state: Mutex<State>,
    queue: Mutex<Option<Arc<WaitQueue>>>,
}

impl LockList {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Woken when a lock goes.
    #[must_use]
    pub fn queue(&self) -> Arc<WaitQueue> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.get_or_insert_with(WaitQueue::new).clone()
    }
    fn wake(&self) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(queue) = queue {
            queue.wake();
        }
    }
    /// A record lock that keeps `wanted` from being set (F_GETLK).
    #[must_use]
    pub fn conflict(&self, wanted: &Lock) -> Option<Lock> {
        self.state().records.iter().find(|l| l.conflicts(wanted)).copied()
    }
    /// Sets a record lock, replacing what its owner held there; the lock in the way if there is one.
    ///
    /// # Errors
    /// The conflicting lock.
    pub fn set(&self, wanted: Lock) -> Result<(), Lock> {
        let mut state = self.state();
        if let Some(held) = state.records.iter().find(|l| l.conflicts(&wanted)) {
            return Err(*held);
        }
        let shrunk = cut(&mut state.records, &wanted);
        // Adjacent locks of one kind and owner become one, as /proc/locks shows them.
        let mut wanted = wanted;
        state.records.retain(|l| {
            let joins = l.owner.same(wanted.owner)
                && l.write == wanted.write
                && (l.end == wanted.start || l.start == wanted.end);
            if joins {
                wanted.start = wanted.start.min(l.start);
                wanted.end = wanted.end.max(l.end);
            }
            !joins
        });
        state.records.push(wanted);
        drop(state);
        if shrunk {
            self.wake();
        }
        Ok(())
    }
    /// Drops what `range.owner` holds of a range.
    pub fn unset(&self, range: &Lock) {
        let cut = cut(&mut self.state().records, range);
        if cut {
            self.wake();
        }
    }
    /// Sets, converts or (`None`) drops a flock(2) lock; false if another is in the way. A failed
    /// conversion has dropped the old lock, as flock(2) says.
    pub fn flock(&self, owner: Owner, write: Option<bool>) -> bool {
        let mut state = self.state();
        let before = state.whole.len();
        let held = state.whole.iter().find(|l| l.owner.same(owner)).map(|l| l.write);
        if held.is_some() && held == write {
            return true;
        }
        state.whole.retain(|l| !l.owner.same(owner));
        let gone = state.whole.len() < before;
        let granted = match write {
            None => true,
            Some(write) => {
                let wanted = Lock { owner, write, start: 0, end: u64::MAX };
                let free = !state.whole.iter().any(|l| l.conflicts(&wanted));
                if free {
                    state.whole.push(wanted);
                }
                free
            }
        };
        drop(state);
        if gone {
            self.wake();
        }
        granted
    }
    /// Drops every lock of `owner`: all record locks when a process closes any descriptor of the
    /// file, all locks of an open file description when it ends.
    pub fn release(&self, owner: Owner) {
        let mut state = self.state();
        let before = state.records.len() + state.whole.len();
        state.records.retain(|l| !l.owner.same(owner));
        state.whole.retain(|l| !l.owner.same(owner));
        let gone = state.records.len() + state.whole.len() < before;
        drop(state);
        if gone {
            self.wake();
        }
    }
    /// All locks, flock's first (`/proc/locks`).
    #[must_use]
    pub fn list(&self) -> (Vec<Lock>, Vec<Lock>) {
        let state = self.state();
        (state.whole.clone(), state.records.clone())
    }
}

/// Cuts `range` out of its owner's locks; true if anything was held there.
fn cut(locks: &mut Vec<Lock>, range: &Lock) -> bool {
    let mut pieces = Vec::new();
    let before = locks.len();
    locks.retain(|l| {
        if !l.owner.same(range.owner) || !l.overlaps(range) {
            return true;
        }
        if l.start < range.start {
            pieces.push(Lock { end: range.start, ..*l });
        }
        if l.end > range.end {
            pieces.push(Lock { start: range.end, ..*l });
        }
        false
    });
    let cut = locks.len() < before;
    locks.extend(pieces);
    cut
}

/// Who waits for whom, to refuse a wait that would never end (EDEADLK).
#[derive(Default)]
pub struct Waits {
    edges: Mutex<Vec<(usize, usize)>>,
}

impl Waits {
    /// Notes that `waiter` waits for `holder`; false if `holder` already waits for `waiter`, directly
    /// or not.
    pub fn add(&self, waiter: usize, holder: usize) -> bool {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.retain(|(from, _)| *from != waiter);
        let mut at = holder;
        for _ in 0..=edges.len() {
            if at == waiter {
                return false;
            }
            let Some((_, next)) = edges.iter().find(|(from, _)| *from == at) else { break };
            at = *next;
        }
        edges.push((waiter, holder));
        true
    }
    /// `waiter` waits no more.
    pub fn remove(&self, waiter: usize) {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.retain(|(from, _)| *from != waiter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(owner: usize, write: bool, start: u64, end: u64) -> Lock {
        Lock { owner: Owner::Table(owner, 1), write, start, end }
    }

    #[test]
    fn ranges_split_and_merge() {
        let list = LockList::default();
        list.set(lock(1, true, 0, 100)).unwrap();
        list.unset(&lock(1, true, 40, 60));
        assert!(list.set(lock(2, true, 40, 60)).is_ok());
        assert!(list.set(lock(2, true, 39, 41)).is_err());
        list.release(Owner::Table(2, 1));
        list.set(lock(1, true, 40, 60)).unwrap();
        assert_eq!(list.list().1, vec![lock(1, true, 0, 100)]);
    }

    #[test]
    fn a_cycle_of_waiters_is_refused() {
        let waits = Waits::default();
        assert!(waits.add(1, 2));
        assert!(waits.add(2, 3));
        assert!(!waits.add(3, 1));
        waits.remove(1);
        assert!(waits.add(3, 1));
    }
}
