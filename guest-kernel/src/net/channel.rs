//! One direction of a connection, or a datagram socket's inbox: bytes, and what travels with them.
//!
//! A byte channel merges sends; a packet channel keeps them apart. Either way the bytes lie in one
//! ring and a [`Mark`] says what belongs to a run of them. Stream marks exist only where descriptors
//! travel or the sender changes. Neighbours: `unix`, `inet` own channels and say what the end of one
//! means to them.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    addr::{Addr, Host, Outgoing, Receive, Received, Ucred},
    ring::Ring,
};
use crate::{
    error::Errno,
    fs::{
        buf::{Sink, Source},
        file::{OpenFile, Ready},
    },
    wait::WaitQueue,
};

/// What Linux charges a socket for a packet beyond its bytes (sk_buff and rounding, about).
const OVERHEAD: usize = 512;

/// What belongs to the bytes from `start` on.
struct Mark {
    /// Position of its first byte, counted since the channel began.
    start: u64,
    len: usize,
    files: Vec<Arc<OpenFile>>,
    creds: Option<Ucred>,
    from: Option<Addr>,
    to: Option<Host>,
}

#[derive(Default)]
struct State {
    ring: Ring,
    marks: VecDeque<Mark>,
    /// Bytes ever read and written.
    read: u64,
    written: u64,
    limit: usize,
    /// No more will be written.
    ended: bool,
    /// Nothing written from now on would be read.
    deaf: bool,
    urgent: Option<u8>,
    /// Position behind which the urgent byte was sent.
    urgent_at: Option<u64>,
    /// Queues of senders that found no room, woken once when there is some.
    blocked: Vec<Arc<WaitQueue>>,
}

/// See the module.
pub struct Channel {
    packets: bool,
    /// Most packets in it.
    max_packets: usize,
    state: Mutex<State>,
    reader: Arc<WaitQueue>,
}

impl State {
    fn used(&self) -> usize {
        self.ring.len() + self.marks.len() * OVERHEAD
    }
}

