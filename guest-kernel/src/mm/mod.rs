//! Address spaces: VMAs, the pages behind them, faults, copy on write.
//!
//! Neighbours: `linux::sys::mm` asks, `task::run` brings faults, `usermem` copies through the page
//! map, the platform makes the edits.
//!
//! Invariants:
//! * One lock per [`Mm`]; it is taken before any object's lock and never while one is held.
//! * What the platform grants is what the page map says; the page map grants no more than the VMA.
//! * A store is granted on a private page only if the process is its frame's single owner.
//! * Frames are released, and mappings dropped, only after the edits that revoked them were made.

pub mod advise;
pub mod batch;
pub mod brk;
pub mod check;
pub mod fault;
pub mod fork;
pub mod info;
pub mod layout;
pub mod map;
pub mod object;
pub mod pagemap;
pub mod protect;
pub mod remap;
pub mod rewrite;
pub mod shm;
pub mod store;
#[cfg(test)]
mod tests;
pub mod vma;

use std::sync::{
    Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
    atomic::{AtomicU64, Ordering},
};

pub use self::layout::Layout;
use self::{
    batch::Batch,
    pagemap::PageMap,
    rewrite::{Sites, Tallies},
    vma::VmaTree,
};
use crate::{
    error::Errno,
    frames::Frames,
    kernel::Kernel,
    platform::{AddressSpace, Edit, Gpa, PlatformError, USER_END},
};

/// A fault the program must hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemFault {
    /// SIGSEGV, SEGV_MAPERR.
    Unmapped,
    /// SIGSEGV, SEGV_ACCERR.
    Protected,
    /// SIGBUS, BUS_ADRERR: past the end of the mapped file.
    Bus,
    /// Memory is exhausted: the process is killed.
    OutOfMemory,
}

/// The limits a memory call obeys (getrlimit(2)), in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_MEMLOCK; infinite for the privileged.
    pub locked: u64,
}

impl Limits {
    /// No limits (the kernel's own mappings).
    pub const NONE: Limits = Limits { address_space: u64::MAX, data: u64::MAX, locked: u64::MAX };
}

/// Most mappings a process may have (`vm.max_map_count`).
pub const MAX_MAPPINGS: usize = 65530;

/// What an address space's lock protects.
#[derive(Default)]
pub(crate) struct Inner {
    pub vmas: VmaTree,
    pub pages: PageMap,
    pub batch: Batch,
    pub layout: Layout,
    /// Future mappings are locked (MCL_FUTURE).
    pub lock_future: bool,
    /// Faults that found everything in place, by page (see `fault`).
    pub spurious: [(u64, u32); 8],
    /// Pages stored to after a fork.
    pub stored: Arc<fault::Stored>,
    /// Call sites that jump to the gate.
    pub sites: Sites,
    /// The platform failed: the process must die.
    pub broken: bool,
    /// Frames that a failed platform may still map; kept until the space is gone.
    lost: Vec<Gpa>,
}

/// One guest address space.
pub struct Mm {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    space: Arc<dyn AddressSpace>,
    id: u64,
    me: Weak<Mm>,
    user_end: u64,
    stack_limit: AtomicU64,
    jump_gate: Option<u64>,
    tallies: Tallies,
    inner: RwLock<Inner>,
}

