//! All tasks of a VM: ids, families, process groups and sessions.
//!
//! One lock (`tree`, Linux's tasklist lock) guards who exists and who belongs to whom; what a
//! process *is* lies in [`Process`] and [`Task`] behind their own locks, which may be taken while
//! the tree's is held, never the other way round. Sending a signal takes process and task locks
//! only, so that a child's end and its SIGCHLD are one event.
//!
//! Two processes are the kernel's own and have no thread: [`INIT`] adopts and reaps orphans, and
//! [`SUPERVISOR`] is the parent and session leader of the first program.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Task, Tid, process::Process, status::ExitStatus};
use crate::{error::Errno, signal::Signal};

/// The phantom that adopts orphans.
pub const INIT: Tid = 1;
/// The phantom that is the first program's parent.
pub const SUPERVISOR: Tid = 2;
/// `/proc/sys/kernel/pid_max`.
pub const PID_MAX: Tid = 4_194_304;
/// Where ids start again after [`PID_MAX`] (Linux's `RESERVED_PIDS`).
const PID_WRAP: Tid = 300;

/// A terminal that may control a session (tty(4)).
pub trait Terminal: Send + Sync {
    /// Its device number, as stat(2) shows it.
    fn device(&self) -> u64;
    /// Its foreground process group.
    fn foreground(&self) -> Option<Tid>;
    /// The session leader ended: hang up (SIGHUP and SIGCONT to the foreground group are sent by
    /// the caller) and forget the session.
    fn disconnect(&self);
    /// What opening `/dev/tty` opens.
    fn file(&self) -> Arc<dyn crate::fs::file::FileOps>;
}

/// Who a process is related to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ids {
    /// Parent.
    pub ppid: Tid,
    /// Process group.
    pub pgid: Tid,
    /// Session.
    pub sid: Tid,
}

/// A process's place in the tree.
pub(super) struct Node {
    pub(super) process: Arc<Process>,
    pub(super) parent: Tid,
    pub(super) children: BTreeSet<Tid>,
    pub(super) pgid: Tid,
    pub(super) sid: Tid,
    /// Sent to the parent at the end; 0 sends nothing.
    pub(super) exit_signal: Signal,
    /// Set once the last thread has ended: a zombie.
    pub(super) zombie: Option<ExitStatus>,
    /// What the leader's own exit said, should it end before the others.
    pub(super) leader_status: Option<ExitStatus>,
    /// Has called execve since it was forked (setpgid refuses).
    pub(super) execed: bool,
}

#[derive(Default)]
pub(super) struct Tree {
    pub(super) tasks: BTreeMap<Tid, Arc<Task>>,
    pub(super) nodes: BTreeMap<Tid, Node>,
    pub(super) terminals: BTreeMap<Tid, Arc<dyn Terminal>>,
    /// Ids handed out to tasks that are not in the table yet.
    reserved: BTreeSet<Tid>,
    last: Tid,
    /// No new task may start: the VM is ending.
    pub(super) closed: bool,
}

impl Tree {
    fn in_use(&self, id: Tid) -> bool {
        self.tasks.contains_key(&id)
            || self.nodes.contains_key(&id)
            || self.reserved.contains(&id)
            || self.nodes.values().any(|n| n.pgid == id || n.sid == id)
    }
    /// Processes of a group.
    pub(super) fn group(&self, pgid: Tid) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |n| n.pgid == pgid && !n.is_phantom())
    }
}

impl Node {
    pub(super) fn is_phantom(&self) -> bool {
        self.process.pid <= SUPERVISOR
    }
}

/// The pid table.
#[derive(Default)]
pub struct TaskTable {
    tree: Mutex<Tree>,
    /// Signalled when a host thread of a task has ended.
    ended: Condvar,
    /// Host threads that run tasks.
    threads: AtomicU64,
    /// Tasks ever started (`/proc/stat` processes).
    started: AtomicU64,
}

