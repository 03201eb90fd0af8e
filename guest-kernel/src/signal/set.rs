//! Sets of signals.

use std::ops::{BitAnd, BitOr, Not, Sub};

use super::{Signal, number::*};

/// A set of signals: bit `n - 1` stands for signal `n`, as in the kernel's sigset_t.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// All signals.
    pub const ALL: SigSet = SigSet(u64::MAX);
    /// SIGKILL and SIGSTOP, which no mask holds and no action changes.
    pub const UNBLOCKABLE: SigSet = SigSet::of(&[SIGKILL, SIGSTOP]);
    /// Signals that stop a process by default.
    pub const STOP: SigSet = SigSet::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
    /// Signals that are ignored by default.
    pub const IGNORED: SigSet = SigSet::of(&[SIGCONT, SIGCHLD, SIGWINCH, SIGURG]);
    /// Signals that dump core by default.
    pub const CORE: SigSet = SigSet::of(&[
        SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ,
    ]);
    /// Signals the program's own instructions cause; delivered before all others.
    pub const SYNCHRONOUS: SigSet = SigSet::of(&[SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS]);

    /// The set of `signals`.
    #[must_use]
    pub const fn of(signals: &[Signal]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1u64 << (signals[i] - 1);
            i += 1;
        }
        SigSet(bits)
    }
    /// The set of one signal.
    #[must_use]
    pub const fn one(signal: Signal) -> SigSet {
        SigSet::of(&[signal])
    }
    /// `signal` is in it.
    #[must_use]
    pub const fn has(self, signal: Signal) -> bool {
        self.0 & SigSet::one(signal).0 != 0
    }
    /// Nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Adds `signal`.
    pub fn insert(&mut self, signal: Signal) {
        self.0 |= SigSet::one(signal).0;
    }
    /// Removes `signal`.
    pub fn remove(&mut self, signal: Signal) {
        self.0 &= !SigSet::one(signal).0;
    }
    /// The next signal to deliver: a synchronous one if there is any, else the lowest.
    #[must_use]
    pub fn next(self) -> Option<Signal> {
        let urgent = self & SigSet::SYNCHRONOUS;
        let from = if urgent.is_empty() { self } else { urgent };
        let bit = u8::try_from(from.0.trailing_zeros()).unwrap_or(64);
        (bit < 64).then(|| bit + 1)
    }
    /// As a mask: without the signals that cannot be blocked.
    #[must_use]
    pub fn blockable(self) -> SigSet {
        self - SigSet::UNBLOCKABLE
    }
}

impl BitAnd for SigSet {
    type Output = SigSet;
    fn bitand(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }
}
impl BitOr for SigSet {
    type Output = SigSet;
    fn bitor(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }
}
impl Sub for SigSet {
    type Output = SigSet;
    fn sub(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }
}
impl Not for SigSet {
    type Output = SigSet;
    fn not(self) -> SigSet {
        SigSet(!self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_synchronous_then_lowest() {
        let set = SigSet::of(&[SIGHUP, SIGSEGV, SIGBUS, 40]);
        assert_eq!(set.next(), Some(SIGBUS));
        assert_eq!((set - SigSet::SYNCHRONOUS).next(), Some(SIGHUP));
        assert_eq!(SigSet::one(64).next(), Some(64));
        assert_eq!(SigSet::EMPTY.next(), None);
    }

    #[test]
    fn masks_never_hold_kill_or_stop() {
        assert!(!SigSet::ALL.blockable().has(SIGKILL));
        assert!(!SigSet::ALL.blockable().has(SIGSTOP));
        assert!(SigSet::ALL.blockable().has(SIGCONT));
    }
}
