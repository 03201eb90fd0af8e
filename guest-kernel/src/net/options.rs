//! What every socket has whatever its protocol: options, the pending error, the wait queue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::addr::Ucred;
use crate::{error::Errno, fs::file::Ready, wait::WaitQueue};

/// Default send and receive buffer (`net.core.wmem_default`, `rmem_default`).
pub const BUFFER: usize = 212_992;
/// Largest buffer a program may ask for, before doubling (`net.core.wmem_max`, `rmem_max`).
pub const BUFFER_MAX: usize = 212_992;

/// Socket options (socket(7)) with effect, and a store for those without.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "socket(7) and unix(7) name them")]
pub struct Options {
    pub reuse_addr: bool,
    pub reuse_port: bool,
    pub keep_alive: bool,
    pub broadcast: bool,
    pub linger: Option<u32>,
    pub recv_buffer: usize,
    pub send_buffer: usize,
    /// The program has set the buffer itself.
    pub recv_buffer_set: bool,
    pub send_buffer_set: bool,
    pub recv_low: i32,
    pub recv_timeout: Option<Duration>,
    pub send_timeout: Option<Duration>,
    pub pass_cred: bool,
    pub timestamp: bool,
    pub v6_only: bool,
    pub packet_info: bool,
    /// Options that are only stored, by level and number.
    pub stored: BTreeMap<(i32, i32), i32>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            reuse_addr: false,
            reuse_port: false,
            keep_alive: false,
            broadcast: false,
            linger: None,
            recv_buffer: BUFFER,
            send_buffer: BUFFER,
            recv_buffer_set: false,
            send_buffer_set: false,
            recv_low: 1,
            recv_timeout: None,
            send_timeout: None,
            pass_cred: false,
            timestamp: false,
            v6_only: false,
            packet_info: false,
            stored: BTreeMap::new(),
        }
    }
}

/// The protocol-independent half of a socket.
pub struct Endpoint {
    /// Woken on every change of readiness.
    pub queue: Arc<WaitQueue>,
    /// Who made the socket.
    pub owner: Ucred,
    options: Mutex<Options>,
    error: Mutex<Option<Errno>>,
}

impl Endpoint {
    /// A fresh endpoint of `owner`.
    #[must_use]
    pub fn new(owner: Ucred, options: Options) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            queue: WaitQueue::new(),
            owner,
            options: Mutex::new(options),
            error: Mutex::new(None),
        })
    }
    /// The options, locked.
    pub fn options(&self) -> MutexGuard<'_, Options> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Sets the pending error (SO_ERROR) and wakes.
    pub fn fail(&self, error: Errno) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.queue.wake_for(Ready::all());
    }
    /// Takes the pending error.
    pub fn take_error(&self) -> Option<Errno> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
    /// Fails with the pending error, which is taken.
    ///
    /// # Errors
    /// The pending error.
    pub fn check(&self) -> Result<(), Errno> {
        self.take_error().map_or(Ok(()), Err)
    }
    /// An error is pending.
    pub fn has_error(&self) -> bool {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
