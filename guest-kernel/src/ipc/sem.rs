//! SysV semaphore sets (semop(2)): all operations of a call happen, or none does.
//!
//! Adjustments for SEM_UNDO lie in the set, by the number of the [`UndoList`] that owes them; a list
//! belongs to the tasks that share it (CLONE_SYSVSEM), and what it owes is done when the last goes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Object, Perm};
use crate::{error::Errno, wait::WaitQueue};

/// Largest value (SEMVMX), and adjustment (SEMAEM).
pub const MAX_VALUE: i32 = 32767;
/// Most semaphores in a set (SEMMSL).
pub const MAX_IN_SET: i32 = 32000;
/// Most sets (SEMMNI).
pub const MAX_SETS: i32 = 32000;
/// Most semaphores in all sets: a bound on what a guest makes us hold.
const MAX_ALL: u64 = 1 << 20;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Which semaphore.
    pub number: u16,
    /// What is added; 0 waits for zero.
    pub change: i16,
    /// IPC_NOWAIT.
    pub nowait: bool,
    /// SEM_UNDO.
    pub undo: bool,
}

/// One semaphore.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sem {
    /// semval.
    pub value: i32,
    /// sempid.
    pub pid: i32,
    /// semncnt.
    pub decreasing: u32,
    /// semzcnt.
    pub for_zero: u32,
}

/// A set's contents.
pub struct State {
    /// Owner.
    pub perm: Perm,
    /// The semaphores.
    pub sems: Vec<Sem>,
    /// Last semop, last change (`CLOCK_REALTIME`).
    pub times: (Duration, Duration),
    undo: BTreeMap<u64, BTreeMap<u16, i32>>,
    removed: bool,
}

/// A set.
pub struct SemSet {
    /// Its id.
    pub id: i32,
    state: Mutex<State>,
    /// Woken on every change.
    pub queue: Arc<WaitQueue>,
    all: Arc<AtomicU64>,
}

/// Why the operations did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// For good.
    Errno(Errno),
    /// They would block here: on this semaphore, for zero or not.
    Blocks(u16, bool),
}

impl SemSet {
    /// A set of `count` semaphores, all 0; `all` counts those of every set.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn new(
        id: i32,
        perm: Perm,
        count: usize,
        now: Duration,
        all: &Arc<AtomicU64>,
    ) -> Result<SemSet, Errno> {
        let more = |used: u64| Some(used + count as u64).filter(|sum| *sum <= MAX_ALL);
        let order = Ordering::Relaxed;
        all.fetch_update(order, order, more).map_err(|_| Errno::ENOSPC)?;
        let state = State {
            perm,
            sems: vec![Sem::default(); count],
            times: (Duration::ZERO, now),
            undo: BTreeMap::new(),
            removed: false,
        };
        Ok(SemSet { id, state: Mutex::new(state), queue: WaitQueue::new(), all: all.clone() })
    }
    /// The contents.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Tries the operations for process `pid`; `list` owes what SEM_UNDO asks for.
    ///
    /// # Errors
    /// [`Refusal`]: EIDRM, EFBIG, ERANGE, EAGAIN, or where they block.
    pub fn operate(
        self: &Arc<Self>,
        operations: &[Operation],
        pid: i32,
        list: Option<&UndoList>,
        now: Duration,
    ) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.removed {
            return Err(Refusal::Errno(Errno::EIDRM));
        }
        let count = state.sems.len();
        if operations.iter().any(|op| usize::from(op.number) >= count) {
            return Err(Refusal::Errno(Errno::EFBIG));
        }
        let owed = list.map(|list| list.id);
        let mut values = BTreeMap::new();
        let mut owing = BTreeMap::new();
        for op in operations {
            let index = usize::from(op.number);
            let value = *values.entry(op.number).or_insert(state.sems[index].value);
            let change = i32::from(op.change);
            let blocks = if change == 0 { value != 0 } else { value + change < 0 };
            if blocks {
                let again = Refusal::Errno(Errno::EAGAIN);
                return Err(if op.nowait {
                    again
                } else {
                    Refusal::Blocks(op.number, change == 0)
                });
            }
            if value + change > MAX_VALUE {
                return Err(Refusal::Errno(Errno::ERANGE));
            }
            values.insert(op.number, value + change);
            if op.undo && change != 0 {
                let before = owed.and_then(|id| state.undo.get(&id)?.get(&op.number)).copied();
                let owes = owing.entry(op.number).or_insert(before.unwrap_or(0));
                *owes -= change;
                if !(-MAX_VALUE - 1..=MAX_VALUE).contains(owes) {
                    return Err(Refusal::Errno(Errno::ERANGE));
                }
            }
        }
        for (number, value) in values {
            let sem = &mut state.sems[usize::from(number)];
            (sem.value, sem.pid) = (value, pid);
        }
        if let (Some(list), false) = (list, owing.is_empty()) {
            state.undo.entry(list.id).or_default().extend(owing);
            list.owes_to(self);
        }
        state.times.0 = now;
        let changed = operations.iter().any(|op| op.change != 0);
        drop(state);
        if changed {
            self.queue.wake();
        }
        Ok(())
    }
    /// SETVAL, SETALL: sets values from semaphore `first` on and forgets what is owed to them.
    ///
    /// # Errors
    /// EIDRM; EINVAL, ERANGE.
    pub fn set(&self, first: usize, values: &[u16], pid: i32, now: Duration) -> Result<(), Errno> {
        let mut state = self.state();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        if values.iter().any(|v| i32::from(*v) > MAX_VALUE) {
            return Err(Errno::ERANGE);
        }
        let sems = state.sems.get_mut(first..first + values.len()).ok_or(Errno::EINVAL)?;
        for (sem, value) in sems.iter_mut().zip(values) {
            (sem.value, sem.pid) = (i32::from(*value), pid);
        }
        let range = first..first + values.len();
        for owed in state.undo.values_mut() {
            owed.retain(|number, _| !range.contains(&usize::from(*number)));
        }
        state.times.1 = now;
        drop(state);
        self.queue.wake();
        Ok(())
    }
    fn pay(&self, list: u64, pid: i32) {
        let mut state = self.state();
        let Some(owed) = state.undo.remove(&list) else { return };
        for (number, change) in owed {
            if let Some(sem) = state.sems.get_mut(usize::from(number)) {
                sem.value = (sem.value + change).clamp(0, MAX_VALUE);
                sem.pid = pid;
            }
        }
        drop(state);
        self.queue.wake();
    }
}

