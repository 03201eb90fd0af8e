//! inotify(7): who watches which inode, and the queue of what happened to it.
//!
//! `vfs` and the handlers say what happened ([`happened`], [`named`], [`changed`]), after it did and
//! in Linux's order; an inode that nobody watches costs a look at a flag. An instance keeps its
//! watches, and so the inodes they watch, alive; an inode knows its watches weakly. Locks: an
//! inode's list of watchers and an instance's state are leaves and never held together; no inode is
//! dropped under either.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write as _,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

pub use super::flags::Events;
use super::{
    buf::Sink,
    dentry::{Dentry, Path},
    file::{FileOps, OpenFile, OpenFlags, Ready},
    inode::Inode,
};
use crate::{
    call::Cx,
    error::{Errno, Stop, SysResult},
    num::Word,
    wait::WaitQueue,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watches of an inode; part of every inode.
#[derive(Default)]
pub struct Watchers {
    any: AtomicBool,
    list: Mutex<Vec<Weak<Watch>>>,
}

impl Watchers {
    /// Somebody may be watching.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
    fn add(&self, watch: &Arc<Watch>) {
        let mut list = lock(&self.list);
        list.push(Arc::downgrade(watch));
        self.any.store(true, Ordering::Relaxed);
    }
    fn now(&self) -> Vec<Arc<Watch>> {
        let mut list = lock(&self.list);
        list.retain(|watch| watch.strong_count() > 0);
        self.any.store(!list.is_empty(), Ordering::Relaxed);
        list.iter().filter_map(Weak::upgrade).collect()
    }
}

/// One watch of an instance.
struct Watch {
    wd: i32,
    inode: Arc<dyn Inode>,
    instance: Weak<Inotify>,
}

struct Event {
    wd: i32,
    mask: Events,
    cookie: u32,
    name: Arc<[u8]>,
}

impl Event {
    const HEADER: usize = 16;

    /// Bytes of the name with its NUL, padded to a multiple of the header.
    fn room(&self) -> usize {
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(Self::HEADER) }
    }
    fn size(&self) -> usize {
        Self::HEADER + self.room()
    }
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        out.extend_from_slice(&self.wd.to_ne_bytes());
        out.extend_from_slice(&self.mask.bits().to_ne_bytes());
        out.extend_from_slice(&self.cookie.to_ne_bytes());
        out.extend_from_slice(&(self.room() as u64).low_u32().to_ne_bytes());
        out.extend_from_slice(&self.name);
        out.resize(self.size(), 0);
        out
    }
    /// Nobody needs both (`event_compare()`); the cookie does not count.
    fn repeats(&self, last: &Event) -> bool {
        !last.mask.contains(Events::IGNORED)
            && (self.mask, self.wd, &self.name) == (last.mask, last.wd, &last.name)
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Event>,
    /// IN_Q_OVERFLOW is queued.
    overflowed: bool,
    watches: BTreeMap<i32, (Arc<Watch>, Events)>,
    /// Watch descriptors by the inode's address; the watch keeps it from being another's.
    by_inode: HashMap<usize, i32>,
    last_wd: i32,
}

/// What all instances of a VM share: counts, by user where Linux limits them.
#[derive(Default)]
pub struct Counts {
    watches: AtomicUsize,
    cookies: AtomicUsize,
    users: Mutex<HashMap<u32, (u64, u64)>>,
}

impl Counts {
    /// Anything is watched at all.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.watches.load(Ordering::Relaxed) > 0
    }
    /// Ties the two events of a rename together.
    pub fn cookie(&self) -> u32 {
        (self.cookies.fetch_add(1, Ordering::Relaxed) as u64).low_u32().wrapping_add(1)
    }
    fn change(
        &self,
        uid: u32,
        instances: i64,
        watches: i64,
        most: u64,
        full: Errno,
    ) -> Result<(), Errno> {
        let mut users = lock(&self.users);
        let user = users.entry(uid).or_default();
        let slot = if instances == 0 { &mut user.1 } else { &mut user.0 };
        let by = instances + watches;
        if by > 0 && *slot >= most {
            return Err(full);
        }
        *slot = slot.saturating_add_signed(by);
        if *user == (0, 0) {
            users.remove(&uid);
        }
        Ok(())
    }
}

/// Limits of an instance (/proc/sys/fs/inotify).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// max_queued_events.
    pub events: usize,
    /// max_user_instances.
    pub instances: u64,
    /// max_user_watches.
    pub watches: u64,
}

/// An inotify instance: what inotify_init(2)'s descriptor refers to.
pub struct Inotify {
    state: Mutex<State>,
    ready: Arc<WaitQueue>,
    counts: Arc<Counts>,
    limits: Limits,
    uid: u32,
}