impl TaskTable {
    pub(super) fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Reserves the next id. Ids go up and wrap, so one is not reused soon.
    ///
    /// # Errors
    /// EAGAIN when all are in use or the VM is ending.
    pub(super) fn reserve(&self) -> Result<Tid, Errno> {
        let mut tree = self.tree();
        if tree.closed {
            return Err(Errno::EAGAIN);
        }
        let mut id = tree.last.max(SUPERVISOR);
        for _ in 0..PID_MAX {
            id = if id + 1 >= PID_MAX { PID_WRAP } else { id + 1 };
            if !tree.in_use(id) {
                tree.last = id;
                tree.reserved.insert(id);
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }
    pub(super) fn unreserve(&self, id: Tid) {
        self.tree().reserved.remove(&id);
    }
    /// Puts a process without threads in the table, as `parent`'s child in its group and session.
    pub(super) fn adopt_process(
        tree: &mut Tree,
        process: &Arc<Process>,
        parent: Tid,
        exit_signal: Signal,
    ) {
        let pid = process.pid;
        let (pgid, sid) = match tree.nodes.get_mut(&parent) {
            Some(node) => {
                node.children.insert(pid);
                (node.pgid, node.sid)
            }
            None => (pid, pid),
        };
        tree.nodes.insert(
            pid,
            Node {
                process: process.clone(),
                parent,
                children: BTreeSet::new(),
                pgid,
                sid,
                exit_signal,
                zombie: None,
                leader_status: None,
                execed: false,
            },
        );
    }
    /// Adds a live thread to its process.
    pub(super) fn adopt_task(tree: &mut Tree, task: &Arc<Task>) {
        tree.reserved.remove(&task.tid);
        tree.tasks.insert(task.tid, task.clone());
        task.process.push_thread(task);
    }
    /// Removes a reaped process.
    pub(super) fn remove(tree: &mut Tree, pid: Tid) {
        if let Some(node) = tree.nodes.remove(&pid)
            && let Some(parent) = tree.nodes.get_mut(&node.parent)
        {
            parent.children.remove(&pid);
        }
    }

    /// The live thread `tid`.
    #[must_use]
    pub fn task(&self, tid: Tid) -> Option<Arc<Task>> {
        self.tree().tasks.get(&tid).cloned()
    }
    /// True for [`INIT`] and [`SUPERVISOR`], which exist and have no thread.
    #[must_use]
    pub fn is_phantom(tid: Tid) -> bool {
        (INIT..=SUPERVISOR).contains(&tid)
    }
    /// The process `pid`, zombies and the phantoms included.
    #[must_use]
    pub fn process(&self, pid: Tid) -> Option<Arc<Process>> {
        self.tree().nodes.get(&pid).map(|n| n.process.clone())
    }
    /// The process that `id`, a pid or a live tid, belongs to.
    #[must_use]
    pub fn process_of(&self, id: Tid) -> Option<Arc<Process>> {
        let tree = self.tree();
        let found = tree.nodes.get(&id).map(|n| &n.process);
        found.or_else(|| tree.tasks.get(&id).map(|t| &t.process)).cloned()
    }
    /// All processes by pid, zombies included, the phantoms not.
    #[must_use]
    pub fn processes(&self) -> Vec<Arc<Process>> {
        let tree = self.tree();
        tree.nodes.values().filter(|n| !n.is_phantom()).map(|n| n.process.clone()).collect()
    }
    /// All processes by pid, zombies and the phantoms included.
    #[must_use]
    pub fn everyone(&self) -> Vec<Arc<Process>> {
        self.tree().nodes.values().map(|n| n.process.clone()).collect()
    }
    /// Live threads of `pid`, oldest first.
    #[must_use]
    pub fn threads(&self, pid: Tid) -> Vec<Arc<Task>> {
        self.process(pid).map(|p| p.tasks()).unwrap_or_default()
    }
    /// Processes of the group `pgid`, zombies included.
    #[must_use]
    pub fn group(&self, pgid: Tid) -> Vec<Arc<Process>> {
        self.tree().group(pgid).map(|n| n.process.clone()).collect()
    }
    /// The parent of `pid`.
    #[must_use]
    pub fn parent(&self, pid: Tid) -> Option<Arc<Process>> {
        let tree = self.tree();
        let parent = tree.nodes.get(&pid)?.parent;
        tree.nodes.get(&parent).map(|n| n.process.clone())
    }
    /// Children of `pid`, zombies included.
    #[must_use]
    pub fn children(&self, pid: Tid) -> Vec<Tid> {
        let tree = self.tree();
        tree.nodes.get(&pid).map(|n| n.children.iter().copied().collect()).unwrap_or_default()
    }
    /// Whom `pid` is related to.
    #[must_use]
    pub fn ids(&self, pid: Tid) -> Option<Ids> {
        let tree = self.tree();
        tree.nodes.get(&pid).map(|n| Ids { ppid: n.parent, pgid: n.pgid, sid: n.sid })
    }
    /// How `pid` ended, while it is a zombie.
    #[must_use]
    pub fn zombie(&self, pid: Tid) -> Option<ExitStatus> {
        self.tree().nodes.get(&pid).and_then(|n| n.zombie)
    }
    /// The terminal that controls the session `sid`.
    #[must_use]
    pub fn terminal(&self, sid: Tid) -> Option<Arc<dyn Terminal>> {
        self.tree().terminals.get(&sid).cloned()
    }
    /// Gives the session `sid` a controlling terminal or takes it away.
    pub fn set_terminal(&self, sid: Tid, terminal: Option<Arc<dyn Terminal>>) {
        let mut tree = self.tree();
        match terminal {
            Some(terminal) => tree.terminals.insert(sid, terminal),
            None => tree.terminals.remove(&sid),
        };
    }
    /// Whether a process group is orphaned (POSIX.1-2017, 3.263): no member has a parent in another
    /// group of the same session. The phantom supervisor runs no job control and does not count.
    #[must_use]
    pub fn is_orphaned(&self, pgid: Tid) -> bool {
        Self::orphaned(&self.tree(), pgid, None)
    }
    /// As [`TaskTable::is_orphaned`], as if `ignoring` had ended.
    pub(super) fn orphaned(tree: &Tree, pgid: Tid, ignoring: Option<Tid>) -> bool {
        !tree.group(pgid).any(|n| {
            if n.zombie.is_some() || Some(n.process.pid) == ignoring {
                return false;
            }
            let parent = tree.nodes.get(&n.parent);
            parent.is_some_and(|p| !p.is_phantom() && p.pgid != pgid && p.sid == n.sid)
        })
    }

    /// A task's host thread begins.
    pub(super) fn thread_started(&self) {
        self.threads.fetch_add(1, Ordering::AcqRel);
        self.started.fetch_add(1, Ordering::Relaxed);
    }
    /// A task's host thread is about to end; nothing of the guest's is used any more.
    pub(super) fn thread_ended(&self) {
        // Under the lock so that a waiter cannot miss it between its check and its sleep.
        let _tree = self.tree();
        self.threads.fetch_sub(1, Ordering::AcqRel);
        self.ended.notify_all();
    }
    /// Wakes [`TaskTable::wait_until`].
    pub(super) fn announce(&self) {
        self.ended.notify_all();
    }
    /// Sleeps until `check` holds; false if `timeout` passed first. For the VM's owner only: tasks
    /// wait on queues.
    pub(super) fn wait_until(
        &self,
        timeout: Option<Duration>,
        mut check: impl FnMut(&Tree) -> bool,
    ) -> bool {
        let tree = self.tree();
        match timeout {
            None => {
                let done = self.ended.wait_while(tree, |t| !check(t));
                drop(done.unwrap_or_else(PoisonError::into_inner));
                true
            }
            Some(timeout) => {
                let done = self.ended.wait_timeout_while(tree, timeout, |t| !check(t));
                !done.unwrap_or_else(PoisonError::into_inner).1.timed_out()
            }
        }
    }
    /// Live tasks.
    #[must_use]
    pub fn live(&self) -> usize {
        self.tree().tasks.len()
    }
    /// Ended processes nobody has waited for.
    #[must_use]
    pub fn zombies(&self) -> usize {
        self.tree().nodes.values().filter(|n| n.zombie.is_some()).count()
    }
    /// Host threads that run tasks.
    #[must_use]
    pub fn host_threads(&self) -> u64 {
        self.threads.load(Ordering::Acquire)
    }
    /// Tasks ever started.
    #[must_use]
    pub fn ever_started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }
    /// The id handed out last (`/proc/loadavg`).
    #[must_use]
    pub fn last_id(&self) -> Tid {
        self.tree().last
    }
}
