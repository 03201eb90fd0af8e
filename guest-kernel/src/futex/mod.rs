//! Futexes: threads that wait on a word of guest memory (futex(2)).
//!
//! A waiter is an object in the bucket of its word's identity; whoever wakes it takes it out and
//! marks it, under the bucket's lock, so wake counts are exact and no wake-up is lost. A requeued
//! waiter knows its new bucket. The word itself is read under the bucket's lock: a change of the
//! word that precedes a wake is either seen by the waiter or finds it queued.
//!
//! Lock order: buckets in ascending order, then a waiter's key, then the address space.

pub mod pi;
pub mod robust;

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

pub use crate::mm::info::FutexKey as Key;
use crate::{error::Errno, num::Word, task::Tid, wait::WaitQueue};

/// FUTEX_BITSET_MATCH_ANY.
pub const ANY: u32 = u32::MAX;

const BUCKETS: usize = 256;

/// One thread's wait on one word.
pub struct Waiter {
    key: Mutex<Key>,
    /// Wakes with an intersecting bitset reach it.
    bitset: u32,
    /// It wants to own a priority-inheritance lock: the thread.
    locker: Option<Tid>,
    woken: AtomicBool,
    /// Woken once the waiter is.
    pub queue: Arc<WaitQueue>,
}

impl Waiter {
    fn key(&self) -> Key {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A wake took it out of its bucket.
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }
}

type Bucket = VecDeque<Arc<Waiter>>;

/// All waiters of a VM.
pub struct Futexes {
    buckets: Vec<Mutex<Bucket>>,
    hasher: RandomState,
    lockers: AtomicUsize,
}

impl Default for Futexes {
    fn default() -> Futexes {
        let mut buckets = Vec::new();
        buckets.resize_with(BUCKETS, Mutex::default);
        Futexes { buckets, hasher: RandomState::new(), lockers: AtomicUsize::new(0) }
    }
}

/// What a requeue moves: how many are woken, how many moved.
#[derive(Clone, Copy, Debug)]
pub struct Requeue {
    /// Woken first.
    pub wake: usize,
    /// Moved to the second word.
    pub moved: usize,
}