impl Inotify {
    /// An instance of user `uid`.
    ///
    /// # Errors
    /// EMFILE if the user has too many.
    pub fn new(counts: &Arc<Counts>, uid: u32, limits: Limits) -> Result<Arc<Inotify>, Errno> {
        counts.change(uid, 1, 0, limits.instances, Errno::EMFILE)?;
        Ok(Arc::new(Inotify {
            state: Mutex::default(),
            ready: WaitQueue::new(),
            counts: counts.clone(),
            limits,
            uid,
        }))
    }
    /// Watches `inode`, or changes how it is watched; the watch descriptor.
    ///
    /// # Errors
    /// EEXIST under IN_MASK_CREATE, ENOSPC at the user's limit.
    pub fn watch(self: &Arc<Self>, inode: &Arc<dyn Inode>, mask: Events) -> Result<i32, Errno> {
        let wanted = mask & Events::KEPT;
        let key = address(inode);
        let watch = {
            let mut state = lock(&self.state);
            if let Some(wd) = state.by_inode.get(&key).copied()
                && let Some((_, old)) = state.watches.get_mut(&wd)
            {
                if mask.contains(Events::MASK_CREATE) {
                    return Err(Errno::EEXIST);
                }
                *old = if mask.contains(Events::MASK_ADD) { *old | wanted } else { wanted };
                return Ok(wd);
            }
            self.counts.change(self.uid, 0, 1, self.limits.watches, Errno::ENOSPC)?;
            // Descriptors are not used again until the numbers are (`idr_alloc_cyclic()`).
            let mut wd = state.last_wd;
            loop {
                wd = wd.checked_add(1).unwrap_or(1);
                if !state.watches.contains_key(&wd) {
                    break;
                }
            }
            state.last_wd = wd;
            let watch =
                Arc::new(Watch { wd, inode: inode.clone(), instance: Arc::downgrade(self) });
            state.watches.insert(wd, (watch.clone(), wanted));
            state.by_inode.insert(key, wd);
            watch
        };
        self.counts.watches.fetch_add(1, Ordering::Relaxed);
        inode.common().watchers.add(&watch);
        Ok(watch.wd)
    }
    /// Ends a watch; the program is told with IN_IGNORED.
    ///
    /// # Errors
    /// EINVAL if there is none.
    pub fn unwatch(&self, wd: i32) -> Result<(), Errno> {
        let gone = {
            let mut state = lock(&self.state);
            let (watch, _) = state.watches.remove(&wd).ok_or(Errno::EINVAL)?;
            state.by_inode.remove(&address(&watch.inode));
            self.queue(&mut state, wd, Events::IGNORED, 0, &Arc::from(&b""[..]));
            watch
        };
        self.forget(1);
        self.ready.wake();
        drop(gone);
        Ok(())
    }
    fn forget(&self, watches: usize) {
        self.counts.watches.fetch_sub(watches, Ordering::Relaxed);
        let by = i64::try_from(watches).unwrap_or(i64::MAX);
        // Giving back cannot fail.
        let _ = self.counts.change(self.uid, 0, -by, 0, Errno::ENOSPC);
    }
    fn queue(&self, state: &mut State, wd: i32, mask: Events, cookie: u32, name: &Arc<[u8]>) {
        if state.queue.len() >= self.limits.events {
            if !state.overflowed {
                state.overflowed = true;
                let name = Arc::from(&b""[..]);
                state.queue.push_back(Event { wd: -1, mask: Events::Q_OVERFLOW, cookie: 0, name });
            }
            return;
        }
        let event = Event { wd, mask, cookie, name: name.clone() };
        if !state.queue.back().is_some_and(|last| event.repeats(last)) {
            state.queue.push_back(event);
        }
    }
    fn take(&self, watch: &Watch, what: &Occurrence<'_>) {
        let once = {
            let mut state = lock(&self.state);
            let Some((_, wanted)) = state.watches.get(&watch.wd) else { return };
            let wanted = *wanted;
            let unwanted = what.unlinked && wanted.contains(Events::EXCL_UNLINK);
            if unwanted || !wanted.intersects(what.events & Events::ALL) {
                return;
            }
            let mut mask = what.events;
            if mask.intersects(Events::MOVE_SELF | Events::DELETE_SELF) {
                mask -= Events::ISDIR;
            }
            self.queue(&mut state, watch.wd, mask, what.cookie, what.name);
            wanted.contains(Events::ONESHOT)
        };
        self.ready.wake();
        if once {
            // Another event may have ended it meanwhile.
            let _ = self.unwatch(watch.wd);
        }
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let watches = mem::take(&mut lock(&self.state).watches);
        self.forget(watches.len());
        // Giving back cannot fail.
        let _ = self.counts.change(self.uid, -1, 0, 0, Errno::EMFILE);
    }
}

fn address(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>().addr()
}

