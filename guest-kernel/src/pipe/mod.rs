//! Pipes and FIFOs (pipe(7)): a ring of page-sized slots between readers and writers.
//!
//! Linux counts capacity in slots, not bytes: a write starts a new slot unless it fits behind the
//! last one's bytes. Programs can see that (how many 3,000-byte writes fit, when POLLOUT goes away),
//! so it is kept. A slot's page is allocated at its first use and then reused: no operation
//! allocates. Neighbours: `linux::sys::pipe` makes pipes, `fs` opens FIFO nodes with [`open_fifo`].
//!
//! Invariants: `head..head+used` are the slots with bytes; none of them is empty.

mod fifo;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use self::fifo::open_fifo;
use crate::{
    call::Cx,
    error::{Errno, Stop, SysResult},
    fs::{
        buf::{Sink, Source},
        file::{FileOps, OpenFile, OpenFlags, Ready},
        inode::mode,
        nameless::Nameless,
    },
    wait::WaitQueue,
};

/// Bytes in a slot.
pub const SLOT: usize = 4096;
/// Slots of a new pipe (64 KiB).
pub const DEFAULT_SLOTS: usize = 16;
/// Largest capacity an unprivileged F_SETPIPE_SZ may ask for (`/proc/sys/fs/pipe-max-size`).
pub const MAX_UNPRIVILEGED: usize = 1 << 20;
/// Largest capacity anyone may ask for: a bound on what a guest makes us hold.
const MAX_BYTES: usize = 1 << 26;

#[derive(Default)]
struct Slot {
    page: Option<Box<[u8; SLOT]>>,
    start: usize,
    end: usize,
    /// Written under O_DIRECT: a read takes this slot whole and no other.
    packet: bool,
}

struct State {
    slots: Vec<Slot>,
    head: usize,
    used: usize,
    readers: u32,
    writers: u32,
    /// How often a reader / a writer has opened (FIFO opens wait for a change).
    reader_opens: u64,
    writer_opens: u64,
}

/// The shared middle of a pipe, or a FIFO's inode state.
pub struct Pipe {
    /// A number for fstat(2) and `/proc/PID/fd`.
    pub id: u64,
    /// Mode and owner, but for a FIFO.
    nameless: Nameless,
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
}

