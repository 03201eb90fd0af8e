//! Where signals wait: a thread's mask, private queue and alternate stack; a process's shared queue,
//! dispositions and stop state.
//!
//! Lock order: [`SharedSignals::lock`] before [`TaskSignals::lock`] before [`Actions`]'s own; none is
//! held while another process's is taken, nor while anyone is woken.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{Signal, action::Actions, queue::Queue, set::SigSet};
use crate::wait::WaitQueue;

/// An alternate signal stack (sigaltstack(2)); none when `size` is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AltStack {
    /// Lowest byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// SS_AUTODISARM.
    pub autodisarm: bool,
}

impl AltStack {
    /// `sp` lies on it. With SS_AUTODISARM it never counts as being in use.
    #[must_use]
    pub fn in_use(&self, sp: u64) -> bool {
        !self.autodisarm && self.covers(sp)
    }
    /// `sp` lies on it, the top included and the very bottom not (a stack grows down).
    #[must_use]
    pub fn covers(&self, sp: u64) -> bool {
        sp > self.base && sp - self.base <= self.size
    }
}

/// What the last hardware exception was; frames carry it (trapno, err, cr2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastFault {
    /// Vector.
    pub vector: u8,
    /// Error code.
    pub error: u64,
    /// CR2.
    pub addr: u64,
}

/// A thread's own signal state.
#[derive(Default)]
pub struct TaskState {
    /// Blocked signals.
    pub mask: SigSet,
    /// The mask to go back to when a temporary one ends (sigsuspend, ppoll, pselect, epoll_pwait).
    pub saved: Option<SigSet>,
    /// Signals for this thread alone.
    pub pending: Queue,
    /// Alternate stack.
    pub altstack: AltStack,
    /// For sigcontext.
    pub fault: LastFault,
    /// Takes part in the process's stop.
    pub stopped: bool,
}

/// A thread's signals.
#[derive(Default)]
pub struct TaskSignals {
    /// There may be something for `deliver` to do. Set under the process's lock.
    attention: AtomicBool,
    /// A temporary mask is in force.
    temporary: AtomicBool,
    state: Mutex<TaskState>,
}

impl TaskSignals {
    /// A new thread's: its creator's mask, nothing pending. `altstack` is kept by fork and vfork,
    /// not by threads.
    #[must_use]
    pub fn inherit(parent: &TaskSignals, keep_altstack: bool) -> TaskSignals {
        let parent = parent.lock();
        let altstack = if keep_altstack { parent.altstack } else { AltStack::default() };
        let mask = parent.saved.unwrap_or(parent.mask);
        let state = TaskState { mask, altstack, ..TaskState::default() };
        // It looks once before it first runs: a stop or an exit may have begun meanwhile.
        TaskSignals {
            attention: AtomicBool::new(true),
            state: Mutex::new(state),
            ..Self::default()
        }
    }
    /// Locks the state.
    pub fn lock(&self) -> MutexGuard<'_, TaskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Forgets what execve forgets: the alternate stack.
    pub fn exec(&self) {
        self.lock().altstack = AltStack::default();
    }
    /// `deliver` has something to look at.
    #[must_use]
    pub fn attention(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }
    /// `deliver` has something to do: attention or a temporary mask to end.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.attention() || self.temporary()
    }
    /// There is a temporary mask to end.
    #[must_use]
    pub fn temporary(&self) -> bool {
        self.temporary.load(Ordering::Acquire)
    }
    pub(super) fn set_attention(&self, on: bool) -> bool {
        self.attention.swap(on, Ordering::AcqRel)
    }
    pub(super) fn set_temporary(&self, on: bool) {
        self.temporary.store(on, Ordering::Release);
    }
}

/// A process that is to stop or has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupStop {
    /// The signal that did it.
    pub signal: Signal,
    /// Every thread has stopped and the parent knows.
    pub complete: bool,
}

/// A change of state that wait4(2) may report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateChange {
    /// Stopped by the signal (WUNTRACED).
    Stopped(Signal),
    /// Continued by SIGCONT (WCONTINUED).
    Continued,
}

/// A process's signal state.
#[derive(Default)]
pub struct SharedState {
    /// Signals any thread may take.
    pub pending: Queue,
    /// The stop in effect.
    pub stop: Option<GroupStop>,
    /// What wait4(2) has not reported yet.
    pub change: Option<StateChange>,
}

/// A process's signals.
pub struct SharedSignals {
    actions: Mutex<Arc<Actions>>,
    /// Woken whenever a signal is queued (rt_sigtimedwait, signalfd).
    pub arrivals: Arc<WaitQueue>,
    state: Mutex<SharedState>,
}

impl SharedSignals {
    /// Nothing pending, with `actions`: a copy of the parent's, or shared with it (CLONE_SIGHAND).
    #[must_use]
    pub fn new(actions: Arc<Actions>) -> SharedSignals {
        SharedSignals {
            actions: Mutex::new(actions),
            arrivals: WaitQueue::new(),
            state: Mutex::default(),
        }
    }
    /// The dispositions.
    #[must_use]
    pub fn actions(&self) -> Arc<Actions> {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Locks the state.
    pub fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What execve does: handlers become SIG_DFL, and the table is no longer shared.
    pub fn exec(&self) {
        let mut actions = self.actions.lock().unwrap_or_else(PoisonError::into_inner);
        *actions = actions.after_exec();
    }
    /// The state change wait4(2) would report among those asked for, consumed unless `keep`
    /// (WNOWAIT).
    #[must_use]
    pub fn state_change(&self, stopped: bool, continued: bool, keep: bool) -> Option<StateChange> {
        let mut state = self.lock();
        let found = state.change.filter(|change| match change {
            StateChange::Stopped(_) => stopped,
            StateChange::Continued => continued,
        });
        if found.is_some() && !keep {
            state.change = None;
        }
        found
    }
    /// Every thread is stopped (state T in `/proc`).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lock().stop.is_some_and(|stop| stop.complete)
    }
}
