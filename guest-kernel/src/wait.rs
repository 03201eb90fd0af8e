//! Wait queues: how a handler that cannot go on is told to try again.
//!
//! A queue holds whoever wants to hear of a change: a task's [`Parker`], or an epoll item. Waking
//! never transfers anything; a woken task retries its handler and looks for itself. Invariant: a
//! state change that may let a waiter go on is made *before* [`WaitQueue::wake`].

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    fs::flags::Ready,
    time::virtual_time::{Sleep, VirtualTime},
};

/// Someone who wants to hear that a queue was woken.
pub trait Wake: Send + Sync {
    /// Called with the queue's lock *not* held; must not block.
    fn wake(&self);
    /// As [`Wake::wake`], told what became ready, for waiters that want only some events.
    fn wake_for(&self, _ready: Ready) {
        self.wake();
    }
}

/// Event source that tasks and epoll items wait on.
#[derive(Default)]
pub struct WaitQueue {
    waiters: Mutex<Vec<Weak<dyn Wake>>>,
}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Arc<WaitQueue> {
        Arc::new(WaitQueue::default())
    }
    /// Adds `waiter` until [`WaitQueue::remove`] or its death. Adding twice calls it twice.
    pub fn add(&self, waiter: &Arc<dyn Wake>) {
        let mut list = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= 32 {
            list.retain(|w| w.strong_count() > 0);
        }
        list.push(Arc::downgrade(waiter));
    }
    /// Removes one registration of `waiter`.
    pub fn remove(&self, waiter: &Arc<dyn Wake>) {
        let target = Arc::downgrade(waiter);
        let mut list = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = list.iter().position(|w| Weak::ptr_eq(w, &target)) {
            list.swap_remove(i);
        }
    }
    /// Wakes everyone registered.
    pub fn wake(&self) {
        self.wake_for(Ready::all());
    }
    /// Wakes everyone registered, saying what became ready.
    pub fn wake_for(&self, ready: Ready) {
        // Nearly every queue has one waiter or none: those cost no allocation.
        let mut first: [Option<Arc<dyn Wake>>; 4] = Default::default();
        let mut rest = Vec::new();
        {
            let list = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            if list.is_empty() {
                return;
            }
            let mut live = list.iter().filter_map(Weak::upgrade);
            for (slot, waiter) in first.iter_mut().zip(&mut live) {
                *slot = Some(waiter);
            }
            rest.extend(live);
        }
        for waiter in first.into_iter().flatten().chain(rest) {
            waiter.wake_for(ready);
        }
    }
}

/// Where one host thread sleeps. A wake-up that comes first is remembered.
#[derive(Default)]
pub struct Parker {
    woken: Mutex<bool>,
    /// The same, for a look without the lock.
    hint: AtomicBool,
    cond: Condvar,
    sleeping: AtomicBool,
    counted: Option<Counted>,
}

/// The owner's sleep is known to a clock that jumps when all sleep.
struct Counted {
    time: Arc<VirtualTime>,
    me: Weak<Parker>,
    /// The sleep under way; changes under the parker's lock.
    sleep: Mutex<Option<Sleep>>,
}

impl Counted {
    fn sleep(&self) -> MutexGuard<'_, Option<Sleep>> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parker {
    /// A parker with no wake-up pending.
    #[must_use]
    pub fn new() -> Arc<Parker> {
        Arc::new(Parker::default())
    }
    /// One whose owner is counted by `time`, by which its time-outs go.
    #[must_use]
    pub fn counted(time: Arc<VirtualTime>) -> Arc<Parker> {
        Arc::new_cyclic(|me| {
            let counted = Counted { time, me: me.clone(), sleep: Mutex::default() };
            Parker { counted: Some(counted), ..Parker::default() }
        })
    }
    /// Forgets a wake-up that came earlier.
    pub fn clear(&self) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        self.hint.store(false, Ordering::Relaxed);
        *woken = false;
    }
    /// True if a wake-up is pending.
    pub fn is_woken(&self) -> bool {
        self.hint.load(Ordering::Relaxed)
    }
    /// Sleeps until woken or for `timeout`; consumes the wake-up. False on time-out, which in virtual
    /// time is a wake-up like any other.
    pub fn park(&self, timeout: Option<Duration>) -> bool {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut timeout = timeout;
        if let Some(counted) = &self.counted
            && !*woken
            && let Some(me) = counted.me.upgrade()
        {
            let Some(sleep) = counted.time.sleep(me, timeout.take()) else { return false };
            *counted.sleep() = Some(sleep);
            self.sleeping.store(true, Ordering::Relaxed);
            drop(woken);
            counted.time.settle();
            woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping.store(true, Ordering::Relaxed);
        let mut woken = match timeout {
            None => self.cond.wait_while(woken, |w| !*w).unwrap_or_else(PoisonError::into_inner),
            Some(t) => {
                self.cond
                    .wait_timeout_while(woken, t, |w| !*w)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        self.sleeping.store(false, Ordering::Relaxed);
        self.hint.store(false, Ordering::Relaxed);
        std::mem::replace(&mut *woken, false)
    }
    /// True while the owner sleeps (for `/proc/PID/stat`).
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }
}

impl Wake for Parker {
    fn wake(&self) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        self.hint.store(true, Ordering::Relaxed);
        *woken = true;
        // The owner says that it sleeps before it gives up the lock; waking nobody costs a host call.
        let sleeping = self.sleeping.load(Ordering::Relaxed);
        if sleeping
            && let Some(counted) = &self.counted
            && let Some(sleep) = counted.sleep().take()
        {
            counted.time.rouse(sleep);
        }
        drop(woken);
        if sleeping {
            self.cond.notify_one();
        }
    }
}
