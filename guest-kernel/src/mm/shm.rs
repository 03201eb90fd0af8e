//! SysV shared memory segments (svipc(7)): named page stores that live until removed.
//!
//! A segment counts its attachments by the owners of its [`Attachment`], which every VMA that maps
//! it holds. One removed while attached stays, marked, until the last VMA goes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::store::PageStore;
use crate::{error::Errno, frames::Frames};

/// Most segments (SHMMNI).
pub const MAX_SEGMENTS: usize = 4096;
/// Largest segment (SHMMAX's default).
pub const MAX_SIZE: u64 = u64::MAX - (1 << 24);
const INDEX_LIMIT: i32 = 32768;

/// Held by every mapping of a segment.
pub struct Attachment {
    /// The segment.
    pub id: i32,
}

/// A segment.
#[derive(Clone)]
#[expect(missing_docs, reason = "shmctl(2) names the fields")]
pub struct Segment {
    pub id: i32,
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub size: u64,
    pub atime: Duration,
    pub dtime: Duration,
    pub ctime: Duration,
    pub cpid: i32,
    pub lpid: i32,
    /// Removed, and waiting for its last detach.
    pub removed: bool,
    pub locked: bool,
    pub store: Arc<PageStore>,
    pub attachment: Arc<Attachment>,
}

/// All segments of a VM.
#[derive(Default)]
pub struct Segments {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<i32, Segment>,
    sequence: i32,
}

/// What a new segment is to be.
pub struct NewSegment {
    /// Its key, 0 (IPC_PRIVATE) for none.
    pub key: i32,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Creator's process.
    pub pid: i32,
    /// `CLOCK_REALTIME`.
    pub now: Duration,
}

impl Segments {
    /// Runs `body` on the table, after segments that were only waiting for their last detach have
    /// gone.
    fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<i32> = state
            .segments
            .values()
            .filter(|s| s.removed && attached(s) == 0)
            .map(|s| s.id)
            .collect();
        let dead: Vec<_> = gone.iter().filter_map(|id| state.segments.remove(id)).collect();
        let result = body(&mut state);
        drop(state);
        drop(dead);
        result
    }
    /// The segment with a key.
    #[must_use]
    pub fn by_key(&self, key: i32) -> Option<Segment> {
        self.with(|s| s.segments.values().find(|s| s.key == key && !s.removed).cloned())
    }
    /// The segment with an id.
    #[must_use]
    pub fn get(&self, id: i32) -> Option<Segment> {
        self.with(|s| s.segments.get(&id).cloned())
    }
    /// The segment in slot `index` (SHM_STAT).
    #[must_use]
    pub fn by_index(&self, index: i32) -> Option<Segment> {
        self.with(|s| s.segments.values().find(|s| s.id % INDEX_LIMIT == index).cloned())
    }
    /// All, in order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<Segment> {
        self.with(|s| s.segments.values().cloned().collect())
    }
    /// Makes a segment; its id. `object` is its store's id.
    ///
    /// # Errors
    /// ENOSPC, EEXIST when another thread made one with the same key.
    pub fn create(&self, new: NewSegment, object: u64, frames: &Arc<Frames>) -> Result<i32, Errno> {
        self.with(|state| {
            if new.key != 0 && state.segments.values().any(|s| s.key == new.key && !s.removed) {
                return Err(Errno::EEXIST);
            }
            let free = |i: &i32| !state.segments.keys().any(|id| id % INDEX_LIMIT == *i);
            let index = (0..4096).find(free).ok_or(Errno::ENOSPC)?;
            state.sequence = (state.sequence + 1) % 0xffff;
            let id = (state.sequence - 1) * INDEX_LIMIT + index;
            let segment = Segment {
                id,
                key: new.key,
                uid: new.uid,
                gid: new.gid,
                cuid: new.uid,
                cgid: new.gid,
                mode: new.mode,
                size: new.size,
                atime: Duration::ZERO,
                dtime: Duration::ZERO,
                ctime: new.now,
                cpid: new.pid,
                lpid: 0,
                removed: false,
                locked: false,
                store: PageStore::new(object, frames, new.size, None),
                attachment: Arc::new(Attachment { id }),
            };
            state.segments.insert(id, segment);
            Ok(id)
        })
    }
    /// Removes all (the VM ends).
    pub fn clear(&self) {
        drop(self.with(|state| std::mem::take(&mut state.segments)));
    }
    /// Changes a segment if it is there.
    pub fn change(&self, id: i32, change: impl FnOnce(&mut Segment)) {
        self.with(|state| {
            if let Some(segment) = state.segments.get_mut(&id) {
                change(segment);
            }
        });
        // A removal without attachments takes effect at once.
        self.with(|_| ());
    }
}

/// Mappings of a segment.
#[must_use]
pub fn attached(segment: &Segment) -> u64 {
    (Arc::strong_count(&segment.attachment) as u64).saturating_sub(1)
}
