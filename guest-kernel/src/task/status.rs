//! How a process ended, and what it used.

use std::time::Duration;

use crate::signal::Signal;

/// How a process ended (wait(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// exit(2) or exit_group(2) with this code.
    Exited(u8),
    /// Killed by a signal; `core` says that Linux would have tried to dump core.
    Signaled {
        /// The signal.
        signal: Signal,
        /// WCOREDUMP.
        core: bool,
    },
}

impl ExitStatus {
    /// The word that wait4(2) stores.
    #[must_use]
    pub fn wait_word(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => i32::from(code) << 8,
            ExitStatus::Signaled { signal, core } => i32::from(signal) | i32::from(core) << 7,
        }
    }
}

/// Resources used (getrusage(2)).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Usage {
    /// CPU time in guest code.
    pub user: Duration,
    /// CPU time in the kernel on the guest's behalf.
    pub system: Duration,
    /// Page faults resolved without I/O.
    pub minor_faults: u64,
    /// Waits.
    pub voluntary: u64,
    /// Peak resident set in KiB.
    pub max_rss: u64,
}

impl Usage {
    /// Adds another's use; the peak is the greater one.
    pub fn add(&mut self, other: &Usage) {
        self.user += other.user;
        self.system += other.system;
        self.minor_faults = self.minor_faults.wrapping_add(other.minor_faults);
        self.voluntary = self.voluntary.wrapping_add(other.voluntary);
        self.max_rss = self.max_rss.max(other.max_rss);
    }
}