impl Object for SemSet {
    fn perm(&self) -> Perm {
        self.state().perm
    }
    fn remove(&self) {
        self.state().removed = true;
        self.queue.wake();
    }
}

impl Drop for SemSet {
    fn drop(&mut self) {
        let count = self.state().sems.len() as u64;
        self.all.fetch_sub(count, Ordering::Relaxed);
    }
}

/// What the tasks that share it owe to semaphores.
pub struct UndoList {
    id: u64,
    pid: i32,
    sets: Mutex<Vec<Weak<SemSet>>>,
}

impl UndoList {
    /// An empty list; `id` is unique in the VM.
    #[must_use]
    pub fn new(id: u64, pid: i32) -> Arc<UndoList> {
        Arc::new(UndoList { id, pid, sets: Mutex::default() })
    }
    fn owes_to(&self, set: &Arc<SemSet>) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.retain(|s| s.strong_count() > 0);
        if !sets.iter().any(|s| std::ptr::eq(s.as_ptr(), Arc::as_ptr(set))) {
            sets.push(Arc::downgrade(set));
        }
    }
}

impl Drop for UndoList {
    fn drop(&mut self) {
        let sets = std::mem::take(self.sets.get_mut().unwrap_or_else(PoisonError::into_inner));
        for set in sets.iter().filter_map(Weak::upgrade) {
            set.pay(self.id, self.pid);
        }
    }
}

/// A call that waits on a semaphore: counted in semncnt or semzcnt while it lives.
pub struct Waiting {
    /// The set, which may be removed meanwhile.
    pub set: Arc<SemSet>,
    /// Where, and whether for zero.
    pub on: (u16, bool),
}

impl Waiting {
    /// Counts a waiter.
    #[must_use]
    pub fn new(set: &Arc<SemSet>, on: (u16, bool)) -> Waiting {
        let waiting = Waiting { set: set.clone(), on };
        waiting.count(1);
        waiting
    }
    fn count(&self, by: i32) {
        let mut state = self.set.state();
        if let Some(sem) = state.sems.get_mut(usize::from(self.on.0)) {
            let count = if self.on.1 { &mut sem.for_zero } else { &mut sem.decreasing };
            *count = count.saturating_add_signed(by);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.count(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(count: usize) -> Arc<SemSet> {
        let all = Arc::default();
        Arc::new(SemSet::new(0, Perm::default(), count, Duration::ZERO, &all).unwrap())
    }
    fn op(number: u16, change: i16) -> Operation {
        Operation { number, change, nowait: false, undo: true }
    }

    #[test]
    fn all_happen_or_none() {
        let set = set(2);
        let both = [op(0, 1), op(1, -1)];
        let blocked = Err(Refusal::Blocks(1, false));
        assert_eq!(set.operate(&both, 7, None, Duration::ZERO), blocked);
        assert_eq!(set.state().sems[0].value, 0);
        // One operation sees what an earlier one of the same call did.
        assert_eq!(set.operate(&[op(0, 1), op(0, -1), op(0, 0)], 7, None, Duration::ZERO), Ok(()));
    }

    #[test]
    fn what_is_owed_is_paid_when_the_list_goes() {
        let set = set(1);
        let list = UndoList::new(3, 7);
        set.operate(&[op(0, 5)], 7, Some(&list), Duration::ZERO).unwrap();
        set.operate(&[op(0, -2)], 7, Some(&list), Duration::ZERO).unwrap();
        assert_eq!(set.state().sems[0].value, 3);
        drop(list);
        assert_eq!(set.state().sems[0].value, 0);
    }
}
