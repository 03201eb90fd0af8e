//! Tasks: guest threads, and the thread groups, process groups and sessions they form.
//!
//! `run` is a task's life on its host thread, `dispatch` answers its system calls and waits for
//! them, `exit` ends it, `boot` starts the first program and ends the VM, `table` knows who exists.
//!
//! How a task is made to notice something: change the state, *then* call [`Task::notify`]. The task
//! looks at what is pending before it enters the guest and before it sleeps.

pub mod boot;
pub mod clone;
pub mod dispatch;
pub mod exec;
pub mod exit;
pub mod family;
pub mod pidfd;
pub mod process;
pub mod run;
pub mod serve;
pub mod status;
pub mod table;
pub mod trap;
pub mod wait;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
        },
    },
    time::Duration,
};

use self::{process::Process, status::Usage};
use crate::{
    creds::Creds,
    fs::{context::FsContext, fdtable::FdTable},
    kernel::Kernel,
    mm::Mm,
    platform::{Answers, Kick},
    signal::TaskSignals,
    time::virtual_time::STEP,
    wait::{Parker, WaitQueue},
};

/// A thread id; a process is named by its leader's.
pub type Tid = i32;

/// What a task is doing, as `/proc/PID/stat` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RunState {
    /// R: in guest code or in a handler.
    Running = b'R',
    /// S: waiting, signals wake it.
    Sleeping = b'S',
    /// D: waiting, only its end wakes it.
    Uninterruptible = b'D',
    /// T: stopped.
    Stopped = b'T',
    /// Z: ended.
    Ended = b'Z',
}

/// Released when a vfork child execs or ends.
#[derive(Default)]
pub struct VforkDone {
    done: AtomicBool,
    /// Woken when it is released.
    pub queue: Arc<WaitQueue>,
}

impl VforkDone {
    /// Lets the parent go on.
    pub fn release(&self) {
        self.done.store(true, Ordering::Release);
        self.queue.wake();
    }
    /// The parent may go on.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// One guest thread.
pub struct Task {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// gettid(2).
    pub tid: Tid,
    /// Its thread group.
    pub process: Arc<Process>,
    /// `CLOCK_BOOTTIME` when it was created.
    pub started: Duration,
    /// Where its host thread sleeps in the kernel.
    pub parker: Arc<Parker>,
    /// Interrupts its CPU once it has one.
    pub kicker: Mutex<Option<Arc<dyn Kick>>>,
    /// Where its CPU finds answers it may know beforehand.
    pub(crate) answers: Mutex<Option<Arc<dyn Answers>>>,
    /// A call that a ring server has begun.
    pub(crate) begun: serve::Begun,
    /// Mask, thread-directed signals, alternate stack.
    pub signals: TaskSignals,
    /// set_tid_address(2), CLONE_CHILD_CLEARTID: cleared and woken at the end; 0 for none.
    pub clear_child_tid: AtomicU64,
    /// set_robust_list(2): the list's head; 0 for none.
    pub robust_list: AtomicU64,
    /// PR_SET_PDEATHSIG; 0 for none.
    pub pdeath_signal: AtomicU8,
    /// PR_SET_TIMERSLACK, nanoseconds.
    pub timer_slack: AtomicU64,
    /// setpriority(2).
    pub nice: AtomicI32,
    /// ioprio_set(2), which is only shown.
    pub io_priority: AtomicU16,
    /// sched_setscheduler(2): policy with its flag, and real-time priority.
    pub policy: AtomicU32,
    /// Real-time priority.
    pub priority: AtomicI32,
    affinity: Mutex<Option<Vec<u8>>>,
    /// What SEM_UNDO owes to semaphores, once anything is owed (CLONE_SYSVSEM shares it).
    pub sem_undo: Mutex<Option<Arc<crate::ipc::sem::UndoList>>>,
    /// A vfork parent to be released.
    pub(crate) vfork_done: Mutex<Option<Arc<VforkDone>>>,
    /// In `Cpu::run`, or about to be: a kick is needed to reach it.
    in_guest: AtomicBool,
    /// This thread alone must end (exit(2) elsewhere in the group's execve).
    dying: AtomicBool,
    state: AtomicU8,
    /// What exit(2) said.
    exit_code: AtomicU8,
    comm: Mutex<[u8; 16]>,
    usage: Mutex<Usage>,
    /// CPU time its host thread had used before: user, system.
    used_before: OnceLock<(Duration, Duration)>,
    /// Nanoseconds in guest code that the host bills to another thread than ours.
    billed_elsewhere: AtomicU64,
    mm: Mutex<Option<Arc<Mm>>>,
    files: Mutex<Arc<FdTable>>,
    fs: Mutex<Arc<FsContext>>,
    creds: Mutex<Arc<Creds>>,
}

/// What a new task starts with.
pub struct TaskParts {
    /// Memory.
    pub mm: Arc<Mm>,
    /// Descriptors.
    pub files: Arc<FdTable>,
    /// What paths are relative to.
    pub fs: Arc<FsContext>,
    /// Credentials.
    pub creds: Arc<Creds>,
    /// Signal state.
    pub signals: TaskSignals,
    /// Name.
    pub comm: [u8; 16],
}

fn current<T>(slot: &Mutex<Arc<T>>) -> Arc<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
fn replace<T>(slot: &Mutex<Arc<T>>, value: Arc<T>) -> Arc<T> {
    std::mem::replace(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner), value)
}

