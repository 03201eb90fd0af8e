//! Event polls (epoll(7)): a set of files, and the list of those that may be ready.
//!
//! An [`Item`] sits on its file's wait queue and, when that is woken, puts itself on its set's ready
//! list and wakes the set. What is really ready is found by asking the file when events are
//! collected, so a stale entry costs a look and nothing else. An item holds its file weakly: closing
//! the last descriptor takes the file out of every set, as epoll(7) Q6 says.
//!
//! Neither `items` nor `ready` is held while a file is asked or dropped, for both
//! may wake queues.

#[cfg(test)]
mod tests;

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use bitflags::bitflags;

use crate::{
    call::Cx,
    error::{Errno, SysResult},
    fs::file::{FileOps, OpenFile, Ready},
    wait::{WaitQueue, Wake},
};

bitflags! {
    /// How an item reports, with the values of epoll_ctl(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Mode: u32 {
        /// EPOLLEXCLUSIVE.
        const EXCLUSIVE = 1 << 28;
        /// EPOLLWAKEUP: accepted and without effect, as without CAP_BLOCK_SUSPEND.
        const WAKEUP = 1 << 29;
        /// EPOLLONESHOT.
        const ONESHOT = 1 << 30;
        /// EPOLLET.
        const EDGE = 1 << 31;
    }
}

/// What a program asks to hear of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest {
    /// Events wanted; ERR and HUP always are.
    pub events: Ready,
    /// Level, edge, one shot.
    pub mode: Mode,
    /// Given back with each event.
    pub data: u64,
}

/// Deepest chain of sets within sets (EP_MAX_NESTS).
const MAX_NESTING: usize = 5;

/// A file within a set.
struct Item {
    me: Weak<Item>,
    epoll: Weak<Epoll>,
    file: Weak<OpenFile>,
    queue: Arc<WaitQueue>,
    interest: Mutex<Interest>,
    /// It is on the ready list.
    listed: AtomicBool,
    /// It was taken out of the set.
    gone: AtomicBool,
}

impl Item {
    fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What of its interest is ready now.
    fn ready(&self, depth: usize) -> Ready {
        let interest = *self.interest();
        if interest.events.is_empty() || self.gone.load(Ordering::Acquire) {
            return Ready::empty();
        }
        let Some(file) = self.file.upgrade() else { return Ready::empty() };
        let ready = match file.downcast::<Epoll>() {
            Some(inner) => inner.poll_nested(depth + 1),
            None => file.ops.poll(&file),
        };
        ready & interest.events
    }
}

impl Wake for Item {
    fn wake(&self) {
        self.wake_for(Ready::all());
    }
    fn wake_for(&self, ready: Ready) {
        if !ready.intersects(self.interest().events) {
            return;
        }
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.list(self);
        }
    }
}

/// Key of an item: the descriptor it was added by and the description behind it.
type Key = (i32, usize);

/// An epoll set.
pub struct Epoll {
    me: Weak<Epoll>,
    items: Mutex<BTreeMap<Key, Arc<Item>>>,
    ready: Mutex<VecDeque<Arc<Item>>>,
    queue: Arc<WaitQueue>,
}

/// Keeps two epoll_ctl(2) calls from closing a loop of sets between them; one per kernel.
pub type NestingLock = Mutex<()>;

