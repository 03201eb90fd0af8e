//! What a mapping maps: a source of frames by page index.

use std::{any::Any, sync::Arc};

use crate::frames::Frame;

/// Why an object has no frame for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageError {
    /// The page lies past the end: SIGBUS.
    PastEnd,
    /// Memory is exhausted.
    NoMemory,
    /// The backing file could not be read: SIGBUS.
    Io,
}

/// A file's pages, or shared anonymous memory. All mappers of a page get the same frame.
pub trait MemObject: Send + Sync + Any {
    /// A number that identifies the object for as long as it lives (futex keys).
    fn id(&self) -> u64;
    /// The frame of page `index`, filled. `write` says that a shared mapping will store to it.
    ///
    /// # Errors
    /// [`PageError`].
    fn page(&self, index: u64, write: bool) -> Result<Frame, PageError>;
    /// The frame of page `index` if it is in memory now (fault-around).
    fn resident(&self, index: u64) -> Option<Frame>;
    /// Fills up to `count` pages from `index` in one go (read-ahead); a hint.
    fn prefetch(&self, _index: u64, _count: u64) {}
    /// Stores through a shared mapping must be announced by [`MemObject::page`] with `write` first
    /// (dirty tracking). Objects without a backing file need not know.
    fn tracks_writes(&self) -> bool {
        true
    }
    /// Makes pages `[first, last)` read as zero and revokes them (MADV_REMOVE); false if the object
    /// cannot. Called with no address space locked.
    fn punch(&self, _first: u64, _last: u64) -> bool {
        false
    }
    /// Writes pages `[first, last)` back to where they come from (msync).
    fn sync(&self, _first: u64, _last: u64) {}
    /// Who maps it, so that truncation can revoke (`Mappers::invalidate`).
    fn mappers(&self) -> &Mappers;
    /// For implementations to find their own type again.
    fn as_any(&self) -> &dyn Any;
}

/// The address spaces that map an object.
#[derive(Default)]
pub struct Mappers {
    spaces: std::sync::Mutex<Vec<std::sync::Weak<super::Mm>>>,
}

impl Mappers {
    /// Notes that `mm` maps the object; it is forgotten when it dies.
    pub fn add(&self, mm: &Arc<super::Mm>) {
        let mut spaces = self.spaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        spaces.retain(|s| s.strong_count() > 0);
        if !spaces.iter().any(|s| std::ptr::eq(s.as_ptr(), Arc::as_ptr(mm))) {
            spaces.push(Arc::downgrade(mm));
        }
    }
    /// The live address spaces that may map the object.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<super::Mm>> {
        let spaces = self.spaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        spaces.iter().filter_map(std::sync::Weak::upgrade).collect()
    }
    /// Takes pages `[first, last)` of object `id` out of every mapping (truncation, hole punching).
    /// The object has already given them up, and its locks are open.
    pub fn invalidate(&self, id: u64, first: u64, last: u64) {
        for mm in self.list() {
            mm.invalidate(id, first, last);
        }
    }
}
