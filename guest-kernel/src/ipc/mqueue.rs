//! POSIX message queues (mq_overview(7)): named, with priorities, each open one a descriptor.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::{Charge, Perm};
use crate::{
    creds::{Creds, cap},
    error::Errno,
    fs::{
        buf::Sink,
        file::{FileOps, OpenFile, Ready, seek_in},
        inode::{Attr, mode},
    },
    signal::{SigFields, SigInfo, Signal},
    task::process::Process,
    wait::WaitQueue,
};

/// Priorities are below this (MQ_PRIO_MAX).
pub const MAX_PRIORITY: u32 = 32768;
/// Most queues without CAP_SYS_RESOURCE (`fs.mqueue.queues_max`).
const MAX_QUEUES: usize = 256;
/// What mq_open without attributes gets, and the most the unprivileged may ask for.
pub const DEFAULT: Size = Size { messages: 10, bytes: 8192 };
/// The most anyone may ask for (HARD_MSGMAX, HARD_MSGSIZEMAX).
const HARD: Size = Size { messages: 65536, bytes: 16 << 20 };
/// What a queue's file seems to hold (FILENT_SIZE).
const FILE_SIZE: u64 = 80;
/// What Linux counts for a message beyond its bytes (`struct msg_msg` and a tree node).
const OVERHEAD: u64 = 96;

/// mq_maxmsg and mq_msgsize.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "mq_getattr(3) names them")]
pub struct Size {
    pub messages: usize,
    pub bytes: usize,
}

impl Size {
    /// As Linux charges it to RLIMIT_MSGQUEUE.
    fn charge(self) -> u64 {
        self.messages as u64 * (self.bytes as u64 + OVERHEAD)
    }
}

/// Whom mq_notify(2) registered.
#[derive(Clone)]
pub struct Notify {
    /// The process.
    pub process: Weak<Process>,
    /// The signal; `None` for SIGEV_NONE.
    pub signal: Option<Signal>,
    /// si_value.
    pub value: u64,
}

/// A message.
pub struct Message {
    /// Its text.
    pub text: Vec<u8>,
    /// What it takes of the VM's budget.
    pub charge: Charge,
}

#[derive(Default)]
struct State {
    /// By priority.
    messages: BTreeMap<u32, VecDeque<Message>>,
    count: usize,
    bytes: usize,
    /// Calls that wait for a message: they come before a notification.
    receivers: usize,
    notify: Option<Notify>,
    times: [Duration; 2],
}

/// A queue.
pub struct MsgQueue {
    id: u64,
    size: Size,
    perm: Perm,
    state: Mutex<State>,
    /// Woken on every change.
    pub queue: Arc<WaitQueue>,
    users: Users,
}

type Users = Arc<Mutex<HashMap<u32, u64>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queues that have a name.
#[derive(Default)]
pub struct Names {
    map: Mutex<BTreeMap<Vec<u8>, Arc<MsgQueue>>>,
    users: Users,
}

/// What mq_open(2) asks for.
pub struct Request {
    /// Make it if there is none.
    pub create: bool,
    /// Fail if there is one.
    pub exclusive: bool,
    /// What the descriptor is for: 4 read, 2 write; `None` for the access mode that is neither.
    pub want: Option<u32>,
    /// Permission bits, the umask applied.
    pub mode: u32,
    /// Attributes, or the defaults.
    pub size: Option<Size>,
    /// RLIMIT_MSGQUEUE.
    pub limit: u64,
    /// A new queue's number.
    pub id: u64,
    /// `CLOCK_REALTIME`.
    pub now: Duration,
}