impl Futexes {
    fn index(&self, key: &Key) -> usize {
        self.hasher.hash_one(key).size() % BUCKETS
    }
    fn bucket(&self, index: usize) -> MutexGuard<'_, Bucket> {
        self.buckets[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a waiter on `key` if `check`, run with the bucket locked, does not object.
    ///
    /// # Errors
    /// `check`'s.
    pub fn enqueue(
        &self,
        key: Key,
        bitset: u32,
        check: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<Arc<Waiter>, Errno> {
        let mut bucket = self.bucket(self.index(&key));
        check()?;
        Ok(Self::push(&mut bucket, key, bitset, None))
    }
    fn push(bucket: &mut Bucket, key: Key, bitset: u32, locker: Option<Tid>) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter {
            key: Mutex::new(key),
            bitset,
            locker,
            woken: AtomicBool::new(false),
            queue: WaitQueue::new(),
        });
        bucket.push_back(waiter.clone());
        waiter
    }
    /// Takes `waiter` out; false if a wake did so before.
    pub fn dequeue(&self, waiter: &Arc<Waiter>) -> bool {
        loop {
            if waiter.is_woken() {
                return false;
            }
            let key = waiter.key();
            let mut bucket = self.bucket(self.index(&key));
            if waiter.key() != key {
                continue;
            }
            let found = bucket.iter().position(|w| Arc::ptr_eq(w, waiter));
            if let Some(at) = found {
                bucket.remove(at);
            }
            return found.is_some();
        }
    }
    /// Wakes up to `count` waiters of `key` whose bitsets intersect `bitset`, longest waiting first;
    /// how many.
    pub fn wake(&self, key: &Key, count: usize, bitset: u32) -> usize {
        let woken = {
            let mut bucket = self.bucket(self.index(key));
            Self::collect(&mut bucket, key, count, bitset)
        };
        finish(&woken)
    }
    fn collect(bucket: &mut Bucket, key: &Key, count: usize, bitset: u32) -> Vec<Arc<Waiter>> {
        let mut woken = Vec::new();
        let mut at = 0;
        while at < bucket.len() && woken.len() < count {
            let waiter = &bucket[at];
            let hit = waiter.bitset & bitset != 0 && waiter.locker.is_none();
            if hit && waiter.key() == *key {
                woken.extend(bucket.remove(at));
            } else {
                at += 1;
            }
        }
        for waiter in &woken {
            waiter.woken.store(true, Ordering::Release);
        }
        woken
    }
    /// Locks both buckets, in order; the second is `None` if they are the same.
    fn both(
        &self,
        first: &Key,
        second: &Key,
    ) -> (MutexGuard<'_, Bucket>, Option<MutexGuard<'_, Bucket>>) {
        let (one, two) = (self.index(first), self.index(second));
        match one.cmp(&two) {
            std::cmp::Ordering::Equal => (self.bucket(one), None),
            std::cmp::Ordering::Less => {
                let a = self.bucket(one);
                (a, Some(self.bucket(two)))
            }
            std::cmp::Ordering::Greater => {
                let b = self.bucket(two);
                (self.bucket(one), Some(b))
            }
        }
    }
    /// Wakes some waiters of `from` and moves others to `to`, if `check`, run with both buckets
    /// locked, does not object; how many were woken and moved.
    ///
    /// # Errors
    /// `check`'s.
    pub fn requeue(
        &self,
        from: &Key,
        to: &Key,
        amount: Requeue,
        check: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(usize, usize), Errno> {
        let (woken, moved) = {
            let (mut first, mut second) = self.both(from, to);
            check()?;
            let woken = Self::collect(&mut first, from, amount.wake, ANY);
            let mut moved = 0;
            let mut at = 0;
            while at < first.len() && moved < amount.moved {
                if first[at].locker.is_some() || first[at].key() != *from {
                    at += 1;
                    continue;
                }
                moved += 1;
                match &mut second {
                    // The same word, or another one in this bucket: it stays where it is.
                    None => {
                        *first[at].key.lock().unwrap_or_else(PoisonError::into_inner) = *to;
                        at += 1;
                    }
                    Some(second) => {
                        let Some(waiter) = first.remove(at) else { break };
                        *waiter.key.lock().unwrap_or_else(PoisonError::into_inner) = *to;
                        second.push_back(waiter);
                    }
                }
            }
            (woken, moved)
        };
        Ok((finish(&woken), moved))
    }
    /// FUTEX_WAKE_OP: `modify`, run with both buckets locked, changes the second word and says
    /// whether its waiters are to be woken too; how many were.
    ///
    /// # Errors
    /// `modify`'s.
    pub fn wake_op(
        &self,
        keys: [&Key; 2],
        counts: [usize; 2],
        modify: impl FnOnce() -> Result<bool, Errno>,
    ) -> Result<usize, Errno> {
        let woken = {
            let (mut first, mut second) = self.both(keys[0], keys[1]);
            let also = modify()?;
            let mut woken = Self::collect(&mut first, keys[0], counts[0], ANY);
            if also {
                let bucket = second.as_deref_mut().unwrap_or(&mut first);
                woken.extend(Self::collect(bucket, keys[1], counts[1], ANY));
            }
            woken
        };
        Ok(finish(&woken))
    }
    /// Waiters now queued.
    #[must_use]
    pub fn waiting(&self) -> usize {
        (0..BUCKETS).map(|i| self.bucket(i).len()).sum()
    }
}

/// Wakes the threads of waiters already marked, with no lock held.
fn finish(woken: &[Arc<Waiter>]) -> usize {
    for waiter in woken {
        waiter.queue.wake();
    }
    woken.len()
}

/// Waiters a call put in place; taken out when the call ends for whatever reason.
pub struct Waiting {
    futexes: Arc<Futexes>,
    /// In the order of the call's words.
    pub waiters: Vec<Arc<Waiter>>,
}

impl Waiting {
    /// Holds `waiters` of `futexes`.
    #[must_use]
    pub fn new(futexes: &Arc<Futexes>, waiters: Vec<Arc<Waiter>>) -> Waiting {
        Waiting { futexes: futexes.clone(), waiters }
    }
    /// The first waiter that was woken.
    #[must_use]
    pub fn woken(&self) -> Option<usize> {
        self.waiters.iter().position(|w| w.is_woken())
    }
    /// Gives up: takes every waiter out. The first that had been woken after all, if any.
    pub fn give_up(&self) -> Option<usize> {
        for waiter in &self.waiters {
            self.futexes.dequeue(waiter);
        }
        self.woken()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(addr: u64) -> Key {
        Key::Private { mm: 1, addr, declared: true }
    }
    fn wait_on(futexes: &Futexes, addr: u64, bitset: u32) -> Arc<Waiter> {
        futexes.enqueue(key(addr), bitset, || Ok(())).unwrap()
    }

    #[test]
    fn wakes_are_counted_exactly_and_in_order() {
        let futexes = Futexes::default();
        let waiters: Vec<_> = (0..5).map(|_| wait_on(&futexes, 16, ANY)).collect();
        assert_eq!(futexes.wake(&key(20), 9, ANY), 0);
        assert_eq!(futexes.wake(&key(16), 2, ANY), 2);
        let woken: Vec<_> = waiters.iter().map(|w| w.is_woken()).collect();
        assert_eq!(woken, [true, true, false, false, false]);
        assert!(futexes.dequeue(&waiters[2]) && !futexes.dequeue(&waiters[0]));
        assert_eq!(futexes.wake(&key(16), 9, ANY), 2);
        assert_eq!(futexes.waiting(), 0);
    }

    #[test]
    fn bitsets_select() {
        let futexes = Futexes::default();
        let (a, b) = (wait_on(&futexes, 8, 1), wait_on(&futexes, 8, 2));
        assert_eq!(futexes.wake(&key(8), 9, 2), 1);
        assert!(b.is_woken() && !a.is_woken());
    }

    #[test]
    fn requeued_waiters_are_found_again() {
        let futexes = Futexes::default();
        let amount = Requeue { wake: 1, moved: 2 };
        for to in (64..4096).step_by(64) {
            let waiters: Vec<_> = (0..4).map(|_| wait_on(&futexes, 16, ANY)).collect();
            assert_eq!(futexes.requeue(&key(16), &key(to), amount, || Ok(())), Ok((1, 2)));
            assert!(futexes.dequeue(&waiters[1]));
            assert_eq!(futexes.wake(&key(to), 9, ANY), 1);
            assert_eq!(futexes.wake(&key(16), 9, ANY), 1);
            assert_eq!(futexes.waiting(), 0);
        }
    }

    #[test]
    fn a_failed_check_queues_nothing() {
        let futexes = Futexes::default();
        assert!(futexes.enqueue(key(4), ANY, || Err(Errno::EAGAIN)).is_err());
        assert_eq!(futexes.waiting(), 0);
    }
}
