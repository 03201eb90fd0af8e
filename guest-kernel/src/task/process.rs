//! Processes: thread groups with what their threads share.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::Tid;
use crate::wait::WaitQueue;

/// A thread group.
pub struct Process {
    /// getpid(2): the leader's thread id.
    pub pid: Tid,
    /// Woken when a child changes state (wait4).
    pub child_events: Arc<WaitQueue>,
    /// Dispositions, shared pending signals, stop state.
    pub signals: crate::signal::SharedSignals,
    /// Resource limits by RLIMIT_* number: soft, hard.
    limits: Mutex<[(u64, u64); 16]>,
    exiting: AtomicBool,
}

impl Process {
    /// The soft limit of `resource` (RLIMIT_*).
    #[must_use]
    pub fn limit(&self, resource: usize) -> u64 {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)[resource].0
    }
    /// exit_group has begun.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.exiting.load(Ordering::Acquire)
    }
    /// Threads that have not ended, the leader first while it lives.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<super::Task>> {
        Vec::new()
    }
    /// The process that gets its SIGCHLD.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Process>> {
        None
    }
    /// Process group.
    #[must_use]
    pub fn pgid(&self) -> Tid {
        self.pid
    }
    /// Session.
    #[must_use]
    pub fn sid(&self) -> Tid {
        self.pid
    }
    /// CPU time of all its threads, ended ones included: user, system.
    #[must_use]
    pub fn cpu_time(&self) -> (std::time::Duration, std::time::Duration) {
        Default::default()
    }
}

/// RLIMIT_* numbers (getrlimit(2)).
#[expect(missing_docs, reason = "getrlimit(2) names them")]
pub mod rlimit {
    pub const CPU: usize = 0;
    pub const FSIZE: usize = 1;
    pub const DATA: usize = 2;
    pub const STACK: usize = 3;
    pub const CORE: usize = 4;
    pub const RSS: usize = 5;
    pub const NPROC: usize = 6;
    pub const NOFILE: usize = 7;
    pub const MEMLOCK: usize = 8;
    pub const AS: usize = 9;
    pub const LOCKS: usize = 10;
    pub const SIGPENDING: usize = 11;
    pub const MSGQUEUE: usize = 12;
    pub const NICE: usize = 13;
    pub const RTPRIO: usize = 14;
    pub const RTTIME: usize = 15;
    /// RLIM_INFINITY.
    pub const INFINITY: u64 = u64::MAX;
}