impl Names {
    /// mq_open(2).
    ///
    /// # Errors
    /// As mq_open(3).
    pub fn open(&self, name: &[u8], ask: &Request, creds: &Creds) -> Result<Arc<MsgQueue>, Errno> {
        let mut map = lock(&self.map);
        if let Some(queue) = map.get(name) {
            if ask.create && ask.exclusive {
                return Err(Errno::EEXIST);
            }
            let want = ask.want.ok_or(Errno::EINVAL)?;
            let allowed = creds.capable(cap::DAC_OVERRIDE) || queue.perm.permits(creds, want);
            return if allowed { Ok(queue.clone()) } else { Err(Errno::EACCES) };
        }
        if !ask.create {
            return Err(Errno::ENOENT);
        }
        let privileged = creds.capable(cap::SYS_RESOURCE);
        let most = if privileged { HARD } else { DEFAULT };
        let size = ask.size.unwrap_or(DEFAULT);
        let fits = |n: usize, most: usize| (1..=most).contains(&n);
        if !fits(size.messages, most.messages) || !fits(size.bytes, most.bytes) {
            return Err(Errno::EINVAL);
        }
        if map.len() >= MAX_QUEUES && !privileged {
            return Err(Errno::ENOSPC);
        }
        let perm = Perm::new(0, ask.mode, creds);
        {
            let mut users = lock(&self.users);
            let used = users.entry(perm.cuid).or_insert(0);
            if *used + size.charge() > ask.limit {
                return Err(Errno::EMFILE);
            }
            *used += size.charge();
        }
        let queue = Arc::new(MsgQueue {
            id: ask.id,
            size,
            perm,
            state: Mutex::new(State { times: [ask.now; 2], ..State::default() }),
            queue: WaitQueue::new(),
            users: self.users.clone(),
        });
        map.insert(name.to_vec(), queue.clone());
        Ok(queue)
    }
    /// Forgets every name (the VM ends).
    pub fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.map));
        drop(all);
    }
    /// mq_unlink(2).
    ///
    /// # Errors
    /// ENOENT, EPERM.
    pub fn unlink(&self, name: &[u8], creds: &Creds) -> Result<(), Errno> {
        let mut map = lock(&self.map);
        let queue = map.get(name).ok_or(Errno::ENOENT)?;
        // The directory is root's and sticky.
        if creds.fsuid != queue.perm.uid && creds.fsuid != 0 && !creds.capable(cap::FOWNER) {
            return Err(Errno::EPERM);
        }
        let gone = map.remove(name);
        drop(map);
        drop(gone);
        Ok(())
    }
}

/// The sender, as a notification names it.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Process.
    pub pid: i32,
    /// Real user.
    pub uid: u32,
}

impl MsgQueue {
    /// Its limits.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }
    /// Messages in it.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.state).count
    }
    /// The line that reading its file gives.
    fn text(&self) -> String {
        let state = lock(&self.state);
        let (mut signal, mut kind, mut pid) = (0, 0, 0);
        if let Some(notify) = &state.notify
            && let Some(process) = notify.process.upgrade()
        {
            pid = process.pid;
            (signal, kind) = notify.signal.map_or((0, 1), |signal| (signal, 0));
        }
        let bytes = state.bytes;
        format!("QSIZE:{bytes:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n")
    }
    /// Adds a message; the first in an empty queue that nobody waits on is told to whom asked.
    ///
    /// # Errors
    /// EAGAIN when full.
    pub fn send(&self, message: Message, priority: u32, by: Sender) -> Result<(), Errno> {
        let told = {
            let mut state = lock(&self.state);
            if state.count >= self.size.messages {
                return Err(Errno::EAGAIN);
            }
            let first = state.count == 0 && state.receivers == 0;
            state.count += 1;
            state.bytes += message.text.len();
            state.messages.entry(priority).or_default().push_back(message);
            if first { state.notify.take() } else { None }
        };
        self.queue.wake();
        if let Some(notify) = told
            && let (Some(process), Some(signal)) = (notify.process.upgrade(), notify.signal)
        {
            const SI_MESGQ: i32 = -3;
            let fields = SigFields::Queue { pid: by.pid, uid: by.uid, value: notify.value };
            process.send(SigInfo { signal, code: SI_MESGQ, errno: 0, fields });
        }
        Ok(())
    }
    /// Takes the oldest message of the highest priority.
    ///
    /// # Errors
    /// EAGAIN when empty.
    pub fn receive(&self) -> Result<(u32, Message), Errno> {
        let taken = {
            let mut state = lock(&self.state);
            let mut entry = state.messages.last_entry().ok_or(Errno::EAGAIN)?;
            let priority = *entry.key();
            let message = entry.get_mut().pop_front();
            if entry.get().is_empty() {
                entry.remove();
            }
            let message = message.ok_or(Errno::EAGAIN)?;
            state.count -= 1;
            state.bytes -= message.text.len();
            (priority, message)
        };
        self.queue.wake();
        Ok(taken)
    }
    /// Registers for the next message, or with `None` withdraws `own`'s registration.
    ///
    /// # Errors
    /// EBUSY if another living process, or this one, is registered.
    pub fn notify(&self, own: &Arc<Process>, new: Option<Notify>) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        let alive = |n: &Notify| n.process.upgrade().filter(|p| !p.is_exiting());
        let holder = state.notify.as_ref().and_then(alive);
        match new {
            Some(_) if holder.is_some() => return Err(Errno::EBUSY),
            Some(new) => state.notify = Some(new),
            None if holder.is_some_and(|p| Arc::ptr_eq(&p, own)) => state.notify = None,
            None => {}
        }
        Ok(())
    }
}

