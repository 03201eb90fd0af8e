//! Processes: thread groups with what their threads share.
//!
//! Who is whose child, thread, group or session lies in [`super::table`]; here is the process's own
//! state. Lock order: the table's tree, then a process's `state`, then signal locks.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
};
use std::time::Duration;

use super::{
    Task, Tid,
    status::{ExitStatus, Usage},
    table::Ids,
};
use crate::{kernel::Kernel, signal::SharedSignals, wait::WaitQueue};

/// What the threads of a process share and change together.
#[derive(Default)]
pub(super) struct State {
    /// The process is ending with this status; every thread must go.
    pub(super) exit: Option<ExitStatus>,
    /// How it ended, once its last thread has.
    pub(super) ended: Option<ExitStatus>,
    /// Used by threads that have ended.
    pub(super) dead_threads: Usage,
    /// Used by children that were waited for.
    pub(super) children: Usage,
    /// Credentials and name of the last thread that ended, which a zombie keeps.
    pub(super) last: Option<(Arc<crate::creds::Creds>, Vec<u8>)>,
}

/// A thread group.
pub struct Process {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// getpid(2): the leader's thread id.
    pub pid: Tid,
    /// `CLOCK_BOOTTIME` when it was forked.
    pub started: Duration,
    /// Woken when a child changes state (wait4).
    pub child_events: Arc<WaitQueue>,
    /// Woken when the process becomes a zombie (pidfds).
    pub exit_events: Arc<WaitQueue>,
    /// Woken when a thread ends or a stop is lifted.
    pub thread_events: Arc<WaitQueue>,
    /// Dispositions and process-directed signals.
    pub signals: SharedSignals,
    /// Interval timers, POSIX timers, CPU limit.
    pub timers: crate::time::itimer::ProcessTimers,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: AtomicBool,
    /// PR_SET_DUMPABLE.
    pub dumpable: AtomicU32,
    /// personality(2).
    pub personality: AtomicU32,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: AtomicI32,
    /// What the unprivileged cannot set it below.
    pub oom_score_adj_min: AtomicI32,
    /// `/proc/PID/coredump_filter`.
    pub coredump_filter: AtomicU32,
    /// Resource limits by RLIMIT_* number: soft, hard.
    limits: Mutex<[(u64, u64); 16]>,
    pub(super) state: Mutex<State>,
    /// Live threads, oldest first.
    threads: Mutex<Vec<Arc<Task>>>,
    exiting: AtomicBool,
}