impl FileOps for Inotify {
    fn moves(&self) -> (bool, bool) {
        (true, false)
    }
    fn positioned(&self) -> bool {
        false
    }
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        let mut done = 0;
        loop {
            let event = {
                let mut state = lock(&self.state);
                let Some(next) = state.queue.front() else { break };
                if next.size() > dst.left() {
                    return if done == 0 { Err(Errno::EINVAL) } else { Ok(done) };
                }
                let event = state.queue.pop_front();
                state.overflowed &= event.as_ref().is_some_and(|e| e.mask != Events::Q_OVERFLOW);
                event
            };
            let Some(event) = event else { break };
            match dst.put(&event.encode()) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        if lock(&self.state).queue.is_empty() { Ready::empty() } else { Ready::IN | Ready::RDNORM }
    }
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        // `noop_llseek()`.
        Ok(0)
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.ready.clone())
    }
    fn ioctl(&self, cx: &mut Cx<'_>, _file: &OpenFile, command: u32, arg: u64) -> SysResult {
        const FIONREAD: u32 = 0x541b;
        if command != FIONREAD {
            return Err(Stop::Errno(Errno::ENOTTY));
        }
        let bytes: usize = lock(&self.state).queue.iter().map(Event::size).sum();
        cx.mm().write_obj(arg, &(bytes as u64).low_i32())?;
        Ok(0)
    }
    fn describe(&self) -> String {
        "anon_inode:inotify".to_owned()
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let watches: Vec<_> = lock(&self.state).watches.values().cloned().collect();
        let mut out = String::new();
        for (watch, mask) in watches {
            let attr = watch.inode.attr().unwrap_or_default();
            let (wd, mask) = (watch.wd, mask.bits());
            // A string takes all that is written.
            let _ = writeln!(
                out,
                "inotify wd:{wd:x} ino:{:x} sdev:{:x} mask:{mask:x} ignored_mask:0 ",
                attr.ino, attr.dev
            );
        }
        out
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Something that happened to an inode.
struct Occurrence<'a> {
    events: Events,
    /// The entry of a watched directory it happened to, else empty.
    name: &'a Arc<[u8]>,
    cookie: u32,
    /// It was done through a name that is gone.
    unlinked: bool,
}

fn tell(inode: &Arc<dyn Inode>, what: &Occurrence<'_>) {
    for watch in inode.common().watchers.now() {
        if let Some(instance) = watch.instance.upgrade() {
            instance.take(&watch, what);
        }
    }
}

/// `events` happened to an open file through its name.
pub fn happened(path: &Path, events: Events) {
    at(&path.dentry, events, path.dentry.is_deleted());
}

/// `events` happened to the file at `path`, by name or not: who watches the directory hears of it
/// first.
pub fn changed(path: &Path, events: Events) {
    at(&path.dentry, events, false);
}

fn at(dentry: &Arc<Dentry>, events: Events, unlinked: bool) {
    let inode = dentry.inode();
    let parent = dentry.parent().filter(|dir| dir.inode().common().watchers.any());
    if parent.is_none() && !inode.common().watchers.any() {
        return;
    }
    let events = kind(inode, events);
    if let Some(dir) = parent {
        let name = &dentry.name();
        tell(dir.inode(), &Occurrence { events, name, cookie: 0, unlinked });
    }
    tell(inode, &Occurrence { events, name: &Arc::from(&b""[..]), cookie: 0, unlinked });
}

fn kind(inode: &Arc<dyn Inode>, events: Events) -> Events {
    let dir = inode.attr().is_ok_and(|attr| attr.is_dir());
    if dir { events | Events::ISDIR } else { events }
}

/// [`happened`] to an open file; files without a place are not watched.
pub fn file(file: &OpenFile, events: Events) {
    if let Some(path) = &file.path
        && !file.flags().contains(OpenFlags::PATH)
    {
        happened(path, events);
    }
}

/// `events` happened to the entry `name` of `dir`, which is or was `inode`.
pub fn named(
    dir: &Arc<dyn Inode>,
    name: &[u8],
    inode: &Arc<dyn Inode>,
    events: Events,
    cookie: u32,
) {
    if dir.common().watchers.any() {
        let events = kind(inode, events);
        let name = &Arc::from(name);
        tell(dir, &Occurrence { events, name, cookie, unlinked: false });
    }
}

/// `events` happened to `inode`, and not by a name.
pub fn itself(inode: &Arc<dyn Inode>, events: Events) {
    if inode.common().watchers.any() {
        let (events, name) = (kind(inode, events), &Arc::from(&b""[..]));
        tell(inode, &Occurrence { events, name, cookie: 0, unlinked: false });
    }
}

/// The last user of a name of `inode` is gone, and so was the name: if it was the last one, the
/// file is, and all its watches end.
pub fn name_dropped(inode: &Arc<dyn Inode>) {
    if !inode.common().watchers.any()
        || !inode.attr().is_ok_and(|attr| attr.is_dir() || attr.nlink == 0)
    {
        return;
    }
    itself(inode, Events::DELETE_SELF);
    for watch in inode.common().watchers.now() {
        if let Some(instance) = watch.instance.upgrade() {
            // IN_ONESHOT may have ended it already.
            let _ = instance.unwatch(watch.wd);
        }
    }
}