impl Drop for MsgQueue {
    fn drop(&mut self) {
        let mut users = lock(&self.users);
        if let Some(used) = users.get_mut(&self.perm.cuid) {
            *used = used.saturating_sub(self.size.charge());
            if *used == 0 {
                users.remove(&self.perm.cuid);
            }
        }
    }
}

/// A call that waits for a message.
pub struct Receiving(Arc<MsgQueue>);

impl Receiving {
    /// Counts a receiver.
    #[must_use]
    pub fn new(queue: &Arc<MsgQueue>) -> Receiving {
        lock(&queue.state).receivers += 1;
        Receiving(queue.clone())
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        lock(&self.0.state).receivers -= 1;
    }
}

/// A queue as a file.
pub struct MqFile {
    /// The queue.
    pub queue: Arc<MsgQueue>,
    /// What it was opened as.
    pub name: Vec<u8>,
}

impl FileOps for MqFile {
    fn moves(&self) -> (bool, bool) {
        (true, false)
    }
    fn read(&self, file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        file.with_position(|position| {
            let n = self.read_at(file, dst, *position)?;
            *position += n as u64;
            Ok(n)
        })
    }
    /// mq_overview(7): what the file of a queue says.
    fn read_at(&self, _file: &OpenFile, dst: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let text = self.queue.text();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        dst.put(&text.as_bytes()[from..])
    }
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        seek_in(file, offset, whence, || Ok(FILE_SIZE), |_, _| Err(Errno::EINVAL))
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        let count = self.queue.count();
        let mut ready = Ready::empty();
        if count > 0 {
            ready |= Ready::IN | Ready::RDNORM;
        }
        if count < self.queue.size.messages {
            ready |= Ready::OUT | Ready::WRNORM;
        }
        ready
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.queue.queue.clone())
    }
    fn attr(&self, _file: &OpenFile) -> Result<Attr, Errno> {
        let perm = &self.queue.perm;
        let [atime, mtime] = lock(&self.queue.state).times;
        let attr = Attr { ino: self.queue.id, mode: mode::REG | perm.mode, ..Attr::default() };
        let attr = Attr { uid: perm.uid, gid: perm.gid, nlink: 1, size: FILE_SIZE, ..attr };
        Ok(Attr { blksize: 4096, atime, mtime, ctime: mtime, ..attr })
    }
    fn closed(&self, process: &Arc<Process>) {
        // Withdrawing what another process registered changes nothing.
        let _ = self.queue.notify(process, None);
    }
    fn describe(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.name))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