impl Process {
    /// A process outside the table.
    pub(super) fn new(
        kernel: &Arc<Kernel>,
        pid: Tid,
        signals: SharedSignals,
        limits: [(u64, u64); 16],
    ) -> Arc<Process> {
        Arc::new(Process {
            kernel: kernel.clone(),
            pid,
            started: kernel.host.boottime(),
            child_events: WaitQueue::new(),
            exit_events: WaitQueue::new(),
            thread_events: WaitQueue::new(),
            signals,
            timers: Default::default(),
            subreaper: AtomicBool::new(false),
            dumpable: AtomicU32::new(1),
            personality: AtomicU32::new(0),
            oom_score_adj: AtomicI32::new(0),
            oom_score_adj_min: AtomicI32::new(0),
            coredump_filter: AtomicU32::new(0x33),
            limits: Mutex::new(limits),
            state: Mutex::default(),
            threads: Mutex::default(),
            exiting: AtomicBool::new(false),
        })
    }
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The soft limit of `resource` (RLIMIT_*).
    #[must_use]
    pub fn limit(&self, resource: usize) -> u64 {
        self.limits()[resource].0
    }
    /// All limits: soft, hard.
    #[must_use]
    pub fn limits(&self) -> [(u64, u64); 16] {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Sets the soft and hard limit of `resource`.
    pub fn set_limit(&self, resource: usize, soft: u64, hard: u64) {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)[resource] = (soft, hard);
    }
    /// exit_group has begun.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.exiting.load(Ordering::Acquire)
    }
    /// Live threads, oldest first.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(super) fn push_thread(&self, task: &Arc<Task>) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(task.clone());
    }
    /// Removes a thread that has ended; how many are left.
    pub(super) fn drop_thread(&self, task: &Arc<Task>) -> usize {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|t| !Arc::ptr_eq(t, task));
        threads.len()
    }
    /// The leader while it lives, else the oldest live thread.
    #[must_use]
    pub fn any_thread(&self) -> Option<Arc<Task>> {
        let threads = self.tasks();
        threads.iter().find(|t| t.tid == self.pid).or(threads.first()).cloned()
    }
    /// The process that gets its SIGCHLD; one of the phantoms for the first program and orphans.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Process>> {
        self.kernel.tasks.parent(self.pid)
    }
    /// Process group.
    #[must_use]
    pub fn pgid(&self) -> Tid {
        self.ids().pgid
    }
    /// Session.
    #[must_use]
    pub fn sid(&self) -> Tid {
        self.ids().sid
    }
    /// CPU time of all its threads, ended ones included: user, system.
    #[must_use]
    pub fn cpu_time(&self) -> (Duration, Duration) {
        let usage = self.usage();
        (usage.user, usage.system)
    }
    /// It is a zombie or was reaped.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.kernel.tasks.tree().nodes.get(&self.pid).is_none_or(|n| n.zombie.is_some())
    }
    /// It is no more than somebody's handle.
    #[must_use]
    pub fn is_reaped(&self) -> bool {
        let tree = self.kernel.tasks.tree();
        tree.nodes.get(&self.pid).is_none_or(|n| !std::ptr::eq(&raw const *n.process, self))
    }
    /// Real user id, of a zombie its last thread's.
    #[must_use]
    pub fn uid(&self) -> u32 {
        let last = self.last_creds().map_or(0, |creds| creds.uid);
        self.any_thread().map_or(last, |t| t.creds().uid)
    }
    /// Credentials of the last thread that ended.
    #[must_use]
    pub fn last_creds(&self) -> Option<Arc<crate::creds::Creds>> {
        self.state().last.as_ref().map(|last| last.0.clone())
    }
    /// Name of the last thread that ended; of the phantoms, what they stand for.
    #[must_use]
    pub fn last_name(&self) -> Vec<u8> {
        let last = self.state().last.as_ref().map(|last| last.1.clone());
        let phantom: &[u8] = if self.pid == super::table::INIT { b"init" } else { b"trapgate" };
        last.unwrap_or_else(|| phantom.to_vec())
    }
    /// Parent, group and session; zeros once it was reaped.
    #[must_use]
    pub fn ids(&self) -> Ids {
        self.kernel.tasks.ids(self.pid).unwrap_or(Ids { ppid: 0, pgid: 0, sid: 0 })
    }
    /// How it ended, once its last thread has.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.state().ended
    }
    /// Ends the process: the first status given stands. Every thread leaves at its next look.
    pub fn begin_exit(&self, status: ExitStatus) {
        {
            let mut state = self.state();
            if state.exit.is_some() {
                return;
            }
            state.exit = Some(status);
            self.exiting.store(true, Ordering::Release);
        }
        self.notify_threads();
    }
    /// Makes every thread look at what is pending.
    pub fn notify_threads(&self) {
        for task in self.tasks() {
            task.notify();
        }
    }
    /// CPU time and counters of all threads, dead ones included.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut sum = self.state().dead_threads;
        for task in self.tasks() {
            sum.add(&task.usage());
        }
        sum
    }
    /// As [`Process::usage`], of the children waited for.
    #[must_use]
    pub fn children_usage(&self) -> Usage {
        self.state().children
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

    /// What the first program starts with: a distribution's usual values.
    #[must_use]
    pub fn defaults() -> [(u64, u64); 16] {
        let mut limits = [(INFINITY, INFINITY); 16];
        limits[STACK] = (8 << 20, INFINITY);
        limits[CORE] = (0, INFINITY);
        limits[NPROC] = (31_000, 31_000);
        limits[NOFILE] = (1024, 1 << 20);
        limits[MEMLOCK] = (8 << 20, 8 << 20);
        limits[SIGPENDING] = (31_000, 31_000);
        limits[MSGQUEUE] = (819_200, 819_200);
        limits[NICE] = (0, 0);
        limits[RTPRIO] = (0, 0);
        limits
    }
}
