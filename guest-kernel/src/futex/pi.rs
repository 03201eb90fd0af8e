//! Priority-inheritance locks: the word holds the owner's thread id, and an unlock hands the lock to
//! the longest waiter. Priorities themselves do not exist here, so nothing is inherited.

use std::sync::{Arc, atomic::Ordering};

use super::{ANY, Futexes, Key, Waiter};
use crate::{error::Errno, mm::Mm, task::Tid};

/// FUTEX_WAITERS.
pub const WAITERS: u32 = 1 << 31;
/// FUTEX_OWNER_DIED.
pub const OWNER_DIED: u32 = 1 << 30;
/// FUTEX_TID_MASK.
pub const TID_MASK: u32 = OWNER_DIED - 1;

/// What trying to lock came to.
pub enum Locked {
    /// The caller owns it.
    Owned,
    /// Another thread does; the caller is queued.
    Queued(Arc<Waiter>),
}

impl Futexes {
    /// FUTEX_LOCK_PI and FUTEX_TRYLOCK_PI for thread `me`.
    ///
    /// # Errors
    /// EDEADLK if `me` owns it, ESRCH if the owner does not exist, EAGAIN if `try_only` and it is
    /// owned, EFAULT.
    pub fn lock_pi(
        &self,
        mm: &Mm,
        addr: u64,
        key: Key,
        me: Tid,
        try_only: bool,
        exists: impl Fn(Tid) -> bool,
    ) -> Result<Locked, Errno> {
        let mut bucket = self.bucket(self.index(&key));
        let mine = me.cast_unsigned();
        let queued = bucket.iter().any(|w| w.locker.is_some() && w.key() == key);
        loop {
            let word = mm.load_u32(addr)?;
            let owner = word & TID_MASK;
            if owner == mine {
                return Err(Errno::EDEADLK);
            }
            let wanted =
                if owner == 0 && !queued { mine | (word & OWNER_DIED) } else { word | WAITERS };
            if mm.cas_u32(addr, word, wanted)?.is_err() {
                continue;
            }
            if wanted & TID_MASK == mine {
                return Ok(Locked::Owned);
            }
            // Linux marks the word before it looks for the owner, and leaves the mark.
            if owner != 0 && !exists(owner.cast_signed()) {
                return Err(Errno::ESRCH);
            }
            if try_only {
                return Err(Errno::EAGAIN);
            }
            self.lockers.fetch_add(1, Ordering::Relaxed);
            return Ok(Locked::Queued(Self::push(&mut bucket, key, ANY, Some(me))));
        }
    }
    /// FUTEX_UNLOCK_PI for thread `me`: the longest waiter becomes the owner.
    ///
    /// # Errors
    /// EPERM if `me` does not own it, EFAULT.
    pub fn unlock_pi(&self, mm: &Mm, addr: u64, key: &Key, me: Tid) -> Result<(), Errno> {
        self.hand_over(mm, addr, key, me, 0)
    }
    /// Gives `me`'s lock to the longest waiter, or frees it; `died` is ORed into the word.
    ///
    /// # Errors
    /// EPERM if `me` does not own it, EFAULT.
    pub fn hand_over(
        &self,
        mm: &Mm,
        addr: u64,
        key: &Key,
        me: Tid,
        died: u32,
    ) -> Result<(), Errno> {
        let next = {
            let mut bucket = self.bucket(self.index(key));
            let is_next = |w: &Arc<Waiter>| w.locker.is_some() && w.key() == *key;
            let at = bucket.iter().position(is_next);
            let more = bucket.iter().filter(|w| is_next(w)).count() > 1;
            let locker = at.and_then(|at| bucket[at].locker).unwrap_or(0);
            let waiters = if more { WAITERS } else { 0 };
            let wanted = locker.cast_unsigned() | waiters | died;
            let old = mm.update_u32(addr, |word| {
                (word & TID_MASK == me.cast_unsigned()).then_some(wanted)
            })?;
            if old & TID_MASK != me.cast_unsigned() {
                return Err(Errno::EPERM);
            }
            at.and_then(|at| bucket.remove(at))
        };
        if let Some(waiter) = next {
            waiter.woken.store(true, Ordering::Release);
            waiter.queue.wake();
        }
        Ok(())
    }
}
