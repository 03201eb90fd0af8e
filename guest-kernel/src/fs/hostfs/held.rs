//! Which directories of the host are held open, over all passed-through trees of a VM.
//!
//! A held directory makes a look-up in it one host call. It is only a shorter way: a node whose
//! directory is given up finds it again by its place. The clock (second chance) decides whose it is.
//! The ring keeps its nodes, so that the next walk through a directory that nobody uses finds it held.
//!
//! Invariant: a node that holds a directory is in a slot of the ring, and the ring has at most
//! [`LIMIT`] slots; so no more descriptors are held. Lock order: the ring, then a node's own `Hold`.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::Node;
use crate::host::HostTree;

/// Directories held at most.
const LIMIT: usize = 256;

/// A node's part.
#[derive(Default)]
pub(super) struct Hold {
    dir: Mutex<Option<Arc<dyn HostTree>>>,
    /// Since the hand last passed.
    used: AtomicBool,
}

impl Hold {
    fn dir(&self) -> MutexGuard<'_, Option<Arc<dyn HostTree>>> {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The directory, if it is held.
    pub(super) fn get(&self) -> Option<Arc<dyn HostTree>> {
        let dir = self.dir().clone()?;
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(dir)
    }
    /// Gives it up.
    pub(super) fn release(&self) {
        let dir = self.dir().take();
        drop(dir);
    }
}

#[derive(Default)]
struct Ring {
    slots: Vec<Arc<Node>>,
    hand: usize,
}

impl Ring {
    /// The slot to use again, its node having been passed over since it was last used.
    fn advance(&mut self) -> Option<&mut Arc<Node>> {
        // Twice round at most: meanwhile others go on using theirs.
        for _ in 0..2 * self.slots.len() {
            self.hand = (self.hand + 1) % self.slots.len();
            if !self.slots.get(self.hand)?.hold().used.swap(false, Ordering::Relaxed) {
                break;
            }
        }
        self.slots.get_mut(self.hand)
    }
}

/// The held directories of a VM.
pub struct Held {
    limit: AtomicUsize,
    ring: Mutex<Ring>,
}

impl Default for Held {
    fn default() -> Held {
        Held { limit: AtomicUsize::new(LIMIT), ring: Mutex::default() }
    }
}

impl Held {
    /// Stays at a quarter of `descriptors`, or below.
    pub(super) fn stay_below(&self, descriptors: usize) {
        self.limit.fetch_min(descriptors / 4, Ordering::Relaxed);
    }
    /// Keeps `dir` with `node`, whose directory it is, and gives up another if there are too many.
    pub(super) fn keep(&self, node: &Arc<Node>, dir: &Arc<dyn HostTree>) {
        let given_up = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if node.hold().dir().is_some() {
                return;
            }
            let mut given_up = None;
            if ring.slots.len() < self.limit.load(Ordering::Relaxed) {
                ring.slots.push(node.clone());
            } else {
                let Some(slot) = ring.advance() else { return };
                let old = std::mem::replace(slot, node.clone());
                let dir = old.hold().dir().take();
                given_up = Some((dir, old));
            }
            *node.hold().dir() = Some(dir.clone());
            node.hold().used.store(true, Ordering::Relaxed);
            given_up
        };
        // Closing is a host call, and this may have been the last use of the node.
        drop(given_up);
    }
}
