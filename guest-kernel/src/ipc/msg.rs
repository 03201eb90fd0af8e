//! SysV message queues (msgop(2)): messages with a type, taken by type.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Charge, Object, Perm};
use crate::{error::Errno, wait::WaitQueue};

/// Largest message (MSGMAX).
pub const MAX_MESSAGE: usize = 8192;
/// Bytes a new queue takes (MSGMNB).
pub const MAX_BYTES: u64 = 16384;
/// Most queues (MSGMNI).
pub const MAX_QUEUES: i32 = 32000;

/// A message.
pub struct Message {
    /// Its type, positive.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
    /// What it takes of the VM's budget; none for a copy.
    pub charge: Option<Charge>,
}

/// What a receiver wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Select {
    /// The first of this type, or with `true` of any other; 0 takes any.
    Type(i64, bool),
    /// The first of the lowest type up to this.
    Lowest(i64),
    /// A copy of the nth message (MSG_COPY).
    Copy(u64),
}

/// A queue's contents.
pub struct State {
    /// Owner.
    pub perm: Perm,
    messages: VecDeque<Message>,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes it takes (msg_qbytes).
    pub limit: u64,
    /// Last send, last receive, last change.
    pub times: [Duration; 3],
    /// Last sender, last receiver.
    pub pids: [i32; 2],
    removed: bool,
}

impl State {
    /// Messages in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.messages.len() as u64
    }
    fn find(&self, select: Select) -> Option<usize> {
        let kinds = || self.messages.iter().map(|m| m.kind).enumerate();
        match select {
            Select::Type(0, _) => (!self.messages.is_empty()).then_some(0),
            Select::Type(kind, except) => {
                kinds().find(|(_, k)| (*k == kind) != except).map(|(i, _)| i)
            }
            Select::Lowest(most) => {
                kinds().filter(|(_, k)| *k <= most).min_by_key(|(_, k)| *k).map(|(i, _)| i)
            }
            Select::Copy(nth) => usize::try_from(nth).ok().filter(|n| *n < self.messages.len()),
        }
    }
}

/// A queue.
pub struct MsgQueue {
    /// Its id.
    pub id: i32,
    state: Mutex<State>,
    /// Woken on every change.
    pub queue: Arc<WaitQueue>,
}

impl MsgQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(id: i32, perm: Perm, now: Duration) -> MsgQueue {
        let state = State {
            perm,
            messages: VecDeque::new(),
            bytes: 0,
            limit: MAX_BYTES,
            times: [Duration::ZERO, Duration::ZERO, now],
            pids: [0; 2],
            removed: false,
        };
        MsgQueue { id, state: Mutex::new(state), queue: WaitQueue::new() }
    }
    /// The contents.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Appends a message.
    ///
    /// # Errors
    /// EIDRM; EAGAIN without room, and the message back.
    pub fn send(&self, message: Message, pid: i32, now: Duration) -> Result<(), Errno> {
        let mut state = self.state();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let bytes = state.bytes + message.text.len() as u64;
        if bytes > state.limit || state.count() + 1 > state.limit {
            return Err(Errno::EAGAIN);
        }
        state.bytes = bytes;
        state.messages.push_back(message);
        (state.times[0], state.pids[0]) = (now, pid);
        drop(state);
        self.queue.wake();
        Ok(())
    }
    /// Takes a message; one longer than `room` only if `cut`.
    ///
    /// # Errors
    /// EIDRM, E2BIG; EAGAIN if there is none.
    pub fn receive(
        &self,
        select: Select,
        room: usize,
        cut: bool,
        pid: i32,
        now: Duration,
    ) -> Result<Message, Errno> {
        let mut state = self.state();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let index = state.find(select).ok_or(Errno::EAGAIN)?;
        let message = &state.messages[index];
        if message.text.len() > room && !cut {
            return Err(Errno::E2BIG);
        }
        if matches!(select, Select::Copy(_)) {
            let (kind, text) = (message.kind, message.text.clone());
            return Ok(Message { kind, text, charge: None });
        }
        let message = state.messages.remove(index).ok_or(Errno::EAGAIN)?;
        state.bytes -= message.text.len() as u64;
        (state.times[1], state.pids[1]) = (now, pid);
        drop(state);
        self.queue.wake();
        Ok(message)
    }
}

impl Object for MsgQueue {
    fn perm(&self) -> Perm {
        self.state().perm
    }
    fn remove(&self) {
        let lost = {
            let mut state = self.state();
            state.removed = true;
            std::mem::take(&mut state.messages)
        };
        drop(lost);
        self.queue.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_select() {
        let queue = MsgQueue::new(0, Perm::default(), Duration::ZERO);
        for kind in [5, 3, 9, 3] {
            let message = Message { kind, text: vec![0; 4], charge: None };
            queue.send(message, 1, Duration::ZERO).unwrap();
        }
        let take =
            |select| queue.receive(select, 4, false, 1, Duration::ZERO).map(|m: Message| m.kind);
        assert_eq!(take(Select::Copy(2)), Ok(9));
        assert_eq!(take(Select::Lowest(4)), Ok(3));
        assert_eq!(take(Select::Type(5, true)), Ok(9));
        assert_eq!(take(Select::Type(7, false)), Err(Errno::EAGAIN));
        assert_eq!(take(Select::Type(0, false)), Ok(5));
        assert_eq!(take(Select::Type(0, false)), Ok(3));
        assert_eq!(queue.state().bytes, 0);
    }
}
