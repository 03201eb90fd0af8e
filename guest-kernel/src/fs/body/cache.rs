//! What bodies hold of memory and of the host's descriptors, and how it is had back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::Body;
use crate::error::Errno;

impl Body {
    /// Drops clean pages that nobody else holds; the count.
    fn evict(&self, want: usize) -> usize {
        if self.lower.is_none() {
            return 0;
        }
        let Ok(mut state) = self.state.try_lock() else { return 0 };
        let mut due = Vec::new();
        for (index, page) in &state.pages {
            if due.len() == want {
                break;
            }
            if !page.dirty && self.frames.owners(page.frame.gpa()) == 1 {
                due.push(*index);
            }
        }
        for index in &due {
            state.pages.remove(index);
        }
        due.len()
    }
}

/// The bodies whose clean pages can be dropped when memory is short.
#[derive(Default)]
pub struct Caches {
    bodies: Mutex<Vec<Weak<Body>>>,
}

impl Caches {
    fn bodies(&self) -> MutexGuard<'_, Vec<Weak<Body>>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn add(&self, body: &Arc<Body>) {
        let mut bodies = self.bodies();
        if bodies.len() >= 1024 && bodies.len().is_power_of_two() {
            bodies.retain(|b| b.strong_count() > 0);
        }
        bodies.push(Arc::downgrade(body));
    }
    /// Drops up to `want` clean pages that nobody maps; the count.
    pub fn shrink(&self, want: usize) -> usize {
        let bodies = self.bodies().clone();
        let mut freed = 0;
        for body in bodies.iter().filter_map(Weak::upgrade) {
            freed += body.evict(want - freed);
            if freed >= want {
                break;
            }
        }
        freed
    }
}

impl crate::frames::Shrink for Caches {
    fn shrink(&self, want: usize) -> usize {
        Caches::shrink(self, want)
    }
}

/// Bodies with an open host file, oldest first: more than [`MAX_HANDLES`] are not kept open.
#[derive(Default)]
pub struct Handles {
    open: Mutex<VecDeque<Weak<Body>>>,
}

/// Host files kept open for bodies.
const MAX_HANDLES: usize = 256;

impl Handles {
    /// Opens the host file below `body`, perhaps closing another's.
    ///
    /// # Errors
    /// The host's errno.
    pub fn open(&self, body: &Arc<Body>) -> Result<(), Errno> {
        let Some(lower) = body.lower() else { return Ok(()) };
        let known = lower.is_open();
        lower.handle()?;
        if known {
            return Ok(());
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(body));
        while open.len() > MAX_HANDLES {
            if let Some(oldest) = open.pop_front().and_then(|b| b.upgrade())
                && let Some(lower) = oldest.lower()
            {
                lower.close();
            }
        }
        Ok(())
    }
}
