//! On which host CPUs CPUs' threads and ring servers run.
//!
//! A server that shares its core with a thread that waits for it is worse than none, and the host's scheduler
//! likes to put threads that wake each other on one core. So a server begins on another core than its caller's,
//! and one that stays although the guest could use every core has its own to itself.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use libc::pid_t;

use crate::platform::affinity::{CpuSet, current};

/// A CPU's thread, as [`Placement`] knows it.
#[derive(Clone, Copy)]
pub(super) struct Berth(pid_t);

/// Where the threads of a machine may run.
pub(super) struct Placement {
    allowed: CpuSet,
    state: Mutex<State>,
    /// A core was reserved before.
    ever: AtomicBool,
}

#[derive(Default)]
struct State {
    threads: Vec<pid_t>,
    reserved: Option<usize>,
}

impl Default for Placement {
    fn default() -> Placement {
        let (allowed, state) = (CpuSet::of(0), Mutex::default());
        Placement { allowed, state, ever: AtomicBool::new(false) }
    }
}

impl Placement {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The calling thread runs a CPU from now on.
    pub(super) fn join(&self) -> Berth {
        // SAFETY: gettid(2) touches no memory.
        let thread = unsafe { libc::gettid() };
        let mut state = self.state();
        state.threads.push(thread);
        if self.ever.load(Ordering::Relaxed) {
            // It has inherited what held for the thread that made it.
            state.reserved.map_or(self.allowed, |core| self.allowed.without(core)).bind(thread);
        }
        Berth(thread)
    }
    /// It does no more.
    pub(super) fn leave(&self, berth: Berth) {
        let mut state = self.state();
        if let Some(at) = state.threads.iter().position(|thread| *thread == berth.0) {
            state.threads.swap_remove(at);
        }
        if state.reserved.is_some() {
            self.allowed.bind(berth.0);
        }
    }
    /// Moves the calling server elsewhere if it is on `core`.
    pub(super) fn avoid(&self, core: usize) {
        if current() == core {
            self.allowed.without(core).bind(0);
        }
    }
    /// The core that the calling server is on becomes its own, unless another has one already.
    pub(super) fn reserve(&self) -> bool {
        let mut state = self.state();
        if state.reserved.is_some() {
            return false;
        }
        let core = current();
        state.reserved = Some(core);
        self.ever.store(true, Ordering::Relaxed);
        CpuSet::only(core).bind(0);
        let others = self.allowed.without(core);
        state.threads.iter().for_each(|thread| others.bind(*thread));
        true
    }
    /// The calling server's core is everybody's again.
    pub(super) fn release(&self) {
        let mut state = self.state();
        state.reserved = None;
        self.allowed.bind(0);
        state.threads.iter().for_each(|thread| self.allowed.bind(*thread));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_reserved_core_is_left_alone_and_given_back() {
        let placement = Placement::default();
        let all = placement.allowed.count();
        // Where there is one core alone nobody can be kept off it.
        let rest = if all > 1 { all - 1 } else { 1 };
        std::thread::scope(|scope| {
            let (joined, threads) = channel();
            let (end, ended) = channel::<()>();
            let placement = &placement;
            scope.spawn(move || {
                let berth = placement.join();
                joined.send(berth.0).unwrap();
                ended.recv().unwrap();
                // What a thread makes inherits where it may run.
                scope.spawn(move || {
                    let child = placement.join();
                    joined.send(child.0).unwrap();
                    ended.recv().unwrap();
                    placement.leave(child);
                });
                placement.leave(berth);
                assert_eq!(CpuSet::of(0).count(), all);
            });
            let first = threads.recv().unwrap();
            assert_eq!(CpuSet::of(first).count(), all);
            assert!(placement.reserve() && !placement.reserve());
            let core = current();
            assert_eq!((CpuSet::of(0).count(), CpuSet::of(first).count()), (1, rest));
            assert!(all == 1 || !CpuSet::of(first).has(core));
            end.send(()).unwrap();
            let second = threads.recv().unwrap();
            assert_eq!(CpuSet::of(second).count(), rest);
            placement.release();
            assert_eq!((CpuSet::of(0).count(), CpuSet::of(second).count()), (all, all));
            end.send(()).unwrap();
        });
    }
    #[test]
    fn a_server_moves_off_its_callers_core() {
        let placement = Placement::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let core = current();
                placement.avoid(core);
                assert!(placement.allowed.count() == 1 || current() != core);
            });
        });
    }
}