impl Channel {
    /// A byte stream to the socket that waits on `reader`, holding up to `limit` bytes.
    #[must_use]
    pub fn stream(reader: &Arc<WaitQueue>, limit: usize) -> Arc<Channel> {
        Self::make(false, usize::MAX, reader, limit)
    }
    /// A queue of at most `max_packets` packets.
    #[must_use]
    pub fn packets(reader: &Arc<WaitQueue>, limit: usize, max_packets: usize) -> Arc<Channel> {
        Self::make(true, max_packets, reader, limit)
    }
    fn make(packets: bool, max: usize, reader: &Arc<WaitQueue>, limit: usize) -> Arc<Channel> {
        let state = State { limit, ..State::default() };
        Arc::new(Channel {
            packets,
            max_packets: max,
            state: Mutex::new(state),
            reader: reader.clone(),
        })
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Changes the limit (SO_SNDBUF, SO_RCVBUF).
    pub fn set_limit(&self, limit: usize) {
        self.state().limit = limit;
    }
    fn has_room(&self, state: &State, len: usize) -> bool {
        if self.packets {
            let empty = state.marks.is_empty();
            state.marks.len() < self.max_packets && (empty || state.used() + len <= state.limit)
        } else {
            state.ring.len() < state.limit
        }
    }
    /// Sends bytes; a stream takes what it has room for, a packet goes whole. `blocked` is woken
    /// once there is room again after EAGAIN.
    ///
    /// # Errors
    /// EPIPE if nobody will read; EAGAIN without room; EFAULT.
    pub fn send(
        &self,
        src: &mut Source<'_>,
        out: &mut Outgoing,
        from: Option<Addr>,
        to: Option<Host>,
        blocked: &Arc<WaitQueue>,
    ) -> Result<usize, Errno> {
        let mut state = self.state();
        if state.ended || state.deaf {
            return Err(Errno::EPIPE);
        }
        let len = src.left();
        if len == 0 && !self.packets {
            return Ok(0);
        }
        if !self.has_room(&state, len) {
            if !state.blocked.iter().any(|q| Arc::ptr_eq(q, blocked)) {
                state.blocked.push(blocked.clone());
            }
            return Err(Errno::EAGAIN);
        }
        let room = if self.packets { len } else { state.limit - state.ring.len() };
        let done = state.ring.fill(src, room)?;
        if self.packets && done < len {
            state.ring.retract(done);
            return Err(Errno::EFAULT);
        }
        if !self.packets && done < len && !state.blocked.iter().any(|q| Arc::ptr_eq(q, blocked)) {
            // The sender will wait for room for the rest without asking for it once more.
            state.blocked.push(blocked.clone());
        }
        let start = state.written;
        state.written += done as u64;
        let last = state.marks.back_mut();
        let same = last.is_some_and(|m| {
            let joins = m.creds == out.creds && out.files.is_empty() && m.files.is_empty();
            if joins && !self.packets {
                m.len += done;
            }
            joins
        });
        if self.packets || !same && (out.creds.is_some() || !out.files.is_empty()) {
            let files = std::mem::take(&mut out.files);
            state.marks.push_back(Mark { start, len: done, files, creds: out.creds, from, to });
        }
        drop(state);
        self.reader.wake_for(Ready::IN | Ready::RDNORM);
        Ok(done)
    }
    /// Sends bytes of which the last goes out of band (MSG_OOB of tcp(7) and unix(7)).
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_with_urgent(
        &self,
        src: &mut Source<'_>,
        out: &mut Outgoing,
        blocked: &Arc<WaitQueue>,
    ) -> Result<usize, Errno> {
        /// More is not taken at once.
        const MOST: usize = 512 * 1024;
        let mut bytes = vec![0; src.left().min(MOST)];
        let n = src.take(&mut bytes)?;
        let Some((last, before)) = bytes[..n].split_last() else { return Ok(0) };
        if self.has_ended() || self.is_deaf() {
            return Err(Errno::EPIPE);
        }
        self.send(&mut Source::kernel(before), out, None, None, blocked)?;
        self.send_urgent(*last);
        Ok(n)
    }
    fn send_urgent(&self, byte: u8) {
        let mut state = self.state();
        state.urgent = Some(byte);
        state.urgent_at = Some(state.written);
        drop(state);
        self.reader.wake_for(Ready::PRI);
    }
    /// Takes (or with `peek` copies) the urgent byte.
    ///
    /// # Errors
    /// EINVAL if there is none.
    pub fn recv_urgent(&self, dst: &mut Sink<'_>, peek: bool) -> Result<Received, Errno> {
        let byte = {
            let mut state = self.state();
            if peek { state.urgent } else { state.urgent.take() }
        };
        let stored = dst.put(&[byte.ok_or(Errno::EINVAL)?])?;
        Ok(Received { stored, full: 1, urgent: true, ..Received::default() })
    }
    /// The next byte to be read is the one behind the urgent byte (SIOCATMARK).
    pub fn at_mark(&self) -> bool {
        let state = self.state();
        state.urgent_at == Some(state.read)
    }
    /// Receives bytes, or one packet.
    ///
    /// # Errors
    /// EAGAIN if there are none yet; EFAULT. The end of the stream is nothing received.
    pub fn recv(&self, dst: &mut Sink<'_>, how: Receive) -> Result<Received, Errno> {
        let mut state = self.state();
        let nothing = if self.packets { state.marks.is_empty() } else { state.ring.is_empty() };
        if nothing {
            return if state.ended { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
        }
        let got = if self.packets {
            Self::recv_packet(&mut state, dst, how)?
        } else {
            Self::recv_bytes(&mut state, dst, how)?
        };
        let wake = !how.peek && !state.blocked.is_empty() && self.has_room(&state, 1);
        let blocked = if wake { std::mem::take(&mut state.blocked) } else { Vec::new() };
        drop(state);
        for queue in blocked {
            queue.wake_for(Ready::OUT | Ready::WRNORM | Ready::WRBAND);
        }
        Ok(got)
    }
    fn recv_packet(state: &mut State, dst: &mut Sink<'_>, how: Receive) -> Result<Received, Errno> {
        let Some(mark) = state.marks.front_mut() else { return Err(Errno::EAGAIN) };
        let full = mark.len;
        let stored = state.ring.copy(dst, 0, full)?;
        let files = if how.peek { mark.files.clone() } else { std::mem::take(&mut mark.files) };
        let got = Received {
            stored,
            full,
            from: mark.from.clone(),
            files,
            creds: mark.creds,
            to: mark.to,
            record: true,
            urgent: false,
        };
        if !how.peek {
            state.ring.consume(full);
            state.read += full as u64;
            state.marks.pop_front();
        }
        Ok(got)
    }
    fn recv_bytes(state: &mut State, dst: &mut Sink<'_>, how: Receive) -> Result<Received, Errno> {
        let mut got = Received::default();
        // Bytes may be read up to the end of the first run with descriptors, or of one sender's.
        let mut max = state.ring.len();
        for mark in &state.marks {
            let end = mark.start + mark.len as u64;
            if end <= state.read {
                continue;
            }
            got.creds.get_or_insert_with(|| mark.creds.unwrap_or(Ucred { pid: 0, uid: 0, gid: 0 }));
            if !mark.files.is_empty() || how.creds && state.marks.len() > 1 {
                max = max.min(usize::try_from(end - state.read).unwrap_or(max));
                break;
            }
        }
        if let Some(at) = state.urgent_at.filter(|at| *at > state.read) {
            // Reading stops at the mark (tcp(7)).
            max = max.min(usize::try_from(at - state.read).unwrap_or(max));
        }
        let stored = state.ring.copy(dst, 0, max)?;
        got.stored = stored;
        got.full = stored;
        let upto = state.read + stored as u64;
        for mark in &mut state.marks {
            if mark.start >= upto {
                break;
            }
            let files = if how.peek { mark.files.clone() } else { std::mem::take(&mut mark.files) };
            got.files.extend(files);
        }
        if !how.peek {
            state.ring.consume(stored);
            state.read = upto;
            // The last run's mark stays, for what is still to be appended to it.
            while state.marks.len() > 1
                && state.marks.front().is_some_and(|m| m.start + m.len as u64 <= upto)
            {
                state.marks.pop_front();
            }
        }
        Ok(got)
    }
    /// The sender sends no more (shutdown, close).
    pub fn end(&self) {
        self.state().ended = true;
        self.reader.wake();
    }
    /// The reader reads no more; what lay there is lost.
    pub fn deafen(&self) -> bool {
        let (lost, blocked) = {
            let mut state = self.state();
            let unread =
                if self.packets { !state.marks.is_empty() } else { !state.ring.is_empty() };
            state.deaf = true;
            let marks = std::mem::take(&mut state.marks);
            state.ring = Ring::default();
            ((unread, marks), std::mem::take(&mut state.blocked))
        };
        for queue in blocked {
            queue.wake();
        }
        bury(lost.1.into_iter().flat_map(|mark| mark.files));
        lost.0
    }
    /// Nothing more will be written.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }
    /// The reader is gone.
    pub fn is_deaf(&self) -> bool {
        self.state().deaf
    }
    /// Something can be read now, the end not counted.
    pub fn has_data(&self) -> bool {
        let state = self.state();
        if self.packets { !state.marks.is_empty() } else { !state.ring.is_empty() }
    }
    /// An urgent byte waits.
    pub fn has_urgent(&self) -> bool {
        self.state().urgent.is_some()
    }
    /// Room left for a sender that polls. When there is none `blocked` is woken once there is.
    pub fn is_writable(&self, least: usize, blocked: &Arc<WaitQueue>) -> bool {
        let mut state = self.state();
        let free = if self.packets {
            self.has_room(&state, 1)
        } else {
            state.limit.saturating_sub(state.ring.len()) >= least.min(state.limit)
        };
        if !free && !state.blocked.iter().any(|q| Arc::ptr_eq(q, blocked)) {
            state.blocked.push(blocked.clone());
        }
        free
    }
    /// Bytes to be read: all of a stream's, the first packet's (SIOCINQ).
    pub fn readable_bytes(&self) -> usize {
        let state = self.state();
        if self.packets { state.marks.front().map_or(0, |m| m.len) } else { state.ring.len() }
    }
    /// Bytes in it (SIOCOUTQ of its sender).
    pub fn bytes(&self) -> usize {
        self.state().ring.len()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        bury(state.marks.drain(..).flat_map(|mark| mark.files));
    }
}

thread_local! {
    /// Files that closing other files has freed on this thread; `None` while nobody closes any.
    static BURIED: RefCell<Option<Vec<Arc<OpenFile>>>> = const { RefCell::new(None) };
}

/// Closes descriptors that were in flight. Each may be a socket with more of them in its inbox, and
/// so on as deep as a guest likes, so this is a loop where plain drops would recurse.
fn bury(files: impl IntoIterator<Item = Arc<OpenFile>>) {
    let files: Vec<_> = files.into_iter().collect();
    if files.is_empty() {
        return;
    }
    let nested = BURIED.with_borrow_mut(|list| match list {
        Some(list) => {
            list.extend(files);
            true
        }
        None => {
            *list = Some(files);
            false
        }
    });
    if nested {
        return;
    }
    while let Some(file) = BURIED.with_borrow_mut(|list| list.as_mut().and_then(Vec::pop)) {
        drop(file);
    }
    BURIED.set(None);
}