impl Task {
    /// A task outside the table.
    pub(crate) fn new(process: &Arc<Process>, tid: Tid, parts: TaskParts) -> Arc<Task> {
        let kernel = process.kernel.clone();
        let parker = kernel.virtual_time.clone().map_or_else(Parker::new, Parker::counted);
        Arc::new(Task {
            started: kernel.host.boottime(),
            kernel,
            tid,
            process: process.clone(),
            parker,
            kicker: Mutex::default(),
            answers: Mutex::default(),
            begun: serve::Begun::default(),
            signals: parts.signals,
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            pdeath_signal: AtomicU8::new(0),
            timer_slack: AtomicU64::new(50_000),
            nice: AtomicI32::new(0),
            io_priority: AtomicU16::new(0),
            policy: AtomicU32::new(0),
            priority: AtomicI32::new(0),
            affinity: Mutex::default(),
            sem_undo: Mutex::default(),
            vfork_done: Mutex::default(),
            in_guest: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            state: AtomicU8::new(RunState::Running as u8),
            exit_code: AtomicU8::new(0),
            comm: Mutex::new(parts.comm),
            usage: Mutex::default(),
            used_before: OnceLock::new(),
            billed_elsewhere: AtomicU64::new(0),
            mm: Mutex::new(Some(parts.mm)),
            files: Mutex::new(parts.files),
            fs: Mutex::new(parts.fs),
            creds: Mutex::new(parts.creds),
        })
    }
    /// The calling task's own memory; execve replaces it.
    ///
    /// # Panics
    /// After the task has ended (our bug): to look at another task, use [`Task::try_mm`].
    #[must_use]
    pub fn mm(&self) -> Arc<Mm> {
        self.try_mm().expect("a running task has memory")
    }
    /// Its memory unless it has ended.
    #[must_use]
    pub fn try_mm(&self) -> Option<Arc<Mm>> {
        self.mm.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Replaces its memory; the old one is to be dropped by the caller.
    pub(crate) fn set_mm(&self, mm: Option<Arc<Mm>>) -> Option<Arc<Mm>> {
        std::mem::replace(&mut *self.mm.lock().unwrap_or_else(PoisonError::into_inner), mm)
    }
    /// Its descriptors; unshare and execve replace them. Empty once it has ended.
    #[must_use]
    pub fn files(&self) -> Arc<FdTable> {
        current(&self.files)
    }
    /// Replaces its descriptors; the old ones.
    pub(crate) fn set_files(&self, files: Arc<FdTable>) -> Arc<FdTable> {
        replace(&self.files, files)
    }
    /// What its paths are relative to.
    #[must_use]
    pub fn fs(&self) -> Arc<FsContext> {
        current(&self.fs)
    }
    /// Replaces what its paths are relative to (unshare).
    pub(crate) fn set_fs(&self, fs: Arc<FsContext>) -> Arc<FsContext> {
        replace(&self.fs, fs)
    }
    /// Its credentials.
    #[must_use]
    pub fn creds(&self) -> Arc<Creds> {
        current(&self.creds)
    }
    /// Replaces its credentials.
    pub fn set_creds(&self, creds: Creds) {
        replace(&self.creds, Arc::new(creds));
        self.publish();
    }
    /// Has `cpu`, which is in its space, answer calls in a ring.
    pub(crate) fn attach(self: &Arc<Self>, cpu: &mut dyn crate::platform::Cpu) {
        cpu.serve_with(Arc::new(serve::Server(self.clone())));
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = cpu.answers();
    }
    /// Tells its CPU the answers that change only by what the kernel does.
    pub(crate) fn publish(&self) {
        let Some(answers) = self.open_answers() else { return };
        for (number, value) in crate::linux::table::known(self) {
            answers.set(number, Some(value));
        }
        // Under the tree's lock, so that no older parent is told after a newer one.
        let tree = self.kernel.tasks.tree();
        if let Some(node) = tree.nodes.get(&self.process.pid) {
            self.publish_parent(node.parent);
        }
    }
    /// Where its CPU finds answers, unless every call must come to the kernel: to be seen by a tracer, to
    /// move virtual time.
    fn open_answers(&self) -> Option<Arc<dyn Answers>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kernel = &self.kernel;
        answers.filter(|_| kernel.tracer.get().is_none() && kernel.virtual_time.is_none())
    }
    /// Tells its CPU who the parent is; the tree is locked.
    fn publish_parent(&self, parent: Tid) {
        if let Some(answers) = self.open_answers() {
            let parent = u64::from(parent.cast_unsigned());
            answers.set(crate::linux::table::GETPPID, Some(parent));
        }
    }
    /// Its name (`/proc/PID/comm`), up to 15 bytes, NUL-padded.
    #[must_use]
    pub fn comm(&self) -> [u8; 16] {
        *self.comm.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Its name without the padding.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.comm().iter().copied().take_while(|b| *b != 0).collect()
    }
    /// Sets its name, cut to 15 bytes and at the first NUL.
    pub fn set_name(&self, name: &[u8]) {
        *self.comm.lock().unwrap_or_else(PoisonError::into_inner) = comm_from(name);
    }
    /// It leads its process.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.tid == self.process.pid
    }
    /// What it is doing.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        match self.state.load(Ordering::Relaxed) {
            b'S' => RunState::Sleeping,
            b'D' => RunState::Uninterruptible,
            b'T' => RunState::Stopped,
            b'Z' => RunState::Ended,
            _ => RunState::Running,
        }
    }
    fn set_run_state(&self, state: RunState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }
    /// sched_setaffinity(2)'s mask, if it was set.
    #[must_use]
    pub fn affinity(&self) -> Option<Vec<u8>> {
        self.affinity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Keeps an affinity mask.
    pub fn set_affinity(&self, mask: Vec<u8>) {
        *self.affinity.lock().unwrap_or_else(PoisonError::into_inner) = Some(mask);
    }
    /// What a child takes over of scheduling: nice value, policy (unless it is to be reset), mask.
    pub(crate) fn inherit_scheduling(&self, from: &Task) {
        /// SCHED_RESET_ON_FORK.
        const RESET: u32 = 0x4000_0000;
        self.nice.store(from.nice.load(Ordering::Relaxed), Ordering::Relaxed);
        let io = from.io_priority.load(Ordering::Relaxed);
        self.io_priority.store(io, Ordering::Relaxed);
        let policy = from.policy.load(Ordering::Relaxed);
        if policy & RESET == 0 {
            self.policy.store(policy, Ordering::Relaxed);
            self.priority.store(from.priority.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if let Some(mask) = from.affinity() {
            self.set_affinity(mask);
        }
    }
    /// CPU time and counters as last published: exact for the calling task, for others as of their
    /// last wait.
    #[must_use]
    pub fn usage(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Publishes the calling task's CPU time.
    pub fn update_usage(&self) {
        let (user, system) = self.kernel.host.thread_cpu_time();
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let elsewhere = Duration::from_nanos(self.billed_elsewhere.load(Ordering::Relaxed));
        let before = self.used_before.get().copied().unwrap_or_default();
        usage.user = user.saturating_sub(before.0) + elsewhere;
        usage.system = system.saturating_sub(before.1);
    }
    /// One of its system calls begins: virtual time goes on, for the task as well.
    pub(crate) fn step(&self) {
        if let Some(time) = &self.kernel.virtual_time {
            let nanos = u64::try_from(STEP.as_nanos()).unwrap_or_default();
            self.billed_elsewhere.fetch_add(nanos, Ordering::Relaxed);
            self.update_usage();
            time.step();
        }
    }
    /// The calling host thread is its own from now on; it may have served others before.
    pub(crate) fn begin_usage(&self) {
        let _ = self.used_before.set(self.kernel.host.thread_cpu_time());
    }
    /// Counts in its resource usage.
    pub fn count_usage(&self, body: impl FnOnce(&mut Usage)) {
        body(&mut self.usage.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes the task look at what is pending, wherever it is. The state must have been changed
    /// before.
    pub fn notify(&self) {
        crate::wait::Wake::wake(&*self.parker);
        // Pairs with the fence in `run`: either the task's last look before the guest sees what is
        // pending, or this sees that the task needs a kick.
        fence(Ordering::SeqCst);
        if self.in_guest.load(Ordering::Relaxed)
            && !serve::is_serving(self)
            && let Some(kicker) = self.kicker()
        {
            kicker.kick();
        }
    }
    fn kicker(&self) -> Option<Arc<dyn Kick>> {
        self.kicker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// The task is to end, alone or with its process.
    #[must_use]
    pub fn must_exit(&self) -> bool {
        self.dying.load(Ordering::Acquire) || self.process.is_exiting()
    }
    /// The code this thread ends with (exit(2)); the handler then answers `Stop::Exit`.
    pub fn set_exit_code(&self, code: u8) {
        self.exit_code.store(code, Ordering::Relaxed);
    }
    /// Ends this thread alone.
    pub(crate) fn kill_thread(&self) {
        self.dying.store(true, Ordering::Release);
        self.notify();
    }
    /// Something must be dealt with before the guest runs again or a wait goes on.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.must_exit() || self.signals.temporary() || crate::signal::pending(self)
    }
}

/// A task name from the last component of a path or a guest string.
#[must_use]
pub fn comm_from(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    for (to, from) in comm[..15].iter_mut().zip(name.iter().take_while(|b| **b != 0)) {
        *to = *from;
    }
    comm
}
