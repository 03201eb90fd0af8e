//! What a process does with each signal (sigaction(2)).

use std::sync::{Arc, Mutex, PoisonError};

use bitflags::bitflags;

use super::{Signal, number::SIGCHLD, set::SigSet};

bitflags! {
    /// sa_flags, x86-64 values. Unknown bits are cleared, so that programs can find out what there is.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ActionFlags: u64 {
        /// SA_NOCLDSTOP.
        const NOCLDSTOP = 1;
        /// SA_NOCLDWAIT.
        const NOCLDWAIT = 2;
        /// SA_SIGINFO.
        const SIGINFO = 4;
        /// SA_EXPOSE_TAGBITS.
        const EXPOSE_TAGBITS = 0x800;
        /// SA_RESTORER.
        const RESTORER = 0x0400_0000;
        /// SA_ONSTACK.
        const ONSTACK = 0x0800_0000;
        /// SA_RESTART.
        const RESTART = 0x1000_0000;
        /// SA_NODEFER.
        const NODEFER = 0x4000_0000;
        /// SA_RESETHAND.
        const RESETHAND = 0x8000_0000;
    }
}

/// What happens to a delivered signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Handler {
    /// SIG_DFL.
    #[default]
    Default,
    /// SIG_IGN.
    Ignore,
    /// A function of the program.
    Function(u64),
}

/// One signal's disposition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Action {
    /// Handler.
    pub handler: Handler,
    /// Flags.
    pub flags: ActionFlags,
    /// Signals blocked while the handler runs.
    pub mask: SigSet,
    /// Where the handler returns to (SA_RESTORER).
    pub restorer: u64,
}

/// What SIG_DFL means for a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultAction {
    /// End the process.
    Terminate,
    /// End it with a core dump where one is wanted.
    Core,
    /// Nothing.
    Ignore,
    /// Stop every thread.
    Stop,
}

/// The default action of `signal` (signal(7)).
#[must_use]
pub fn default_action(signal: Signal) -> DefaultAction {
    if SigSet::IGNORED.has(signal) {
        DefaultAction::Ignore
    } else if SigSet::STOP.has(signal) {
        DefaultAction::Stop
    } else if SigSet::CORE.has(signal) {
        DefaultAction::Core
    } else {
        DefaultAction::Terminate
    }
}

impl Action {
    /// The signal has no effect when delivered.
    #[must_use]
    pub fn ignores(&self, signal: Signal) -> bool {
        match self.handler {
            Handler::Ignore => true,
            Handler::Default => SigSet::IGNORED.has(signal),
            Handler::Function(_) => false,
        }
    }
}

/// The dispositions of a process, or of several (CLONE_SIGHAND).
pub struct Actions {
    table: Mutex<[Action; 64]>,
}

impl Default for Actions {
    fn default() -> Actions {
        Actions { table: Mutex::new([Action::default(); 64]) }
    }
}

impl Actions {
    fn with<T>(&self, body: impl FnOnce(&mut [Action; 64]) -> T) -> T {
        body(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// The disposition of `signal`.
    #[must_use]
    pub fn get(&self, signal: Signal) -> Action {
        self.with(|table| table[usize::from(signal - 1)])
    }
    /// Replaces it; the old one.
    pub fn set(&self, signal: Signal, action: Action) -> Action {
        self.with(|table| std::mem::replace(&mut table[usize::from(signal - 1)], action))
    }
    /// A copy (fork without CLONE_SIGHAND).
    #[must_use]
    pub fn duplicate(&self) -> Arc<Actions> {
        Arc::new(Actions { table: Mutex::new(self.with(|table| *table)) })
    }
    /// A copy as execve leaves it: handlers become SIG_DFL, SIG_IGN stays.
    #[must_use]
    pub fn after_exec(&self) -> Arc<Actions> {
        let copy = self.duplicate();
        copy.with(|table| {
            for action in table {
                let ignored = action.handler == Handler::Ignore;
                let handler = if ignored { Handler::Ignore } else { Handler::Default };
                *action = Action { handler, ..Action::default() };
            }
        });
        copy
    }
    /// All handlers become SIG_DFL (CLONE_CLEAR_SIGHAND); ignored signals stay ignored.
    pub fn clear_handlers(&self) {
        self.with(|table| {
            for action in table {
                if let Handler::Function(_) = action.handler {
                    *action = Action::default();
                }
            }
        });
    }
    /// Children leave no zombies: SIGCHLD is ignored or has SA_NOCLDWAIT (wait(2), NOTES).
    #[must_use]
    pub fn reaps_children(&self) -> bool {
        let action = self.get(SIGCHLD);
        action.handler == Handler::Ignore || action.flags.contains(ActionFlags::NOCLDWAIT)
    }
    /// Ignored and caught signals (`/proc/PID/status` SigIgn, SigCgt).
    #[must_use]
    pub fn summary(&self) -> (SigSet, SigSet) {
        self.with(|table| {
            let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
            for (signal, action) in (1..).zip(table.iter()) {
                match action.handler {
                    Handler::Ignore => ignored.insert(signal),
                    Handler::Function(_) => caught.insert(signal),
                    Handler::Default => {}
                }
            }
            (ignored, caught)
        })
    }
}