impl Epoll {
    /// An empty set.
    #[must_use]
    pub fn new() -> Arc<Epoll> {
        Arc::new_cyclic(|me| Epoll {
            me: me.clone(),
            items: Mutex::default(),
            ready: Mutex::default(),
            queue: WaitQueue::new(),
        })
    }
    fn items(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Item>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn ready(&self) -> MutexGuard<'_, VecDeque<Arc<Item>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn key(fd: i32, file: &Arc<OpenFile>) -> Key {
        (fd, Arc::as_ptr(file).addr())
    }
    /// The live item for `fd` referring to `file`.
    fn find(&self, fd: i32, file: &Arc<OpenFile>) -> Result<Arc<Item>, Errno> {
        let item = self.items().get(&Self::key(fd, file)).cloned();
        item.filter(|i| i.file.strong_count() > 0).ok_or(Errno::ENOENT)
    }
    /// Puts the item on the ready list. Wakes the set even if it was there: the entry may be stale,
    /// and whoever looked at it then may be waiting since.
    fn list(&self, item: &Item) {
        if !item.listed.swap(true, Ordering::AcqRel)
            && let Some(item) = item.me.upgrade()
        {
            self.ready().push_back(item);
        }
        self.queue.wake_for(Ready::IN | Ready::RDNORM);
    }
    /// EPOLL_CTL_ADD of `file`, known to the caller as `fd`.
    ///
    /// # Errors
    /// EEXIST; EPERM for files that are always ready; ELOOP for a circle of sets or too deep a
    /// chain; EINVAL for EPOLLEXCLUSIVE on a set.
    pub fn add(
        &self,
        fd: i32,
        file: &Arc<OpenFile>,
        interest: Interest,
        nesting: &NestingLock,
    ) -> Result<(), Errno> {
        let queue = file.ops.queue().ok_or(Errno::EPERM)?;
        let inner = file.downcast::<Epoll>();
        let _guard = inner.map(|_| nesting.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(inner) = inner {
            if interest.mode.contains(Mode::EXCLUSIVE) {
                return Err(Errno::EINVAL);
            }
            if inner.depth(self, 1).is_none_or(|d| d >= MAX_NESTING) {
                return Err(Errno::ELOOP);
            }
        }
        let key = Self::key(fd, file);
        let item = Arc::new_cyclic(|me| Item {
            me: me.clone(),
            epoll: self.me.clone(),
            file: Arc::downgrade(file),
            queue,
            interest: Mutex::new(interest),
            listed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        });
        {
            let mut items = self.items();
            if items.get(&key).is_some_and(|i| i.file.strong_count() > 0) {
                return Err(Errno::EEXIST);
            }
            if items.len() >= 64 && items.len().is_power_of_two() {
                items.retain(|_, i| i.file.strong_count() > 0);
            }
            items.insert(key, item.clone());
        }
        let waker: Arc<dyn Wake> = item.clone();
        item.queue.add(&waker);
        self.look(&item);
        Ok(())
    }
    /// EPOLL_CTL_MOD.
    ///
    /// # Errors
    /// ENOENT; EINVAL if EPOLLEXCLUSIVE is or was asked for.
    pub fn modify(&self, fd: i32, file: &Arc<OpenFile>, interest: Interest) -> Result<(), Errno> {
        let item = self.find(fd, file)?;
        let exclusive = item.interest().mode | interest.mode;
        if exclusive.contains(Mode::EXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        *item.interest() = interest;
        self.look(&item);
        Ok(())
    }
    /// EPOLL_CTL_DEL.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: i32, file: &Arc<OpenFile>) -> Result<(), Errno> {
        let item = self.find(fd, file)?;
        item.gone.store(true, Ordering::Release);
        self.items().remove(&Self::key(fd, file));
        let waker: Arc<dyn Wake> = item.clone();
        item.queue.remove(&waker);
        self.ready().retain(|i| !Arc::ptr_eq(i, &item));
        Ok(())
    }
    /// Lists the item if it is ready already.
    fn look(&self, item: &Arc<Item>) {
        if !item.ready(0).is_empty() {
            self.list(item);
        }
    }
    /// Takes up to `max` events, giving each to `sink`; the count. The first event `sink` refuses
    /// stays ready and ends the collection.
    ///
    /// # Errors
    /// `sink`'s error if it refused the first event.
    pub fn collect(
        &self,
        max: usize,
        mut sink: impl FnMut(usize, Ready, u64) -> Result<(), Errno>,
    ) -> Result<usize, Errno> {
        let mut count = 0;
        let mut rounds = self.ready().len();
        while count < max && rounds > 0 {
            rounds -= 1;
            let Some(item) = self.ready().pop_front() else { break };
            // Unlisted before it is asked: a wake-up from now on lists it again.
            item.listed.store(false, Ordering::Release);
            let ready = item.ready(0);
            if ready.is_empty() {
                continue;
            }
            let mut interest = item.interest();
            let told = *interest;
            if told.mode.contains(Mode::ONESHOT) {
                interest.events = Ready::empty();
            }
            drop(interest);
            if let Err(e) = sink(count, ready, told.data) {
                *item.interest() = told;
                if !item.listed.swap(true, Ordering::AcqRel) {
                    self.ready().push_front(item);
                }
                return if count == 0 { Err(e) } else { Ok(count) };
            }
            count += 1;
            let level = !told.mode.intersects(Mode::ONESHOT | Mode::EDGE);
            if level && !item.listed.swap(true, Ordering::AcqRel) {
                self.ready().push_back(item);
            }
        }
        Ok(count)
    }
    /// Whether any event is ready, looking at most [`MAX_NESTING`] sets deep.
    fn poll_nested(&self, depth: usize) -> Ready {
        if depth > MAX_NESTING {
            return Ready::empty();
        }
        let listed: Vec<Arc<Item>> = self.ready().iter().cloned().collect();
        if listed.iter().any(|item| !item.ready(depth).is_empty()) {
            Ready::IN | Ready::RDNORM
        } else {
            Ready::empty()
        }
    }
    /// How many sets deep this one goes; `None` if `root` is among them.
    fn depth(&self, root: &Epoll, level: usize) -> Option<usize> {
        if std::ptr::eq(self, root) || level > MAX_NESTING {
            return None;
        }
        let items: Vec<Arc<Item>> = self.items().values().cloned().collect();
        let mut deepest = level;
        for item in items {
            let Some(file) = item.file.upgrade() else { continue };
            if let Some(inner) = file.downcast::<Epoll>() {
                deepest = deepest.max(inner.depth(root, level + 1)?);
            }
        }
        Some(deepest)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        let items = std::mem::take(&mut *self.items());
        for item in items.into_values() {
            let waker: Arc<dyn Wake> = item.clone();
            item.queue.remove(&waker);
        }
    }
}

impl FileOps for Epoll {
    fn moves(&self) -> (bool, bool) {
        (false, false)
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        self.poll_nested(0)
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.queue.clone())
    }
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        // `noop_llseek()`.
        Ok(0)
    }
    fn ioctl(&self, _cx: &mut Cx<'_>, _file: &OpenFile, _command: u32, _arg: u64) -> SysResult {
        // What it has are the parameters of busy polling; all else is EINVAL, not ENOTTY.
        Err(Errno::EINVAL.into())
    }
    fn positioned(&self) -> bool {
        false
    }
    fn describe(&self) -> String {
        "anon_inode:[eventpoll]".to_owned()
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let items: Vec<(i32, Arc<Item>)> =
            self.items().iter().map(|((fd, _), item)| (*fd, item.clone())).collect();
        let line = |(fd, item): (i32, Arc<Item>)| {
            let Interest { events, mode, data } = *item.interest();
            let file = item.file.upgrade();
            let attr = file.as_ref().and_then(|f| f.attr().ok()).unwrap_or_default();
            let position = file.as_ref().map_or(0, |f| f.with_position(|p| *p));
            format!(
                "tfd: {fd:>8} events: {:>8x} data: {data:>16x}  pos:{position} ino:{:x} sdev:{:x}\n",
                events.bits() | mode.bits(),
                attr.ino,
                attr.dev
            )
        };
        items.into_iter().map(line).collect()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