impl Mm {
    /// An empty address space.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(kernel: &Arc<Kernel>) -> Result<Arc<Mm>, Errno> {
        Self::with_space(kernel, kernel.platform.new_space())
    }
    /// The same for a fork of this one.
    fn for_fork(&self) -> Result<Arc<Mm>, Errno> {
        let space = self.space.fork().transpose();
        Self::with_space(&self.kernel, space.unwrap_or_else(|| self.kernel.platform.new_space()))
    }
    fn with_space(
        kernel: &Arc<Kernel>,
        space: Result<Arc<dyn AddressSpace>, PlatformError>,
    ) -> Result<Arc<Mm>, Errno> {
        let space = space.map_err(|_| Errno::ENOMEM)?;
        let reserved = kernel.platform.reserved();
        let user_end = if reserved.is_empty() { USER_END } else { reserved.start.min(USER_END) };
        Ok(Arc::new_cyclic(|me| Mm {
            kernel: kernel.clone(),
            space,
            id: kernel.fresh_id(),
            me: me.clone(),
            user_end,
            stack_limit: AtomicU64::new(layout::DEFAULT_STACK),
            jump_gate: kernel.platform.jump_gate(),
            tallies: Tallies::default(),
            inner: RwLock::new(Inner {
                layout: Layout::top_down(user_end, layout::DEFAULT_STACK),
                ..Inner::default()
            }),
        }))
    }
    /// The platform's side.
    #[must_use]
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }
    /// A number no other address space or object has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
    /// One past the highest address a mapping may have.
    #[must_use]
    pub fn user_end(&self) -> u64 {
        self.user_end
    }
    /// How far the main stack may grow (RLIMIT_STACK).
    pub fn set_stack_limit(&self, bytes: u64) {
        self.stack_limit.store(bytes, Ordering::Relaxed);
    }
    pub(crate) fn stack_limit(&self) -> u64 {
        self.stack_limit.load(Ordering::Relaxed)
    }
    pub(crate) fn frames(&self) -> &Arc<Frames> {
        &self.kernel.frames
    }
    pub(crate) fn weak(&self) -> &Weak<Mm> {
        &self.me
    }
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
    /// Runs `body` with the space locked, has the platform make the edits it gathered, and only
    /// then gives up what they revoked.
    pub(crate) fn edit<T>(&self, body: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.write();
        let result = body(&mut inner);
        self.commit(&mut inner);
        let vmas = std::mem::take(&mut inner.batch.vmas);
        drop(inner);
        drop(vmas);
        result
    }
    /// Has the platform make the edits gathered so far.
    pub(crate) fn commit(&self, inner: &mut Inner) {
        let edits = std::mem::take(&mut inner.batch.edits);
        let frames = std::mem::take(&mut inner.batch.frames);
        if !edits.is_empty()
            && let Err(error) = self.space.apply(&edits)
        {
            inner.broken = true;
            if !matches!(error, PlatformError::Gone) {
                inner.lost.extend(frames);
                return;
            }
        }
        self.frames().release_all(&frames);
    }
    /// Unmaps everything and gives every frame and file back.
    pub fn clear(&self) {
        self.edit(|inner| {
            inner.vmas.remove(0, USER_END).into_iter().for_each(|v| inner.batch.vmas.push(v));
            let frames = &mut inner.batch.frames;
            inner.pages.update(0, USER_END, |_, pte| {
                frames.push(pte.gpa());
                None
            });
            if !frames.is_empty() {
                inner.batch.edits = vec![Edit::Unmap { va: 0, len: USER_END }];
            }
        });
    }
    /// [`Mm::clear`] for a space in which nothing will run again.
    fn end(&self) {
        if self.kernel.config.audit
            && !self.read().broken
            && let Err(wrong) = self.check()
        {
            self.kernel.failures.note(&format!("an address space is inconsistent: {wrong}"));
        }
        if Arc::strong_count(&self.space) > 1 {
            return self.clear();
        }
        let vmas = {
            let mut inner = self.write();
            let vmas = inner.vmas.remove(0, USER_END);
            let mut frames = Vec::new();
            inner.pages.update(0, USER_END, |_, pte| {
                frames.push(pte.gpa());
                None
            });
            match self.space.end() {
                Err(error) if !matches!(error, PlatformError::Gone) => inner.lost.extend(frames),
                _ => self.frames().release_all(&frames),
            }
            vmas
        };
        drop(vmas);
    }
}

impl Drop for Mm {
    fn drop(&mut self) {
        self.end();
        // A space whose platform failed is unknown territory until nobody can run in it: its frames
        // go only if we are the last to hold it.
        let lost = std::mem::take(&mut self.write().lost);
        if Arc::strong_count(&self.space) == 1 {
            self.frames().release_all(&lost);
        }
    }
}