impl State {
    fn index(&self, nth: usize) -> usize {
        (self.head + nth) % self.slots.len()
    }
    fn is_full(&self) -> bool {
        self.used >= self.slots.len()
    }
    fn bytes(&self) -> usize {
        (0..self.used).map(|n| &self.slots[self.index(n)]).map(|s| s.end - s.start).sum()
    }
    fn pop(&mut self) {
        let index = self.head;
        self.slots[index].start = 0;
        self.slots[index].end = 0;
        self.head = self.index(1);
        self.used -= 1;
    }
    /// Moves bytes to `dst`; a fault after some is not an error.
    fn read(&mut self, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        let mut done = 0;
        while self.used > 0 && dst.left() > 0 {
            let slot = &mut self.slots[self.head];
            let Some(page) = &slot.page else { break };
            let want = slot.end - slot.start;
            let got = match dst.put(&page[slot.start..slot.end]) {
                Ok(n) => n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            done += got;
            slot.start += got;
            let packet = slot.packet;
            if slot.start == slot.end || packet {
                // What a short read leaves of a packet is lost (pipe(2), O_DIRECT).
                self.pop();
            }
            if packet || got < want {
                break;
            }
        }
        Ok(done)
    }
    /// Appends to the last slot if all of `len` fits there.
    fn merge(&mut self, src: &mut Source<'_>, len: usize) -> Result<usize, Errno> {
        if self.used == 0 || len == 0 {
            return Ok(0);
        }
        let last = self.index(self.used - 1);
        let slot = &mut self.slots[last];
        if slot.packet || slot.end + len > SLOT {
            return Ok(0);
        }
        let Some(page) = &mut slot.page else { return Ok(0) };
        let got = src.take(&mut page[slot.end..slot.end + len])?;
        slot.end += got;
        Ok(got)
    }
    /// Moves bytes from `src` until it or the room ends.
    fn write(&mut self, src: &mut Source<'_>, packet: bool) -> Result<usize, Errno> {
        // Behind what is no packet even a packet's bytes go, if they fit (`pipe_write()`).
        let mut done = self.merge(src, src.left() % SLOT)?;
        while src.left() > 0 && !self.is_full() {
            let index = self.index(self.used);
            let slot = &mut self.slots[index];
            let page = slot.page.get_or_insert_with(|| Box::new([0; SLOT]));
            let want = src.left().min(SLOT);
            let got = match src.take(&mut page[..want]) {
                Ok(n) => n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            if got == 0 {
                break;
            }
            slot.start = 0;
            slot.end = got;
            slot.packet = packet;
            self.used += 1;
            done += got;
            if got < want {
                break;
            }
        }
        Ok(done)
    }
}

impl Pipe {
    /// A pipe nobody has open, made by this user and group.
    #[must_use]
    pub fn new(id: u64, owner: (u32, u32)) -> Arc<Pipe> {
        let mut slots = Vec::new();
        slots.resize_with(DEFAULT_SLOTS, Slot::default);
        let state = State {
            slots,
            head: 0,
            used: 0,
            readers: 0,
            writers: 0,
            reader_opens: 0,
            writer_opens: 0,
        };
        let nameless = Nameless::new(id, mode::FIFO | 0o600, owner);
        Arc::new(Pipe { id, nameless, state: Mutex::new(state), queue: WaitQueue::new() })
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// pipe(2): the read and the write end.
    #[must_use]
    pub fn pair(id: u64, owner: (u32, u32), flags: OpenFlags) -> (Arc<OpenFile>, Arc<OpenFile>) {
        let pipe = Pipe::new(id, owner);
        // Packets are made by who writes.
        let read_flags = flags - OpenFlags::DIRECT;
        let reader = OpenFile::new(PipeEnd::open(&pipe, true, false, false), read_flags);
        let writer =
            OpenFile::new(PipeEnd::open(&pipe, false, true, false), flags | OpenFlags::WRONLY);
        (reader, writer)
    }
    /// Capacity in bytes (F_GETPIPE_SZ).
    pub fn capacity(&self) -> usize {
        self.state().slots.len() * SLOT
    }
    /// F_SETPIPE_SZ: rounds up to a power of two of pages; the new capacity. `limit` is
    /// [`MAX_UNPRIVILEGED`] without CAP_SYS_RESOURCE.
    ///
    /// # Errors
    /// EINVAL beyond 2 GiB, EPERM above `limit`, EBUSY if the bytes inside would not fit.
    pub fn set_capacity(&self, bytes: usize, privileged: bool) -> Result<usize, Errno> {
        if bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let bytes = bytes.max(SLOT).next_power_of_two();
        let mut state = self.state();
        let count = bytes / SLOT;
        if count > state.slots.len() {
            if bytes > MAX_UNPRIVILEGED && !privileged {
                return Err(Errno::EPERM);
            }
            if bytes > MAX_BYTES {
                return Err(Errno::ENOMEM);
            }
        }
        if state.used > count {
            return Err(Errno::EBUSY);
        }
        let head = state.head;
        state.slots.rotate_left(head);
        state.head = 0;
        state.slots.resize_with(count, Slot::default);
        drop(state);
        self.queue.wake();
        Ok(bytes)
    }
    /// Bytes that wait to be read (FIONREAD).
    pub fn pending(&self) -> usize {
        self.state().bytes()
    }
    /// Woken on every change of readiness.
    #[must_use]
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }
}

/// One open end of a pipe, or a FIFO opened for reading, writing or both.
pub struct PipeEnd {
    /// What it is an end of.
    pub pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// For a FIFO opened for reading without a writer: HUP shows only once a writer has come.
    hup_after: AtomicU64,
}

/// `hup_after` of an end for which HUP always shows.
const HUP_ALWAYS: u64 = u64::MAX;

impl PipeEnd {
    fn open(pipe: &Arc<Pipe>, reads: bool, writes: bool, quiet: bool) -> Arc<PipeEnd> {
        let mut state = pipe.state();
        state.readers += u32::from(reads);
        state.reader_opens += u64::from(reads);
        state.writers += u32::from(writes);
        state.writer_opens += u64::from(writes);
        let hup_after = if quiet { state.writer_opens } else { HUP_ALWAYS };
        drop(state);
        Arc::new(PipeEnd { pipe: pipe.clone(), reads, writes, hup_after: hup_after.into() })
    }
    /// Copies up to `count` bytes and leaves them there; none at the end.
    ///
    /// # Errors
    /// EAGAIN for an empty pipe with a writer.
    pub fn peek(&self, count: usize) -> Result<Vec<u8>, Errno> {
        let state = self.pipe.state();
        if state.used == 0 && state.writers > 0 {
            return Err(Errno::EAGAIN);
        }
        let mut out = Vec::new();
        for nth in 0..state.used {
            let slot = &state.slots[state.index(nth)];
            if let Some(page) = &slot.page {
                let want = (count - out.len()).min(slot.end - slot.start);
                out.extend_from_slice(&page[slot.start..slot.start + want]);
            }
        }
        Ok(out)
    }
    /// The pipe behind a description, for fcntl(2) and splice(2).
    #[must_use]
    pub fn of(file: &OpenFile) -> Option<&PipeEnd> {
        file.downcast::<PipeEnd>()
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state();
        state.readers -= u32::from(self.reads);
        state.writers -= u32::from(self.writes);
        if state.readers + state.writers == 0 {
            // A FIFO forgets its bytes with its last user.
            let count = state.slots.len();
            state.slots.clear();
            state.slots.resize_with(count, Slot::default);
            state.used = 0;
        }
        drop(state);
        self.pipe.queue.wake();
    }
}

impl FileOps for PipeEnd {
    fn positioned(&self) -> bool {
        false
    }
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        if dst.left() == 0 {
            return Ok(0);
        }
        let mut state = self.pipe.state();
        if state.used == 0 {
            return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let was_full = state.is_full();
        let done = state.read(dst)?;
        let room = was_full && !state.is_full();
        drop(state);
        if room {
            self.pipe.queue.wake_for(Ready::OUT | Ready::WRNORM);
        }
        Ok(done)
    }
    fn write(&self, file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        if src.left() == 0 {
            return Ok(0);
        }
        let mut state = self.pipe.state();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let packet = file.flags().contains(OpenFlags::DIRECT);
        let done = state.write(src, packet)?;
        drop(state);
        if done == 0 {
            return Err(Errno::EAGAIN);
        }
        // Edge-triggered epoll hears of every write, as on Linux (pipe_write, poll_usage).
        self.pipe.queue.wake_for(Ready::IN | Ready::RDNORM);
        Ok(done)
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        let state = self.pipe.state();
        let mut ready = Ready::empty();
        if self.reads {
            if state.used > 0 {
                ready |= Ready::IN | Ready::RDNORM;
            }
            if state.writers == 0 && self.hup_after.load(Ordering::Relaxed) != state.writer_opens {
                ready |= Ready::HUP;
            }
        }
        if self.writes {
            if !state.is_full() {
                ready |= Ready::OUT | Ready::WRNORM;
            }
            if state.readers == 0 {
                ready |= Ready::ERR;
            }
        }
        ready
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.pipe.queue.clone())
    }
    fn nameless(&self) -> Option<&Nameless> {
        Some(&self.pipe.nameless)
    }
    /// Another end, of whichever kind is asked for; unlike a FIFO's it waits for no peer.
    fn reopen(&self, _file: &OpenFile, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        let both = flags.contains(OpenFlags::RDWR);
        let writes = both || flags.contains(OpenFlags::WRONLY);
        let end = PipeEnd::open(&self.pipe, both || !writes, writes, false);
        self.pipe.queue.wake();
        Ok(end)
    }
    fn describe(&self) -> String {
        format!("pipe:[{}]", self.pipe.id)
    }
    fn ioctl(&self, cx: &mut Cx<'_>, _file: &OpenFile, command: u32, arg: u64) -> SysResult {
        crate::linux::sys::pipe::ioctl(cx, self, command, arg)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What an errno of a FIFO's open means to its caller.
type Opened = Result<Arc<PipeEnd>, Stop>;
